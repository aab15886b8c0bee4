#include "audit/log_file.h"

#include "audit/disk.h"
#include "audit/line.h"
#include "audit/log_files.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <functional>
#include <stdexcept>
#include <system_error>
#include <utility>

namespace pgchaperone::audit {
namespace {

// How every line begins; what a crash left of a line is a prefix of it, or begins with it.
constexpr std::string_view line_beginning = "{\"seq\":";

std::string words(int error) { return std::generic_category().message(error); }

// Reads `size` bytes at `offset`; fewer only at the end of the file. False and errno on failure.
bool read_at(int file, std::uint64_t offset, std::size_t size, std::string& out) {
    out.resize(size);
    std::size_t done = 0;
    while (done < size) {
        const ssize_t count = ::pread(file, out.data() + done, size - done,
                                      static_cast<off_t>(offset + done));
        if (count < 0 && errno == EINTR) continue;
        if (count < 0) return false;
        if (count == 0) break;
        done += static_cast<std::size_t>(count);
    }
    out.resize(done);
    return true;
}

// Byte 0 of the file stands for all of it. The lock goes with the open file, and not with the
// process: two of one process exclude each other, too, and closing another one gives up nothing.
bool lock(int file, short kind) {
    struct flock range {};
    range.l_type = kind;
    range.l_whence = SEEK_SET;
    range.l_len = 1;
    return ::fcntl(file, F_OFD_SETLK, &range) == 0;
}

bool may_be_torn_line(std::string_view bytes) {
    const std::string_view begin = bytes.substr(0, line_beginning.size());
    // Zeros are what a file system leaves where the size was noted and the bytes were not.
    return line_beginning.starts_with(begin) || bytes.front() == '\0';
}

// The end of the last line that is a record, and its place; bytes behind it are a crash's.
struct LastRecord {
    std::size_t end = 0;  // behind its line feed
    ChainPoint point;
};
std::optional<LastRecord> find_last_record(std::string_view window, bool window_is_whole_file) {
    std::size_t line_feed = window.rfind('\n');
    while (line_feed != std::string_view::npos) {
        const std::size_t before = line_feed == 0 ? std::string_view::npos
                                                  : window.rfind('\n', line_feed - 1);
        // Its beginning may lie before the window.
        if (before == std::string_view::npos && !window_is_whole_file) return std::nullopt;
        const std::size_t begin = before == std::string_view::npos ? 0 : before + 1;
        const std::string_view line = window.substr(begin, line_feed - begin);
        if (const auto place = read_place(line))
            return LastRecord{line_feed + 1, {place->seq, sha_256_hex(line)}};
        line_feed = before;
    }
    return std::nullopt;
}

}  // namespace

void throw_exception_from_error(const OpenError& error, const boost::source_location&) {
    throw std::runtime_error(error.text);
}

LogFile::LogFile(std::filesystem::path path, int file, Disk& disk)
    : path_(std::move(path)), file_(file), disk_(disk) {}

LogFile::~LogFile() {
    ::close(file_);  // and with it the lock
}

boost::system::result<std::unique_ptr<LogFile>, OpenError> LogFile::open(
    const std::filesystem::path& path, const ChainPoint& before, Disk& disk, bool shared) {
    return open_locked(path, disk, shared, [&](LogFile& log) { return log.recover(before); });
}

boost::system::result<std::unique_ptr<LogFile>, OpenError> LogFile::open_next(
    const std::filesystem::path& path, const ChainPoint& head, Disk& disk, bool shared) {
    return open_locked(path, disk, shared, [&](LogFile& log) { return log.look_for_end(head); });
}

boost::system::result<std::unique_ptr<LogFile>, OpenError> LogFile::open_locked(
    const std::filesystem::path& path, Disk& disk, bool shared,
    const std::function<std::string(LogFile&)>& look) {
    const auto wrong = [&path](const std::string& why) {
        return OpenError{"cannot open the audit log " + path.string() + ": " + why};
    };
    // Between opening and locking the name may have got another file (rotation); then once more.
    for (int attempt = 0; attempt < 3; ++attempt) {
        const int file = ::open(path.c_str(), O_RDWR | O_APPEND | O_CREAT | O_CLOEXEC | O_NOCTTY,
                                S_IRUSR | S_IWUSR);
        if (file < 0) return wrong(words(errno));
        std::unique_ptr<LogFile> log(new LogFile(path, file, disk));
        struct stat status {};
        if (::fstat(file, &status) != 0) return wrong(words(errno));
        if (!S_ISREG(status.st_mode))
            return wrong("it is not a regular file, and nothing else can be flushed to a disk");
        if (!lock(file, shared ? F_RDLCK : F_WRLCK))
            return wrong(errno == EAGAIN || errno == EACCES
                             ? "another process is writing it; give each its own file"
                             : words(errno));
        if (!log->is_current()) continue;
        log->loose_mode_ = status.st_mode & (S_IRWXG | S_IRWXO);
        flush_directory(path);
        if (std::string why = look(*log); !why.empty()) return wrong(why);
        return log;
    }
    return wrong("it is renamed faster than it can be opened");
}

LogFile::Stand LogFile::stand() const {
    struct stat status {};
    if (::fstat(file_, &status) != 0) return {0, 0, size_bytes_, head_};
    return {status.st_dev, status.st_ino, size_bytes_, head_};
}

bool LogFile::share() { return lock(file_, F_RDLCK); }

bool LogFile::unshare() { return lock(file_, F_WRLCK); }

void LogFile::adopt(const Stand& now, bool leftover) {
    head_ = now.head;
    size_bytes_ = now.size_bytes;
    dirty_ = leftover;
}

std::string LogFile::settle(const Stand& about_to_be) {
    struct stat status {};
    if (::fstat(file_, &status) != 0) return problem("cannot look at", errno);
    const auto found = static_cast<std::uint64_t>(status.st_size);
    // Not even begun; or somebody else has made it shorter, which prepare() sees.
    if (found <= size_bytes_) return {};
    if (found - size_bytes_ > tail_window_bytes) return {};
    std::string tail;
    if (!read_at(file_, size_bytes_, found - size_bytes_, tail))
        return problem("cannot read", errno);
    if (found == about_to_be.size_bytes && tail.back() == '\n') {
        const std::string_view lines = std::string_view(tail).substr(0, tail.size() - 1);
        const std::string_view last = lines.substr(lines.rfind('\n') + 1);
        if (sha_256_hex(last) == about_to_be.head.hash) {
            adopt(about_to_be, false);
            return {};
        }
    }
    const std::string why = set_aside(tail, size_bytes_);
    return why.empty() ? why : "cannot write " + path_.string() + ": " + why;
}

bool LogFile::is_current() const {
    struct stat ours {
    }, named{};
    return ::fstat(file_, &ours) == 0 && ::stat(path_.c_str(), &named) == 0 &&
           ours.st_dev == named.st_dev && ours.st_ino == named.st_ino;
}

std::optional<std::chrono::system_clock::time_point> LogFile::first_time() const {
    constexpr std::size_t head_bytes = 1024;
    std::string head;
    if (!read_at(file_, 0, head_bytes, head)) return std::nullopt;
    return line_time(head);
}

bool LogFile::is_deleted() const {
    struct stat status {};
    return ::fstat(file_, &status) == 0 && status.st_nlink == 0;
}

std::string LogFile::recover(const ChainPoint& before) {
    struct stat status {};
    if (::fstat(file_, &status) != 0) return words(errno);
    const auto size = static_cast<std::uint64_t>(status.st_size);
    head_ = before;
    if (size == 0) return {};
    const std::uint64_t window_size = std::min<std::uint64_t>(size, tail_window_bytes);
    const std::uint64_t window_begin = size - window_size;
    std::string window;
    // Most of the time the last line is whole and short: look there before reading everything.
    for (const std::uint64_t bytes :
         {std::min<std::uint64_t>(window_size, 256 * 1024), window_size}) {
        if (!read_at(file_, size - bytes, bytes, window)) return words(errno);
        if (const auto last = find_last_record(window, bytes == size)) {
            head_ = last->point;
            return set_aside(std::string_view(window).substr(last->end), size - bytes + last->end);
        }
    }
    if (window_begin == 0 && may_be_torn_line(window)) return set_aside(window, 0);
    return "what is in it is not an audit log; move it away or choose another file";
}

// What is set aside and cut off may only be what we have left ourselves: all else stays as it is.
std::string LogFile::look_for_end(const ChainPoint& head) {
    struct stat status {};
    if (::fstat(file_, &status) != 0) return words(errno);
    head_ = head;
    size_bytes_ = static_cast<std::uint64_t>(status.st_size);
    if (size_bytes_ == 0) return {};
    const std::uint64_t size = std::min<std::uint64_t>(size_bytes_, tail_window_bytes);
    std::string window;
    if (!read_at(file_, size_bytes_ - size, size, window)) return words(errno);
    const auto last = find_last_record(window, size == size_bytes_);
    if (!last && !may_be_torn_line(window))
        return "what is in it is not an audit log; move it away or choose another file";
    if (last && last->end == window.size() && last->point == head) return {};
    foreign_ = Changed{0, size_bytes_, window.back() != '\n', true};
    return {};
}

// Moves what stands behind the last whole line into a file of its own. It never was reported as
// stored, so nothing that it tells of took effect; it is kept because it is evidence all the same.
std::string LogFile::set_aside(std::string_view tail, std::uint64_t good_bytes) {
    size_bytes_ = good_bytes;
    if (tail.empty()) return {};
    Torn torn{tail.size(), sha_256_hex(tail), {}};
    torn.lines = static_cast<std::uint64_t>(std::count(tail.begin(), tail.end(), '\n'));
    int aside = -1;
    for (int i = 1; aside < 0; ++i) {
        torn.kept_in = path_;
        torn.kept_in += ".torn-" + std::to_string(i);
        aside = ::open(torn.kept_in.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC,
                       S_IRUSR | S_IWUSR);
        if (aside < 0 && (errno != EEXIST || i == 10'000))
            return "its last line is torn, and " + torn.kept_in.string() +
                   " cannot be made to keep the rest: " + words(errno);
    }
    std::string_view rest = tail;
    bool kept = true;
    while (kept && !rest.empty()) {
        const ssize_t count = ::write(aside, rest.data(), rest.size());
        if (count < 0 && errno == EINTR) continue;
        if (count <= 0) kept = false;
        if (count > 0) rest.remove_prefix(static_cast<std::size_t>(count));
    }
    kept = kept && ::fsync(aside) == 0;
    const int error = errno;
    ::close(aside);
    if (!kept) {
        ::unlink(torn.kept_in.c_str());
        return "its last line is torn, and the rest cannot be kept in " + torn.kept_in.string() +
               ": " + words(error);
    }
    flush_directory(torn.kept_in);
    if (disk_.ftruncate(file_, static_cast<off_t>(good_bytes)) != 0)
        return "its last line is torn and cannot be cut off: " + words(errno);
    torn_ = std::move(torn);
    return {};
}

std::string LogFile::problem(const char* what, int error) const {
    return std::string(what) + " " + path_.string() + ": " + words(error);
}

bool LogFile::cut_back() {
    if (disk_.ftruncate(file_, static_cast<off_t>(size_bytes_)) != 0) return false;
    dirty_ = false;
    return true;
}

std::string LogFile::prepare(std::optional<Changed>& changed) {
    changed.reset();
    struct stat status {};
    if (::fstat(file_, &status) != 0) return problem("cannot look at", errno);
    const auto found = static_cast<std::uint64_t>(status.st_size);
    if (found < size_bytes_ || (found > size_bytes_ && !dirty_)) {
        std::string last = "\n";
        if (found > 0) read_at(file_, found - 1, 1, last);
        changed = Changed{size_bytes_, found, last != "\n", false};
        size_bytes_ = found;
        dirty_ = false;
        return {};
    }
    if (dirty_ && !cut_back()) return problem("cannot write", errno);
    return {};
}

std::string LogFile::append(std::string_view lines, const ChainPoint& head) {
    const auto refused = [this](const char* what, int error) {
        dirty_ = true;
        cut_back();  // where even that fails, prepare() tries again
        return problem(what, error);
    };
    std::string_view rest = lines;
    while (!rest.empty()) {
        const ssize_t count = disk_.write(file_, rest.data(), rest.size());
        if (count < 0 && errno == EINTR) continue;
        if (count <= 0) return refused("cannot write", count < 0 ? errno : ENOSPC);
        dirty_ = true;
        rest.remove_prefix(static_cast<std::size_t>(count));
    }
    if (disk_.fdatasync(file_) != 0) return refused("cannot flush", errno);
    dirty_ = false;
    size_bytes_ += lines.size();
    head_ = head;
    return {};
}

}  // namespace pgchaperone::audit
