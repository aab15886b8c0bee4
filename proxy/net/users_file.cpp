#include "proxy/net/users_file.h"

#include "proxy/net/tls_context.h"

#include <cerrno>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <system_error>
#include <utility>

namespace pgchaperone::net {
namespace {

constexpr std::uintmax_t file_bytes_max = 16U << 20;

// The text holds secrets: whoever gets it wipes it.
std::string text_of(const std::filesystem::path& file) {
    if (const std::string problem = check_secret_permissions("file", file); !problem.empty())
        throw std::runtime_error(problem);
    std::error_code error;
    const std::uintmax_t size = std::filesystem::file_size(file, error);
    if (!error && size > file_bytes_max)
        throw std::runtime_error("the file " + file.string() + " has more than " +
                                 std::to_string(file_bytes_max >> 20) + " MB");
    std::ifstream in(file, std::ios::binary);
    std::string text;
    text.reserve(static_cast<std::size_t>(error ? 0 : size));  // no copy is left behind by growing
    text.assign(std::istreambuf_iterator<char>(in), {});
    if (!in)
        throw std::runtime_error("can't read the file " + file.string() + ": " +
                                 std::generic_category().message(errno));
    return text;
}

[[noreturn]] void fail(const std::filesystem::path& file, const session::UsersProblem& problem) {
    throw std::runtime_error(file.string() + ":" + std::to_string(problem.line) + ": " +
                             problem.text);
}

session::Secret secret_of(const std::filesystem::path& file) {
    std::string read = text_of(file);
    return session::Secret::take(read);
}

session::Users users_of(const std::filesystem::path& file, const std::string& secret) {
    const session::Secret text = secret_of(file);
    auto users = session::Users::parse_users(text.view(), secret);
    if (users.has_error()) fail(file, users.error());
    return std::move(*users);
}

void add_passwords(const std::filesystem::path& file, session::Users& users) {
    const session::Secret text = secret_of(file);
    if (auto done = users.parse_passwords(text.view()); done.has_error()) fail(file, done.error());
}

}  // namespace

std::shared_ptr<const session::Users> load_users(const UsersSettings& settings,
                                                 const std::string& secret) {
    session::Users users = users_of(settings.file, secret);
    if (!settings.passwords.empty()) add_passwords(settings.passwords, users);
    return std::make_shared<const session::Users>(std::move(users));
}

ProblemsOfUsers problems_of_users(const UsersSettings& settings) {
    const auto problem_of = [](const auto& work) -> std::string {
        try {
            work();
            return {};
        } catch (const std::runtime_error& error) {
            return error.what();
        }
    };
    ProblemsOfUsers out;
    out.file = problem_of([&] { (void)users_of(settings.file, {}); });
    if (settings.passwords.empty()) return out;
    out.passwords = problem_of([&] {
        session::Users nobody = session::Users::parse_users({}, {}).value();
        add_passwords(settings.passwords, nobody);
    });
    return out;
}

}  // namespace pgchaperone::net
