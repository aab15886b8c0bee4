#pragma once
// Reading aids for PostgreSQL's parse tree as libpg_query writes it in JSON: a node is an object
// with one field whose name is the node's type, {"A_Expr": {...}}; fields that are null, zero,
// false or empty are left out; fields whose C type says what they hold (relation, intoClause, larg)
// come without the wrapper.

#include <simdjson.h>

#include <cstdint>
#include <optional>
#include <string_view>

namespace pgchaperone::policy {

using Json = simdjson::dom::element;
using JsonObject = simdjson::dom::object;
using JsonArray = simdjson::dom::array;

struct Node {
    std::string_view type;
    JsonObject body;
};

inline std::optional<JsonObject> as_object(const Json& json) {
    JsonObject object;
    if (json.get(object) != simdjson::SUCCESS) {
        return std::nullopt;
    }
    return object;
}

inline std::optional<Json> field(const JsonObject& object, std::string_view name) {
    Json value;
    if (object.at_key(name).get(value) != simdjson::SUCCESS) {
        return std::nullopt;
    }
    return value;
}

inline std::optional<JsonObject> object_field(const JsonObject& object, std::string_view name) {
    JsonObject value;
    if (object.at_key(name).get(value) != simdjson::SUCCESS) {
        return std::nullopt;
    }
    return value;
}

// Empty where the field is missing.
inline std::string_view text_field(const JsonObject& object, std::string_view name) {
    std::string_view value;
    if (object.at_key(name).get(value) != simdjson::SUCCESS) {
        return {};
    }
    return value;
}

inline bool flag_field(const JsonObject& object, std::string_view name) {
    bool value = false;
    return object.at_key(name).get(value) == simdjson::SUCCESS && value;
}

inline std::int64_t number_field(const JsonObject& object, std::string_view name) {
    std::int64_t value = 0;
    return object.at_key(name).get(value) == simdjson::SUCCESS ? value : 0;
}

// An array field for a range-based for; empty where it is missing.
class Items {
public:
    Items() = default;
    explicit Items(JsonArray array) : array_(array) {}
    class iterator {
    public:
        explicit iterator(std::optional<JsonArray::iterator> at) : at_(at) {}
        Json operator*() const { return **at_; }
        iterator& operator++() {
            ++*at_;
            return *this;
        }
        bool operator!=(const iterator& other) const {
            return at_.has_value() && *at_ != *other.at_;
        }

    private:
        std::optional<JsonArray::iterator> at_;
    };
    iterator begin() const {
        return iterator(array_ ? std::optional(array_->begin()) : std::nullopt);
    }
    iterator end() const { return iterator(array_ ? std::optional(array_->end()) : std::nullopt); }
    std::size_t size() const {
        std::size_t count = 0;
        for ([[maybe_unused]] const Json item : *this) {
            ++count;
        }
        return count;
    }
    bool empty() const { return !(begin() != end()); }

private:
    std::optional<JsonArray> array_;
};

inline Items items_field(const JsonObject& object, std::string_view name) {
    JsonArray value;
    if (object.at_key(name).get(value) != simdjson::SUCCESS) {
        return {};
    }
    return Items(value);
}

// The node in a wrapper; nothing where `json` is none.
inline std::optional<Node> as_node(const Json& json) {
    const auto object = as_object(json);
    if (!object) {
        return std::nullopt;
    }
    for (const auto& [key, value] : *object) {
        JsonObject body;
        if (value.get(body) != simdjson::SUCCESS || key.empty() || key[0] < 'A' || key[0] > 'Z') {
            return std::nullopt;
        }
        return Node{key, body};
    }
    return std::nullopt;
}

inline std::optional<Node> node_field(const JsonObject& object, std::string_view name) {
    const auto value = field(object, name);
    return value ? as_node(*value) : std::nullopt;
}

// The text of a String node; empty where it is another one.
inline std::string_view string_value(const Json& json) {
    const auto node = as_node(json);
    return node && node->type == "String" ? text_field(node->body, "sval") : std::string_view{};
}

// The elements of a List node.
inline Items list_items(const Json& json) {
    const auto node = as_node(json);
    return node && node->type == "List" ? items_field(node->body, "items") : Items{};
}

}  // namespace pgchaperone::policy
