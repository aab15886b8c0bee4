// `pgchaperone user`: keeps the files of authentication: users. What it writes is in force for new
// sessions after the guard's next reload.

#include "proxy/session/users.h"
#include "cli/subcommands.h"

#include <CLI/CLI.hpp>
#include <fcntl.h>
#include <openssl/evp.h>
#include <openssl/rand.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <functional>
#include <iostream>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

namespace pgchaperone::cli {
namespace {

using session::ScramVerifier;
using session::Secret;
using std::filesystem::path;

constexpr std::size_t generated_bytes = 18;
constexpr std::size_t password_bytes_max = 1000;

struct Arguments {
    std::string name;
    std::string config;
    std::string upstream;
    std::string users;
    std::string passwords;
    bool generate = false;
};

std::runtime_error trouble(const path& file, const std::string& what) {
    return std::runtime_error(file.string() + ": " + what);
}
std::runtime_error system_trouble(const path& file, const std::string& what) {
    return trouble(file, what + ": " + std::generic_category().message(errno));
}

std::string random_bytes(std::size_t count) {
    std::string bytes(count, '\0');
    if (RAND_bytes(reinterpret_cast<unsigned char*>(bytes.data()), static_cast<int>(count)) != 1)
        throw std::runtime_error("OpenSSL has no random numbers");
    return bytes;
}

std::string generated_password() {
    const std::string bytes = random_bytes(generated_bytes);
    unsigned char text[4 * ((generated_bytes + 2) / 3) + 1];
    const int size = EVP_EncodeBlock(text, reinterpret_cast<const unsigned char*>(bytes.data()),
                                     static_cast<int>(bytes.size()));
    return {reinterpret_cast<const char*>(text), static_cast<std::size_t>(size)};
}

ScramVerifier verifier_of(std::string_view password) {
    auto verifier = ScramVerifier::make(password, random_bytes(ScramVerifier::salt_bytes),
                                        ScramVerifier::usual_iterations);
    if (!verifier) throw std::runtime_error("OpenSSL can't compute SCRAM-SHA-256 here");
    return std::move(*verifier);
}

class Descriptor {
public:
    explicit Descriptor(int number) : number_(number) {}
    Descriptor(const Descriptor&) = delete;
    Descriptor& operator=(const Descriptor&) = delete;
    ~Descriptor() {
        if (number_ >= 0) ::close(number_);
    }
    int get() const { return number_; }

private:
    int number_;
};

// While it lives, no other process of ours changes a file in the same folder.
class FolderLock {
public:
    explicit FolderLock(const path& file)
        : folder_(::open((file.has_parent_path() ? file.parent_path() : path(".")).c_str(),
                         O_RDONLY | O_DIRECTORY | O_CLOEXEC)) {
        if (folder_.get() < 0 || ::flock(folder_.get(), LOCK_EX) != 0)
            throw system_trouble(file, "its folder can't be used");
    }
    // The names of its files are on the disk, too.
    void sync() const { ::fsync(folder_.get()); }

private:
    Descriptor folder_;
};

// The lines of a file of users, to be changed and written back whole: whoever reads it sees the old
// or the new one. Comments stay. No file is an empty one.
class UserFile {
public:
    explicit UserFile(path file) : file_(std::move(file)), lock_(file_) {
        const Descriptor in(::open(file_.c_str(), O_RDONLY | O_CLOEXEC));
        if (in.get() < 0) {
            if (errno != ENOENT) throw system_trouble(file_, "can't be read");
            return;
        }
        struct stat status {};
        if (::fstat(in.get(), &status) != 0) throw system_trouble(file_, "can't be read");
        if (!S_ISREG(status.st_mode)) throw trouble(file_, "is not a regular file");
        owner_ = {{status.st_uid, status.st_gid, status.st_mode & 0777}};
        std::string text;
        char buffer[4096];
        for (;;) {
            const ssize_t count = ::read(in.get(), buffer, sizeof buffer);
            if (count < 0) throw system_trouble(file_, "can't be read");
            if (count == 0) break;
            text.append(buffer, static_cast<std::size_t>(count));
        }
        const auto parsed = session::read_user_lines(text);
        if (parsed.has_error())
            throw std::runtime_error(file_.string() + ":" + std::to_string(parsed.error().line) +
                                     ": " + parsed.error().text);
        for (const auto& line : *parsed) names_.emplace_back(line.name, line.line - 1);
        for (std::size_t at = 0; at < text.size();) {
            const std::size_t end = std::min(text.find('\n', at), text.size());
            lines_.push_back(text.substr(at, end - at));
            at = end + 1;
        }
    }

    bool has(const std::string& name) const { return find(name) != names_.end(); }
    const std::vector<std::pair<std::string, std::size_t>>& names() const { return names_; }

