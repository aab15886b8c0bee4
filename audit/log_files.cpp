#include "audit/log_files.h"

#include "audit/line_reader.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <ctime>
#include <optional>
#include <set>
#include <system_error>
#include <utility>

namespace pgchaperone::audit {
namespace {

constexpr std::string_view gz = ".gz";

// No log is rotated so often that it takes as many to see the folder as it is at one time.
constexpr int readings_max = 1000;

bool is_digit(char c) { return c >= '0' && c <= '9'; }

bool is_number(std::string_view text) {
    return !text.empty() && std::all_of(text.begin(), text.end(), is_digit);
}

// What stands behind the log's name, without .gz; nothing where that is not how the name begins.
std::optional<std::string> ending(const std::filesystem::path& log,
                                  const std::filesystem::path& file) {
    std::string name = file.filename().string();
    const std::string begin = log.filename().string();
    if (name.size() <= begin.size() || !name.starts_with(begin)) return std::nullopt;
    if (name.ends_with(gz)) name.resize(name.size() - gz.size());
    return name.size() <= begin.size() ? std::nullopt : std::optional(name.substr(begin.size()));
}

// ".20261121T020304Z", and perhaps "-2".
bool is_own_ending(std::string_view text) {
    constexpr std::string_view shape = ".00000000T000000Z";
    if (text.size() < shape.size()) return false;
    for (std::size_t i = 0; i < shape.size(); ++i) {
        if (shape[i] == '0' ? !is_digit(text[i]) : text[i] != shape[i]) return false;
    }
    text.remove_prefix(shape.size());
    return text.empty() || (text.front() == '-' && is_number(text.substr(1)));
}

// Ours, and .1 or -20261121 of logrotate's. Not .bak, .torn-1, .gz.tmp.
bool is_old_ending(std::string_view text) {
    if (is_own_ending(text)) return true;
    return (text.front() == '.' || text.front() == '-') && is_number(text.substr(1));
}

// The first line's place; false where the file is gone.
bool read_first(ListedFile& file) {
    LineReader reader(file.path);
    const auto line = reader.next();
    if (line) file.first = read_place(*line);
    return !reader.missing();
}

// The log's own file, and all with the name of an old one that are not empty.
std::set<std::filesystem::path> names_once(const std::filesystem::path& log) {
    std::set<std::filesystem::path> names;
    const auto directory = log.has_parent_path() ? log.parent_path() : std::filesystem::path();
    std::error_code error;
    std::filesystem::directory_iterator entry(directory.empty() ? "." : directory, error);
    for (; !error && entry != std::filesystem::directory_iterator(); entry.increment(error)) {
        const std::filesystem::path name = entry->path().filename();
        const auto end = ending(log, name);
        std::error_code ignored;
        if (end && is_old_ending(*end) && entry->is_regular_file(ignored) &&
            entry->file_size(ignored) > 0)
            names.insert(directory / name);
    }
    std::error_code ignored;
    if (std::filesystem::exists(log, ignored)) names.insert(log);
    return names;
}

// Who reads a folder in which a file is renamed may see neither of its names. It is as it was read
// when it is read the same twice.
std::set<std::filesystem::path> names_of(const std::filesystem::path& log) {
    std::set<std::filesystem::path> names = names_once(log);
    for (int i = 0; i < readings_max; ++i) {
        std::set<std::filesystem::path> again = names_once(log);
        if (again == names) break;
        names = std::move(again);
    }
    return names;
}

// Nothing where one of them was gone before its first line was read.
std::optional<std::vector<ListedFile>> list_once(const std::filesystem::path& log) {
    // First, for all lines that are there by now are then in this file, or in one that is named.
    ListedFile newest{log, {}};
    (void)read_first(newest);
    const std::set<std::filesystem::path> names = names_of(log);
    std::vector<ListedFile> files;
    for (const std::filesystem::path& name : names) {
        const bool compressed = name.extension() == gz;
        if (name == log || (compressed && names.contains(name.parent_path() / name.stem())))
            continue;
        ListedFile file{name, {}};
        if (!read_first(file)) return std::nullopt;
        // Where even its first line is no record, only the name of ours says that it was one.
        if (file.first || is_own_old_name(log, name)) files.push_back(std::move(file));
    }
    std::stable_sort(files.begin(), files.end(), [](const ListedFile& a, const ListedFile& b) {
        return a.first && (!b.first || a.first->seq < b.first->seq);
    });
    if (!names.contains(log)) return files;
    // Renamed since its first line was read?
    const bool old = newest.first && std::any_of(files.begin(), files.end(), [&](const auto& file) {
                         return file.first && file.first->seq == newest.first->seq &&
                                file.first->prev == newest.first->prev;
                     });
    if (old) {
        newest.first.reset();
        (void)read_first(newest);
    }
    files.push_back(std::move(newest));
    return files;
}

}  // namespace

std::filesystem::path unused_old_name(const std::filesystem::path& log,
                                      std::chrono::system_clock::time_point now) {
    const std::time_t time = std::chrono::system_clock::to_time_t(now);
    std::tm utc{};
    gmtime_r(&time, &utc);
    char stamp[64];
    std::strftime(stamp, sizeof stamp, ".%Y%m%dT%H%M%SZ", &utc);
    for (int i = 1;; ++i) {
        std::filesystem::path name = log;
        name += stamp;
        if (i > 1) name += "-" + std::to_string(i);
        std::filesystem::path compressed = name;
        compressed += gz;
        std::error_code ignored;
        if (!std::filesystem::exists(std::filesystem::symlink_status(name, ignored)) &&
            !std::filesystem::exists(std::filesystem::symlink_status(compressed, ignored)))
            return name;
    }
}

bool is_own_old_name(const std::filesystem::path& log, const std::filesystem::path& file) {
    const auto end = ending(log, file);
    return end && is_own_ending(*end);
}

std::vector<ListedFile> list_log(const std::filesystem::path& log) {
    for (int i = 0; i < readings_max; ++i) {
        if (auto files = list_once(log)) return std::move(*files);
    }
    return {};
}

std::vector<std::filesystem::path> files_of_log(const std::filesystem::path& log) {
    std::vector<std::filesystem::path> files;
    for (ListedFile& file : list_log(log)) files.push_back(std::move(file.path));
    return files;
}

std::vector<std::filesystem::path> old_files(const std::filesystem::path& log) {
    std::vector<std::filesystem::path> files = files_of_log(log);
    if (!files.empty() && files.back() == log) files.pop_back();
    return files;
}

void flush_directory(const std::filesystem::path& file) {
    const auto directory = file.has_parent_path() ? file.parent_path() : std::filesystem::path(".");
    const int opened = ::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (opened < 0) return;
    ::fsync(opened);
    ::close(opened);
}

}  // namespace pgchaperone::audit
