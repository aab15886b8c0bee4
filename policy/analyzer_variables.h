#pragma once
// What the variables of a PL/pgSQL body are known to hold while its statements are read from top to
// bottom: texts, as far as they are made of literals, and rows of queries. Knows the trees of
// PL/pgSQL and nothing of what a statement does. Errs towards "not known".

#include "policy/analyzer_bounds.h"
#include "policy/parse_node.h"
#include "policy/parse_tree.h"

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace pgchaperone::policy {

class BodyVariables {
public:
    // All texts that a value can be; none where that is not known.
    using Texts = std::vector<std::string>;
    using State = std::map<std::string, Texts, std::less<>>;

    explicit BodyVariables(bool backslash_escapes) : backslash_escapes_(backslash_escapes) {}

    // Reads the declarations in the body of a PLpgSQL_function.
    void declare(const JsonObject& function);
    // Of a number in the tree; empty where it has no name or one that another variable has too.
    std::string_view name_of(std::int64_t number) const;
    // Of the target of a loop, a FETCH or an INTO.
    std::vector<std::string> names_in(const Json& target) const;

    // Texts.
    Texts texts_of(std::string_view expression);
    Texts elements_of(std::string_view array_expression);
    void set(std::string_view name, Texts texts);
    void forget(const std::vector<std::string>& names);
    void forget_assigned_by(std::string_view statement, const JsonObject& body);
    void forget_assigned_in(const JsonObject& body);
    const State& state() const { return state_; }
    void restore(State state) { state_ = std::move(state); }
    // Either what is known now or what was known in `other`.
    void join(const State& other);

    // Rows. Those of cursors are kept apart until something loops over them.
    const std::vector<VariableOrigin>& origins() const { return origins_; }
    std::size_t mark() const { return origins_.size(); }
    void release(std::size_t mark) { origins_.resize(mark); }
    std::vector<VariableOrigin> exchange_origins(std::vector<VariableOrigin> others) {
        origins_.swap(others);
        return others;
    }
    void come_from(const std::vector<std::string>& names, const VariableOrigin& origin);
    std::optional<VariableOrigin> origin_of_query(std::string_view sql);
    std::optional<VariableOrigin> origin_of_expression(std::string_view expression, bool repeated);
    // SELECT ... INTO: of each target.
    void select_into(const std::vector<std::string>& names, std::string_view sql, bool repeated);
    void open(std::string_view cursor, std::string_view sql);
    std::optional<VariableOrigin> origin_of_cursor(std::string_view cursor) const;
    // What a loop over `statements` fetches.
    void fetch_in(const Json& statements);

    // The one value of an expression or an assignment; its tree is kept.
    std::optional<Json> value_of(std::string_view expression, int mode = 2);
    // Whether a condition picks out some of the rows that a loop goes through.
    bool chooses(std::string_view condition);
    // Whether a loop may end, or skip, before it has seen every row.
    bool leaves_early(const Json& statements);
    // The same for the condition of a WHILE: a counter ends it, not the end of the rows.
    bool ends_by_counting(std::string_view condition);

private:
    bool may_leave(const Json& statements, bool chosen);
    std::optional<Json> read(std::string_view sql, int mode);
    std::optional<VariableOrigin> origin_of_value(const Json& value, bool repeated) const;
    std::optional<VariableOrigin> origin_named(std::string_view name) const;
    bool asks_for_the_end(const Json& condition, bool negated) const;

    bool backslash_escapes_;
    std::vector<std::string> names_;  // by number
    State state_;
    std::vector<VariableOrigin> origins_;
    std::map<std::string, JsonObject, std::less<>> cursors_;
    std::vector<std::unique_ptr<ParseTree>> trees_;
    unsigned reads_left_ = 5000;  // loops in loops read the same conditions again
};

}  // namespace pgchaperone::policy
