#include "proxy/session/users.h"

#include <algorithm>
#include <stdexcept>

namespace pgchaperone::session {
namespace {

constexpr std::string_view blanks = " \t";

void skip_blanks(std::string_view& text) {
    text.remove_prefix(std::min(text.find_first_not_of(blanks), text.size()));
}

// Takes a text in double quotes off the front. False: there is none.
bool take_quoted(std::string_view& line, std::string& out) {
    if (!line.starts_with('"')) return false;
    for (std::size_t at = 1; at < line.size(); ++at) {
        if (line[at] != '"') {
            out += line[at];
        } else if (at + 1 < line.size() && line[at + 1] == '"') {
            out += line[at++];
        } else {
            line.remove_prefix(at + 1);
            return true;
        }
    }
    return false;
}

// What is wrong with the line; empty: nothing.
std::string read_line(std::string_view line, std::string& name, std::string& secret) {
    if (line.find('\0') != line.npos) return "there is a zero byte in it";
    if (!take_quoted(line, name)) return "a name in double quotes is expected";
    const std::size_t before = line.size();
    skip_blanks(line);
    if (line.size() == before || !take_quoted(line, secret))
        return "behind the name a blank and a secret in double quotes are expected";
    skip_blanks(line);
    if (!line.empty()) return "something stands behind the secret";
    if (name.empty()) return "the name is empty";
    if (name.size() > user_name_bytes_max)
        return "the name has more than " + std::to_string(user_name_bytes_max) +
               " bytes, and PostgreSQL would cut it off";
    if (secret.empty()) return "the secret is empty";
    return {};
}

std::string quoted(std::string_view text) {
    std::string out = "\"";
    for (const char c : text) {
        if (c == '"') out += c;
        out += c;
    }
    return out + '"';
}

}  // namespace

void throw_exception_from_error(const UsersProblem& problem, const boost::source_location&) {
    throw std::runtime_error("line " + std::to_string(problem.line) + ": " + problem.text);
}

UsersResult<std::vector<UserLine>> read_user_lines(std::string_view text) {
    std::vector<UserLine> lines;
    std::map<std::string, std::size_t, std::less<>> seen;
    for (std::size_t number = 1; !text.empty(); ++number) {
        std::string_view line = text.substr(0, text.find('\n'));
        text.remove_prefix(std::min(line.size() + 1, text.size()));
        if (line.ends_with('\r')) line.remove_suffix(1);
        skip_blanks(line);
        if (line.empty() || line.front() == '#' || line.front() == ';') continue;
        std::string name, secret;
        std::string wrong = read_line(line, name, secret);
        Secret kept = Secret::take(secret);
        if (!wrong.empty()) return UsersProblem{number, std::move(wrong)};
        const auto [place, is_new] = seen.emplace(name, number);
        if (!is_new)
            return UsersProblem{number, "\"" + name + "\" stands in line " +
                                            std::to_string(place->second) + " already"};
        lines.push_back({std::move(name), std::move(kept), number});
    }
    return lines;
}

std::string user_line(std::string_view name, std::string_view secret) {
    return quoted(name) + " " + quoted(secret);
}

UsersResult<Users> Users::parse_users(std::string_view text, std::string secret) {
    auto lines = read_user_lines(text);
    if (lines.has_error()) return lines.error();
    Users users;
    users.secret_ = std::move(secret);
    for (UserLine& line : *lines) {
        auto verifier = ScramVerifier::parse(line.secret.view());
        if (!verifier)
            return UsersProblem{line.line, "the secret of \"" + line.name +
                                               "\" is no SCRAM-SHA-256 verifier; make it by "
                                               "`pgchaperone user add`"};
        if (users.verifiers_.empty()) users.iterations_ = verifier->iterations;
        users.verifiers_.emplace(std::move(line.name), std::move(*verifier));
    }
    return users;
}

UsersResult<void> Users::parse_passwords(std::string_view text) {
    auto lines = read_user_lines(text);
    if (lines.has_error()) return lines.error();
    passwords_.clear();
    for (UserLine& line : *lines) passwords_.emplace(std::move(line.name), std::move(line.secret));
    return {};
}

std::pair<ScramVerifier, bool> Users::find(std::string_view name) const {
    const auto found = verifiers_.find(name);
    if (found != verifiers_.end()) return {found->second, true};
    return {ScramVerifier::imaginary(name, secret_, iterations_), false};
}

const Secret* Users::password(std::string_view name) const {
    const auto found = passwords_.find(name);
    return found == passwords_.end() ? nullptr : &found->second;
}

}  // namespace pgchaperone::session
