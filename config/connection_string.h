#pragma once
// What libpq is told to connect to, as its own parser reads it: whether it can be read, and what
// people may see of it. Nothing here quotes a value, which may be a part of a password.

#include <optional>
#include <string>
#include <string_view>

namespace pgchaperone::config {

// Whether `store` is a connection string: it has a scheme, or a setting with an equals sign.
bool is_connection_string(std::string_view store);

// Why libpq would not understand it, or would take a part of the password for something else that
// it tells in errors; nothing where it is good.
std::optional<std::string> problem_of_connection_string(std::string_view text);

// For people: without a password. What can't be read is hidden as a whole.
std::string without_password(std::string_view store);

}  // namespace pgchaperone::config
