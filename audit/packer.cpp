#include "audit/packer.h"

#include "audit/log_files.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include <atomic>
#include <cerrno>
#include <condition_variable>
#include <mutex>
#include <string>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

namespace pgchaperone::audit {
namespace {

constexpr std::size_t chunk_bytes = 256 * 1024;
constexpr int lowest_priority = 19;

std::string words(int error) { return std::generic_category().message(error); }

class Descriptor {
public:
    explicit Descriptor(int file) : file_(file) {}
    ~Descriptor() {
        if (file_ >= 0) ::close(file_);
    }
    Descriptor(const Descriptor&) = delete;
    Descriptor& operator=(const Descriptor&) = delete;
    int get() const { return file_; }

private:
    int file_;
};

std::filesystem::path with(std::filesystem::path file, const char* ending) {
    return file += ending;
}

}  // namespace

struct Packer::Impl {
    explicit Impl(PackerOptions options_) : options(std::move(options_)) {}

    void run();
    void pack();
    std::string compress(const std::filesystem::path& file);
    std::string copy_compressed(int from, int to);
    void remove_oldest();
    void notice(const std::string& text) {
        // The same trouble is told once, however often it is met.
        if (text != told && options.on_notice) options.on_notice(text);
        told = text;
    }

    PackerOptions options;
    std::string told;

    std::mutex mutex;
    std::condition_variable wake;
    bool wanted = true;
    std::atomic<bool> stopping = false;
    std::thread thread;
};

void Packer::Impl::run() {
    // Of this thread alone, where the system knows such a thing.
    (void)::setpriority(PRIO_PROCESS, static_cast<id_t>(::gettid()), lowest_priority);
    std::unique_lock lock(mutex);
    for (;;) {
        wake.wait(lock, [this] { return wanted || stopping; });
        if (stopping) return;
        wanted = false;
        lock.unlock();
        pack();
        lock.lock();
    }
}

void Packer::Impl::pack() {
    if (options.compress) {
        for (const std::filesystem::path& file : old_files(options.log)) {
            if (stopping) return;
            if (!is_own_old_name(options.log, file) || file.extension() == ".gz") continue;
            if (const std::string problem = compress(file); !problem.empty())
                notice("cannot compress " + file.string() + ": " + problem + "; it stays as it is");
        }
    }
    remove_oldest();
}

// The compressed file gets its name when it is whole and on the disk; the plain one goes last.
std::string Packer::Impl::compress(const std::filesystem::path& file) {
    const std::filesystem::path unfinished = with(file, ".gz.tmp");
    const std::filesystem::path finished = with(file, ".gz");
    const Descriptor from(::open(file.c_str(), O_RDONLY | O_CLOEXEC));
    if (from.get() < 0) return words(errno);
    const Descriptor to(
        ::open(unfinished.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, S_IRUSR | S_IWUSR));
    if (to.get() < 0) return words(errno);
    std::string problem = copy_compressed(from.get(), to.get());
    if (problem.empty() && stopping) problem = "pgchaperone ends";
    if (problem.empty() && ::fsync(to.get()) != 0) problem = words(errno);
    if (problem.empty() && ::rename(unfinished.c_str(), finished.c_str()) != 0)
        problem = words(errno);
    if (!problem.empty()) {
        ::unlink(unfinished.c_str());
        return stopping ? std::string() : problem;
    }
    flush_directory(finished);
    if (::unlink(file.c_str()) != 0) return words(errno);
    return {};
}

std::string Packer::Impl::copy_compressed(int from, int to) {
    // Closing a gzFile closes its descriptor, and ours is still to be flushed.
    const int own = ::fcntl(to, F_DUPFD_CLOEXEC, 0);
    if (own < 0) return words(errno);
    const gzFile out = gzdopen(own, "wb6");
    if (out == nullptr) {
        ::close(own);
        return words(ENOMEM);
    }
    std::string problem;
    std::string chunk(chunk_bytes, '\0');
    while (problem.empty() && !stopping) {
        const ssize_t count = ::read(from, chunk.data(), chunk.size());
        if (count < 0 && errno == EINTR) continue;
        if (count < 0) problem = words(errno);
        if (count <= 0) break;
        errno = 0;
        if (gzwrite(out, chunk.data(), static_cast<unsigned>(count)) != count)
            problem = words(errno != 0 ? errno : EIO);
    }
    errno = 0;
    if (gzclose(out) != Z_OK && problem.empty()) problem = words(errno != 0 ? errno : EIO);
    return problem;
}

void Packer::Impl::remove_oldest() {
    if (options.keep == 0) return;
    std::vector<std::filesystem::path> own;
    for (std::filesystem::path& file : old_files(options.log)) {
        if (is_own_old_name(options.log, file)) own.push_back(std::move(file));
    }
    for (std::size_t i = 0; i + options.keep < own.size() && !stopping; ++i) {
        if (::unlink(own[i].c_str()) != 0)
            notice("cannot remove " + own[i].string() + ": " + words(errno));
    }
}

Packer::Packer(PackerOptions options) : impl_(std::make_unique<Impl>(std::move(options))) {
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    impl_->thread = std::thread([impl = impl_.get()] { impl->run(); });
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
    pthread_setname_np(impl_->thread.native_handle(), "audit-pack");
}

Packer::~Packer() {
    {
        const std::lock_guard lock(impl_->mutex);
        impl_->stopping = true;
        impl_->wake.notify_one();
    }
    impl_->thread.join();
}

void Packer::look() {
    const std::lock_guard lock(impl_->mutex);
    impl_->wanted = true;
    impl_->wake.notify_one();
}

}  // namespace pgchaperone::audit
