#include "proxy/net/named_files.h"

#include "audit/signature.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <fstream>
#include <optional>
#include <string_view>
#include <system_error>
#include <utility>

namespace pgchaperone::net {
namespace {

using std::filesystem::path;

std::string words(int error) { return std::generic_category().message(error); }

bool may(const path& file, int what) {
    return ::faccessat(AT_FDCWD, file.c_str(), what, AT_EACCESS) == 0;
}

path folder_of(const path& file) { return file.has_parent_path() ? file.parent_path() : path("."); }

// Who writes a file that is not there, or beside which others are made.
enum class Folder : std::uint8_t { must_exist, is_made };

std::string problem_of_folder(path folder, Folder rule) {
    std::error_code error;
    while (rule == Folder::is_made && !std::filesystem::exists(folder, error) && !error &&
           folder.has_relative_path())
        folder = folder_of(folder);
    struct stat status {};
    const std::string name = "the folder " + folder.string() + " can't be written to: ";
    if (::stat(folder.c_str(), &status) != 0) return name + words(errno);
    if (!S_ISDIR(status.st_mode)) return name + words(ENOTDIR);
    return may(folder, W_OK | X_OK) ? std::string() : name + words(errno);
}

// `others_beside`: the folder is written to also where the file is there.
std::string problem_of_written(const path& file, Folder rule, bool others_beside) {
    struct stat status {};
    const bool there = ::stat(file.c_str(), &status) == 0;
    const std::string name = file.string() + " can't be written: ";
    if (!there && errno != ENOENT && errno != ENOTDIR) return name + words(errno);
    if (there && S_ISDIR(status.st_mode)) return name + words(EISDIR);
    if (there && others_beside && !S_ISREG(status.st_mode))
        return name + "it is not a regular file";
    // Its end is read before more is written behind it.
    if (there && !may(file, others_beside ? R_OK | W_OK : W_OK)) return name + words(errno);
    return there && !others_beside ? std::string() : problem_of_folder(folder_of(file), rule);
}

// How each file of SQLite's begins; one that is empty will.
std::string problem_of_store(const path& file) {
    if (std::string problem = problem_of_written(file, Folder::is_made, true); !problem.empty())
        return problem;
    constexpr std::string_view beginning("SQLite format 3\0", 16);
    std::ifstream in(file, std::ios::binary);
    std::string found(beginning.size(), '\0');
    in.read(found.data(), static_cast<std::streamsize>(found.size()));
    found.resize(static_cast<std::size_t>(in.gcount()));
    if (found.empty() || found == beginning) return {};
    return file.string() + " is no SQLite database";
}

class Looker {
public:
    std::vector<FileProblem> take() { return std::move(problems_); }

    void note(const std::string& upstream, const std::string& key, std::string text,
              bool warning = false) {
        if (!text.empty()) problems_.push_back({upstream, key, std::move(text), warning});
    }

    void tls(const std::string& upstream, const std::string& section, TlsRole role,
             const TlsSettings& settings) {
        for (TlsFileProblem& one : problems_of_tls_files(role, settings))
            note(upstream, section + name_of(one.file), std::move(one.text), one.warning);
    }

private:
    static const char* name_of(TlsFile file) {
        switch (file) {
            case TlsFile::certificate: break;
            case TlsFile::key: return ".key";
            case TlsFile::ca: return ".ca";
        }
        return ".certificate";
    }

    std::vector<FileProblem> problems_;
};

// Whose listener it is: of the top level where that has a part in it.
const std::string& owner(const ListenerOptions& listener, const ServerOptions& options) {
    const auto& all = listener.upstreams;
    const bool of_top = std::find(all.begin(), all.end(), 0U) != all.end();
    return options.upstreams.at(of_top ? 0 : all.front()).name;
}

}  // namespace

std::vector<FileProblem> problems_of_files(const ServerOptions& options, const path& log_file) {
    Looker look;
    for (const ListenerOptions& one : options.listeners)
        look.tls(owner(one, options), "client_tls", TlsRole::server, one.tls);
    for (const UpstreamOptions& one : options.upstreams) {
        look.tls(one.name, "upstream_tls", TlsRole::client, one.tls);
        if (one.authentication != session::Authentication::users) continue;
        ProblemsOfUsers users = problems_of_users(one.users);
        look.note(one.name, "users.file", std::move(users.file));
        look.note(one.name, "users.passwords", std::move(users.passwords));
    }
    if (options.web && !options.web->certificate.empty())
        look.tls({}, "web", TlsRole::server,
                 {TlsMode::require, options.web->certificate, options.web->key, {}});
    look.note({}, "audit.file", problem_of_written(options.audit.file, Folder::must_exist, true));
    if (const path& key = options.audit.checkpoint_key; !key.empty()) {
        const auto loaded = audit::Key::load_private(key);
        if (loaded.has_error()) look.note({}, "audit.checkpoint_key", loaded.error().text);
    }
    if (!options.tickets_in_postgres)
        look.note({}, "approval.store", problem_of_store(options.ticket_store));
    if (!log_file.empty())
        look.note({}, "log.file", problem_of_written(log_file, Folder::is_made, false));
    return look.take();
}

}  // namespace pgchaperone::net