    void set(const std::string& name, std::string_view secret) {
        const std::string line = session::user_line(name, secret);
        if (const auto place = find(name); place != names_.end()) {
            lines_[place->second] = line;
        } else {
            names_.emplace_back(name, lines_.size());
            lines_.push_back(line);
        }
    }
    // Once, and nothing behind it.
    void remove(const std::string& name) {
        lines_.erase(lines_.begin() + static_cast<std::ptrdiff_t>(find(name)->second));
    }

    void write() const {
        std::string pattern = file_.string() + ".XXXXXX";
        const Descriptor out(::mkstemp(pattern.data()));  // 0600
        if (out.get() < 0) throw system_trouble(file_, "can't be written");
        const auto failed = [&] {
            const auto why = system_trouble(file_, "can't be written");
            ::unlink(pattern.c_str());
            return why;
        };
        std::string text;
        for (const std::string& line : lines_) text += line + "\n";
        for (std::string_view left = text; !left.empty();) {
            const ssize_t count = ::write(out.get(), left.data(), left.size());
            if (count < 0) throw failed();
            left.remove_prefix(static_cast<std::size_t>(count));
        }
        if (owner_ &&
            ((::geteuid() == 0 && ::fchown(out.get(), owner_->user, owner_->group) != 0) ||
             ::fchmod(out.get(), owner_->mode) != 0))
            throw failed();
        if (::fsync(out.get()) != 0 || ::rename(pattern.c_str(), file_.c_str()) != 0)
            throw failed();
        lock_.sync();
    }

private:
    std::vector<std::pair<std::string, std::size_t>>::const_iterator find(
        const std::string& name) const {
        return std::find_if(names_.begin(), names_.end(),
                            [&](const auto& one) { return one.first == name; });
    }

