#include "config/json_text.h"

namespace pgchaperone::config {
namespace {

void print(const boost::json::value& value, std::string& out, std::size_t depth) {
    const std::string indent(2 * (depth + 1), ' ');
    const std::string closing(2 * depth, ' ');
    if (const auto* object = value.if_object(); object != nullptr && !object->empty()) {
        out += "{\n";
        bool first = true;
        for (const auto& member : *object) {
            if (!first) out += ",\n";
            first = false;
            out += indent + boost::json::serialize(boost::json::string(member.key())) + ": ";
            print(member.value(), out, depth + 1);
        }
        out += "\n" + closing + "}";
    } else if (const auto* array = value.if_array(); array != nullptr && !array->empty()) {
        bool simple = true;
        for (const auto& item : *array) simple = simple && !item.is_object() && !item.is_array();
        if (simple) {
            out += boost::json::serialize(value);
            return;
        }
        out += "[\n";
        for (std::size_t i = 0; i < array->size(); ++i) {
            if (i > 0) out += ",\n";
            out += indent;
            print((*array)[i], out, depth + 1);
        }
        out += "\n" + closing + "]";
    } else {
        out += boost::json::serialize(value);
    }
}

}  // namespace

std::string pretty(const boost::json::value& value) {
    std::string out;
    print(value, out, 0);
    return out + "\n";
}

}  // namespace pgchaperone::config
