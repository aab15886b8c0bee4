#pragma once
// Who may log in where pgchaperone checks the passwords (authentication: users), and what it logs
// in to the server with in their place. Two texts of the same form, that of PgBouncer's userlist:
// a line each, a name and a secret in double quotes, in which a double quote is written twice.
// Lines that begin with # or ; say nothing.
//
//   users       "alice" "SCRAM-SHA-256$4096:...$...:..."
//   passwords   "alice" "what the server knows her by"
//
// Values; reads no file.

#include "proxy/session/scram_server.h"
#include "proxy/session/secret.h"

#include <boost/system/result.hpp>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace pgchaperone::session {

struct UserLine {
    std::string name;
    Secret secret;
    std::size_t line = 0;  // from 1
};

// What is wrong with such a text, and in which line; never with a secret in it.
struct UsersProblem {
    std::size_t line = 0;
    std::string text;
};

[[noreturn]] void throw_exception_from_error(const UsersProblem& problem,
                                             const boost::source_location& where);

template <class T>
using UsersResult = boost::system::result<T, UsersProblem>;

// The longest name that PostgreSQL does not cut off (NAMEDATALEN).
constexpr std::size_t user_name_bytes_max = 63;

UsersResult<std::vector<UserLine>> read_user_lines(std::string_view text);
// One such line, without its end. The name and the secret have no line break and no NUL.
std::string user_line(std::string_view name, std::string_view secret);

class Users {
public:
    // What each of the two says. `secret`: random bytes, drawn once for a process.
    static UsersResult<Users> parse_users(std::string_view text, std::string secret);
    // Adds the passwords that the server knows people by.
    UsersResult<void> parse_passwords(std::string_view text);

    // The verifier of a user; of somebody who is not known one that nothing matches, and false.
    std::pair<ScramVerifier, bool> find(std::string_view name) const;
    // What to log in to the server with; null: nothing is known, and the server may ask for none
    // (where it knows pgchaperone by a certificate).
    const Secret* password(std::string_view name) const;
    std::size_t size() const { return verifiers_.size(); }

private:
    std::map<std::string, ScramVerifier, std::less<>> verifiers_;
    std::map<std::string, Secret, std::less<>> passwords_;
    std::string secret_;
    // Of who is not known: as of the first who is.
    std::uint32_t iterations_ = ScramVerifier::usual_iterations;
};

}  // namespace pgchaperone::session