    struct Owner {
        uid_t user;
        gid_t group;
        mode_t mode;
    };
    path file_;
    FolderLock lock_;
    std::optional<Owner> owner_;
    std::vector<std::string> lines_;
    std::vector<std::pair<std::string, std::size_t>> names_;  // and in which line
};

// Switches the terminal's echo off while it lives.
class Silence {
public:
    Silence() {
        if (::tcgetattr(STDIN_FILENO, &before_) != 0) return;
        termios silent = before_;
        silent.c_lflag &= ~static_cast<tcflag_t>(ECHO);
        changed_ = ::tcsetattr(STDIN_FILENO, TCSAFLUSH, &silent) == 0;
    }
    Silence(const Silence&) = delete;
    Silence& operator=(const Silence&) = delete;
    ~Silence() {
        if (changed_) ::tcsetattr(STDIN_FILENO, TCSAFLUSH, &before_);
    }

private:
    termios before_{};
    bool changed_ = false;
};

Secret line_of_input() {
    std::string line;
    if (!std::getline(std::cin, line)) throw std::runtime_error("no password was given");
    if (line.ends_with('\r')) line.pop_back();
    return Secret::take(line);
}

Secret asked_password(const std::string& name) {
    if (::isatty(STDIN_FILENO) == 0) return line_of_input();
    const Silence silence;
    std::cerr << "Password for " << name << ": " << std::flush;
    Secret once = line_of_input();
    std::cerr << "\nThe same again: " << std::flush;
    const Secret again = line_of_input();
    std::cerr << '\n';
    if (once.view() != again.view())
        throw std::runtime_error("the two passwords differ; nothing was changed");
    return once;
}

Secret new_password(const Arguments& arguments) {
    if (arguments.generate) {
        std::string password = generated_password();
        // What is to be run at the server goes to standard output, and to the server's log.
        (arguments.passwords.empty() ? std::cout : std::cerr) << password << '\n';
        return Secret::take(password);
    }
    Secret password = asked_password(arguments.name);
    if (password.empty()) throw std::runtime_error("the password is empty; nothing was changed");
    if (password.view().size() > password_bytes_max)
        throw std::runtime_error("a password has at most " + std::to_string(password_bytes_max) +
                                 " bytes; nothing was changed");
    if (password.view().find('\0') != std::string_view::npos)
        throw std::runtime_error("the password has a zero byte; nothing was changed");
    return password;
}

void check_name(const std::string& name) {
    if (name.empty()) throw std::runtime_error("the name is empty");
    if (name.size() > session::user_name_bytes_max)
        throw std::runtime_error("the name has more than " +
                                 std::to_string(session::user_name_bytes_max) +
                                 " bytes, and PostgreSQL would cut it off");
    if (std::any_of(name.begin(), name.end(),
                    [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; }))
        throw std::runtime_error("the name has a control character");
}

// The files that are meant: of the command line, or of the configuration.
bool find_files(Arguments& arguments) {
    if (arguments.users.empty() || !arguments.config.empty()) {
        if (arguments.config.empty())
            throw std::runtime_error("which file? Say --users FILE, or -c CONFIGURATION");
        config::Request request;
        request.file = arguments.config;
        const auto loaded = load_or_complain(request, arguments.upstream);
        if (!loaded) return false;
        if (arguments.users.empty()) arguments.users = loaded->options.users.file.string();
        if (arguments.passwords.empty())
            arguments.passwords = loaded->options.users.passwords.string();
        if (arguments.users.empty())
            throw std::runtime_error(
                arguments.config + " names no users.file" +
                (arguments.upstream.empty() ? "" : " for " + arguments.upstream));
    }
    return true;
}

std::string sql_name(const std::string& name) {
    std::string out = "\"";
    for (const char c : name) {
        if (c == '"') out += c;
        out += c;
    }
    return out + '"';
}

// What the server is to know the role by from now on, which nobody needs to see.
void new_server_password(const Arguments& arguments) {
    if (arguments.passwords.empty()) return;
    UserFile passwords{path(arguments.passwords)};
    if (passwords.has(arguments.name)) return;
    std::string password = generated_password();
    const Secret secret = Secret::take(password);
    passwords.set(arguments.name, secret.view());
    passwords.write();
    // The server may have had another password until now, so this is for a person to decide.
    std::cout << "-- To be run at the server, by a superuser, before " << arguments.name
              << " logs in:\nALTER ROLE " << sql_name(arguments.name) << " PASSWORD '"
              << verifier_of(secret.view()).text() << "';\n";
}

int add(const Arguments& arguments, bool is_new) {
    check_name(arguments.name);
    {
        UserFile users{path(arguments.users)};
        if (users.has(arguments.name) == is_new) {
            std::cerr << "pgchaperone: \"" << arguments.name << "\" is "
                      << (is_new ? "already" : "not") << " in " << arguments.users << '\n'
                      << (is_new ? "pgchaperone: `pgchaperone user password` gives them another "
                                   "password\n"
                                 : "pgchaperone: `pgchaperone user add` adds them\n");
            return exit_findings;
        }
    }
    // Nobody waits for the file's lock while somebody types.
    const Secret password = new_password(arguments);
    UserFile users{path(arguments.users)};
    users.set(arguments.name, verifier_of(password.view()).text());
    users.write();
    std::cerr << (is_new ? "added: " : "changed: ") << arguments.name << " in " << arguments.users
              << ", in force after the guard's next reload\n";
    return exit_ok;
}

int remove(const Arguments& arguments) {
    bool found = false;
    for (const std::string& file : {arguments.users, arguments.passwords}) {
        if (file.empty()) continue;
        UserFile users{path(file)};
        if (!users.has(arguments.name)) continue;
        users.remove(arguments.name);
        users.write();
        found = true;
        std::cerr << "removed: " << arguments.name << " from " << file
                  << ", in force after the guard's next reload\n";
    }
    if (found) return exit_ok;
    std::cerr << "pgchaperone: \"" << arguments.name << "\" is not in " << arguments.users << '\n';
    return exit_findings;
}

}  // namespace

void add_users(CLI::App& app, int& status) {
    CLI::App* command = app.add_subcommand(
        "user", "Keep the file of those who may log in (authentication: users)");
    command->require_subcommand(1);
    const auto arguments = std::make_shared<Arguments>();
    const auto add_files = [arguments](CLI::App* to) {
        to->add_option("-c,--config", arguments->config,
                       "Configuration file (YAML) that names the files")
            ->type_name("FILE");
        to->add_option("--upstream", arguments->upstream,
                       "Which of the configuration's upstreams; without it the top level")
            ->type_name("NAME")
            ->needs("--config");
        to->add_option("--users", arguments->users, "The file of users")->type_name("FILE");
        to->add_option("--passwords", arguments->passwords, "The file of passwords for the server")
            ->type_name("FILE");
    };
    const auto one = [&](const char* name, const char* about, bool password,
                         std::function<int(Arguments&)> work) {
        CLI::App* made = command->add_subcommand(name, about);
        made->add_option("name", arguments->name, "The role's name")->type_name("NAME")->required();
        add_files(made);
        if (password)
            made->add_flag("--generate", arguments->generate,
                           "Draw the password by chance, and print it");
        made->callback([arguments, &status, work = std::move(work)] {
            status = find_files(*arguments) ? work(*arguments) : exit_trouble;
        });
    };
    one("add", "Let somebody log in; asks for the password, or reads a line of standard input",
        true, [](Arguments& a) {
            const int outcome = add(a, true);
            if (outcome == exit_ok) new_server_password(a);
            return outcome;
        });
    one("password", "Give somebody another password", true,
        [](Arguments& a) { return add(a, false); });
    one("remove", "Let somebody log in no more", false, [](Arguments& a) { return remove(a); });

    CLI::App* list = command->add_subcommand("list", "Print the names");
    add_files(list);
    list->callback([arguments, &status] {
        if (!find_files(*arguments)) {
            status = exit_trouble;
            return;
        }
        if (!std::filesystem::exists(arguments->users))
            throw trouble(arguments->users, "there is no such file");
        const UserFile users{path(arguments->users)};
        for (const auto& [name, line] : users.names()) std::cout << name << '\n';
    });
}

}  // namespace pgchaperone::cli
