#include "proxy/net/program_log.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <stdexcept>
#include <system_error>
#include <utility>

namespace pgchaperone::net {
namespace {

constexpr mode_t as_the_umask_says = 0666;

// A descriptor, or -1 and errno.
int open_to_append(const std::filesystem::path& path) {
    return ::open(path.c_str(), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOCTTY,
                  as_the_umask_says);
}

bool has_name(int file, const std::filesystem::path& path) {
    struct stat opened {};
    struct stat named {};
    return ::fstat(file, &opened) == 0 && ::stat(path.c_str(), &named) == 0 &&
           opened.st_dev == named.st_dev && opened.st_ino == named.st_ino;
}

}  // namespace

ProgramLog::ProgramLog(std::filesystem::path file) : path_(std::move(file)) {
    std::error_code ignored;  // opening says what is wrong
    if (path_.has_parent_path()) std::filesystem::create_directories(path_.parent_path(), ignored);
    file_ = open_to_append(path_);
    if (file_ < 0)
        throw std::runtime_error(path_.string() + ": " + std::generic_category().message(errno));
}

ProgramLog::~ProgramLog() { ::close(file_); }

std::string ProgramLog::reopen() {
    const std::lock_guard lock(mutex_);
    // Also where it is no file: to open a pipe anew may take for ever.
    if (has_name(file_, path_)) return {};
    const int file = open_to_append(path_);
    if (file < 0)
        return "can't open the log file " + path_.string() + ": " +
               std::generic_category().message(errno);
    ::close(std::exchange(file_, file));
    return {};
}

void ProgramLog::sink_it_(const spdlog::details::log_msg& message) {
    spdlog::memory_buf_t line;
    formatter_->format(message, line);
    std::size_t done = 0;
    while (done < line.size()) {
        const ssize_t count = ::write(file_, line.data() + done, line.size() - done);
        if (count < 0 && errno == EINTR) continue;
        if (count < 0) spdlog::throw_spdlog_ex("can't write " + path_.string(), errno);
        done += static_cast<std::size_t>(count);
    }
}

}  // namespace pgchaperone::net
