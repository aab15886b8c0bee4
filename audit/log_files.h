#pragma once
// The files that one audit log consists of: the one that is written, under its configured name, and
// those it was rotated into, whose names begin with that. Knows names and first lines, and nothing
// else of what is in them.

#include "audit/chain.h"

#include <chrono>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace pgchaperone::audit {

// audit.jsonl.20261121T020304Z, and -2, -3 behind it where that name or its .gz is taken.
std::filesystem::path unused_old_name(const std::filesystem::path& log,
                                      std::chrono::system_clock::time_point now);

// Whether the file is one that unused_old_name() named, or its .gz.
bool is_own_old_name(const std::filesystem::path& log, const std::filesystem::path& file);

// Old files that exist, the oldest first, by the number of their first line: ours, and those of
// logrotate (audit.jsonl.1, audit.jsonl-20261121), compressed by gzip or not. Of a file that is
// there in both forms, since a crash came before the plain one was removed, only the plain one is
// named. Ours whose first line can't be read come last; others that are no logs are left out.
// None is missed for being renamed or compressed while the folder is read.
std::vector<std::filesystem::path> old_files(const std::filesystem::path& log);

// The same, and the log's file itself where it exists.
std::vector<std::filesystem::path> files_of_log(const std::filesystem::path& log);

struct ListedFile {
    std::filesystem::path path;
    std::optional<LinePlace> first;  // of its first line; nothing where that is no record
};

// The same with the first lines, which tell files apart whatever they are renamed to meanwhile. All
// lines that are there when it is called are in these files; the log's own may be a newer one by
// now, of which the first line is another.
std::vector<ListedFile> list_log(const std::filesystem::path& log);

// Makes a new, a changed or a removed name in the file's directory survive a crash. Not every file
// system can; then it is as it is.
void flush_directory(const std::filesystem::path& file);

}  // namespace pgchaperone::audit
