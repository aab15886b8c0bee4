#pragma once
// Reads who may log in (authentication: users) from the files that the configuration names.

#include "proxy/session/users.h"

#include <filesystem>
#include <memory>
#include <string>

namespace pgchaperone::net {

struct UsersSettings {
    std::filesystem::path file;
    std::filesystem::path passwords;  // empty: the server asks for none
};

// Both as they are now. `secret`: see Users. Throws std::runtime_error: which file, which line, and
// what is wrong; files that others may read or change are refused, as keys are.
std::shared_ptr<const session::Users> load_users(const UsersSettings& settings,
                                                 const std::string& secret);

// What keeps load_users from it, for each of the files: the first that is wrong with it, or
// nothing. For `config check`.
struct ProblemsOfUsers {
    std::string file;
    std::string passwords;
};
ProblemsOfUsers problems_of_users(const UsersSettings& settings);

}  // namespace pgchaperone::net
