#include "proxy/session/plan.h"

#include <boost/json.hpp>

#include <algorithm>
#include <cstdint>
#include <string>

namespace pgchaperone::session {

namespace {

namespace json = boost::json;

constexpr std::size_t plan_lines_max = 40;
constexpr std::size_t condition_bytes_max = 200;

std::string_view text_of(const json::object& node, std::string_view name) {
    const json::value* const value = node.if_contains(name);
    return value != nullptr && value->is_string() ? std::string_view(value->get_string())
                                                  : std::string_view();
}

double rows_of(const json::object& node) {
    const json::value* const value = node.if_contains("Plan Rows");
    if (value == nullptr) return 0;
    boost::system::error_code error;
    const double rows = value->to_number<double>(error);
    return error ? 0 : rows;
}

// What feeds a ModifyTable: its children, but not the CTEs and subqueries below it.
double rows_to_modify(const json::object& node) {
    double rows = 0;
    const json::value* const children = node.if_contains("Plans");
    if (children == nullptr || !children->is_array()) return 0;
    for (const json::value& child : children->get_array()) {
        if (!child.is_object()) continue;
        const std::string_view relationship = text_of(child.get_object(), "Parent Relationship");
        if (relationship == "Outer" || relationship == "Member")
            rows += rows_of(child.get_object());
    }
    return rows;
}

void add_target(const json::object& node, approval::Evidence& evidence) {
    std::string table(text_of(node, "Relation Name"));
    const std::string_view schema = text_of(node, "Schema");
    if (!schema.empty()) table = std::string(schema) + "." + table;
    const auto rows = static_cast<std::uint64_t>(std::max(0.0, rows_to_modify(node)));
    const std::string_view operation = text_of(node, "Operation");
    auto at = std::find_if(evidence.tables.begin(), evidence.tables.end(),
                           [&](const approval::TableRows& one) { return one.table == table; });
    if (at == evidence.tables.end()) {
        evidence.tables.push_back({table, 0, 0, 0});
        at = evidence.tables.end() - 1;
    }
    (operation == "Insert"   ? at->inserted
     : operation == "Delete" ? at->deleted
                             : at->updated) += rows;
}

void walk(const json::object& node, unsigned depth, approval::Evidence& evidence,
          std::size_t& lines) {
    constexpr unsigned depth_max = 100;
    if (depth > depth_max) return;
    const std::string_view type = text_of(node, "Node Type");
    if (type == "ModifyTable") add_target(node, evidence);
    if (++lines <= plan_lines_max) {
        std::string line(2 * depth, ' ');
        line += type == "ModifyTable" ? text_of(node, "Operation") : type;
        const std::string_view relation = text_of(node, "Relation Name");
        if (!relation.empty()) line += " on " + std::string(relation);
        if (type != "ModifyTable") {
            line += " (" + std::to_string(static_cast<std::uint64_t>(rows_of(node))) + " rows)";
        }
        for (const std::string_view condition :
             {"Index Cond", "Recheck Cond", "Filter", "Hash Cond", "Merge Cond", "Join Filter"}) {
            const std::string_view text = text_of(node, condition);
            if (text.empty()) continue;
            line += " " + std::string(condition) + ": " +
                    std::string(text.substr(0, condition_bytes_max));
        }
        evidence.text += (evidence.text.empty() ? "" : "\n") + line;
    }
    const json::value* const children = node.if_contains("Plans");
    if (children == nullptr || !children->is_array()) return;
    for (const json::value& child : children->get_array()) {
        if (child.is_object()) walk(child.get_object(), depth + 1, evidence, lines);
    }
}

}  // namespace

approval::Evidence evidence_of_plan(std::string_view text) {
    approval::Evidence evidence;
    boost::system::error_code error;
    json::parse_options options;
    options.max_depth = 400;
    options.allow_invalid_utf8 = true;
    const json::value plan = json::parse(text, error, {}, options);
    const json::object* root = nullptr;
    if (!error && plan.is_array() && !plan.get_array().empty() &&
        plan.get_array().front().is_object()) {
        const json::value* const top = plan.get_array().front().get_object().if_contains("Plan");
        if (top != nullptr && top->is_object()) root = &top->get_object();
    }
    if (root == nullptr) {
        evidence.text = "the server's plan could not be read";
        return evidence;
    }
    evidence.kind = approval::Evidence::Kind::plan;
    std::size_t lines = 0;
    walk(*root, 0, evidence, lines);
    if (lines > plan_lines_max) {
        evidence.text += "\n... and " + std::to_string(lines - plan_lines_max) + " more nodes";
    }
    std::stable_sort(evidence.tables.begin(), evidence.tables.end(),
                     [](const approval::TableRows& a, const approval::TableRows& b) {
                         return a.updated + a.deleted > b.updated + b.deleted;
                     });
    return evidence;
}

}  // namespace pgchaperone::session
