#include "audit/turn.h"

#include <fcntl.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cassert>
#include <cerrno>
#include <ctime>
#include <new>
#include <string>
#include <string_view>
#include <system_error>

namespace pgchaperone::audit {
namespace {

constexpr std::size_t hash_digits = 64;
// Another number for another layout: processes of two versions meet here.
constexpr std::uint64_t layout = 0x7067636861750001;

using Hash = std::array<char, hash_digits>;

Hash hash_of(std::string_view text) {
    Hash hash{};
    std::copy_n(text.begin(), std::min(text.size(), hash.size()), hash.begin());
    return hash;
}

struct Place {
    std::uint64_t device = 0;
    std::uint64_t inode = 0;
    std::uint64_t size_bytes = 0;
    std::uint64_t seq = 0;
    Hash hash{};
};

Place place_of(const LogFile::Stand& stand) {
    return {stand.device, stand.inode, stand.size_bytes, stand.head.seq, hash_of(stand.head.hash)};
}

LogFile::Stand stand_of(const Place& place) {
    return {place.device,
            place.inode,
            place.size_bytes,
            {place.seq, std::string(place.hash.data(), place.hash.size())}};
}

// The same for every process, wherever it was started.
Hash name_of(const std::filesystem::path& log) {
    std::error_code error;
    std::filesystem::path whole = std::filesystem::weakly_canonical(log, error);
    if (error) whole = log;
    return hash_of(sha_256_hex(whole.string()));
}

OpenError wrong(const std::string& why) {
    return {"cannot share the audit log between two processes: " + why};
}

std::string words(int error) { return std::generic_category().message(error); }

}  // namespace

// A kill may come between any two of its writes: `state` alone says which place counts.
struct Turn::Page {
    std::uint64_t layout_ = layout;
    Hash log{};
    // Who wants a turn waits in the queue, so that who gives it back comes behind them.
    pthread_mutex_t queue;
    pthread_mutex_t turn;
    enum : std::uint32_t {
        second = 1,     // of the two places is where the log stands
        announced = 2,  // the other one is where it will stand
        known = 4,
        dirty = 8,
    };
    std::atomic<std::uint32_t> state{0};
    std::atomic<std::uint64_t> unsigned_from{1};
    std::array<Place, 2> places{};
};

namespace {

void make_robust(pthread_mutex_t& mutex) {
    pthread_mutexattr_t attributes;
    pthread_mutexattr_init(&attributes);
    pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
    pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
    const int error = pthread_mutex_init(&mutex, &attributes);
    assert(error == 0);
    (void)error;
    pthread_mutexattr_destroy(&attributes);
}

#if defined(__SANITIZE_THREAD__)
// The sanitizer of g++ 12 does not know the other call, nor a dead owner from a lock with a time.
int lock_until(pthread_mutex_t& mutex, const timespec& until) {
    for (int error = pthread_mutex_trylock(&mutex);; error = pthread_mutex_trylock(&mutex)) {
        timespec now{};
        ::clock_gettime(CLOCK_MONOTONIC, &now);
        const bool late = now.tv_sec > until.tv_sec ||
                          (now.tv_sec == until.tv_sec && now.tv_nsec >= until.tv_nsec);
        if (error != EBUSY || late) return error;
        ::usleep(100);
    }
}
#else
int lock_until(pthread_mutex_t& mutex, const timespec& until) {
    return pthread_mutex_clocklock(&mutex, CLOCK_MONOTONIC, &until);
}
#endif

bool lock(pthread_mutex_t& mutex, const timespec& until) {
    const int error = lock_until(mutex, until);
    // Its owner was killed; what it was at is told by the state.
    if (error == EOWNERDEAD) return pthread_mutex_consistent(&mutex) == 0;
    return error == 0;
}

timespec after(std::chrono::milliseconds time) {
    timespec until{};
    ::clock_gettime(CLOCK_MONOTONIC, &until);
    const auto nanoseconds = std::chrono::nanoseconds(until.tv_nsec) + time;
    const auto seconds = std::chrono::floor<std::chrono::seconds>(nanoseconds);
    until.tv_sec += static_cast<time_t>(seconds.count());
    until.tv_nsec = static_cast<long>((nanoseconds - seconds).count());
    return until;
}

void* map(int descriptor, std::size_t size) {
    void* const address = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0);
    return address == MAP_FAILED ? nullptr : address;
}

}  // namespace

boost::system::result<std::shared_ptr<Turn>, OpenError> Turn::make(
    const std::filesystem::path& log) {
    const int descriptor = ::memfd_create("pgchaperone-audit", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (descriptor < 0) return wrong(words(errno));
    void* address = nullptr;
    // Nobody can take away what is mapped.
    if (::ftruncate(descriptor, sizeof(Page)) != 0 ||
        ::fcntl(descriptor, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0 ||
        (address = map(descriptor, sizeof(Page))) == nullptr) {
        const int error = errno;
        ::close(descriptor);
        return wrong(words(error));
    }
    Page* const page = new (address) Page;
    page->log = name_of(log);
    make_robust(page->queue);
    make_robust(page->turn);
    return std::shared_ptr<Turn>(new Turn(descriptor, page));
}

boost::system::result<std::shared_ptr<Turn>, OpenError> Turn::of_descriptor(int descriptor) {
    const int own = ::fcntl(descriptor, F_DUPFD_CLOEXEC, 0);
    if (own < 0) return wrong(words(errno));
    struct stat status {};
    void* address = nullptr;
    if (::fstat(own, &status) == 0 && status.st_size == sizeof(Page) &&
        (::fcntl(own, F_GET_SEALS) & F_SEAL_SHRINK) != 0) {
        address = map(own, sizeof(Page));
    }
    auto* const page = static_cast<Page*>(address);
    if (page == nullptr || page->layout_ != layout) {
        if (page) ::munmap(page, sizeof(Page));
        ::close(own);
        return wrong("what was passed is of another version");
    }
    return std::shared_ptr<Turn>(new Turn(own, page));
}

// The mutexes stay as they are: others may use them.
Turn::~Turn() {
    ::munmap(page_, sizeof(Page));
    ::close(descriptor_);
}

bool Turn::is_for(const std::filesystem::path& log) const { return page_->log == name_of(log); }

bool Turn::take(std::chrono::milliseconds patience) {
    const timespec until = after(patience);
    if (!lock(page_->queue, until)) return false;
    const bool taken = lock(page_->turn, until);
    pthread_mutex_unlock(&page_->queue);
    return taken;
}

void Turn::give_back() { pthread_mutex_unlock(&page_->turn); }

std::optional<LogFile::Stand> Turn::stand() const {
    const std::uint32_t state = page_->state;
    if ((state & Page::known) == 0) return std::nullopt;
    return stand_of(page_->places[state & Page::second]);
}

std::optional<LogFile::Stand> Turn::about_to_be() const {
    const std::uint32_t state = page_->state;
    if ((state & Page::announced) == 0) return std::nullopt;
    return stand_of(page_->places[(state & Page::second) ^ 1]);
}

void Turn::announce(const LogFile::Stand& next) {
    const std::uint32_t state = page_->state & ~std::uint32_t(Page::announced);
    page_->state = state;
    page_->places[(state & Page::second) ^ 1] = place_of(next);
    page_->state = state | Page::announced;
}

void Turn::confirm() {
    const std::uint32_t state = page_->state;
    assert((state & Page::announced) != 0);
    page_->state = ((state & Page::second) ^ Page::second) | Page::known;
}

void Turn::note(const LogFile::Stand& now, bool leftover) {
    const std::uint32_t state = page_->state & ~std::uint32_t(Page::announced);
    page_->state = state;
    page_->places[(state & Page::second) ^ 1] = place_of(now);
    page_->state = ((state & Page::second) ^ Page::second) | Page::known |
                   (leftover ? std::uint32_t(Page::dirty) : 0);
}

bool Turn::leftover() const { return (page_->state & Page::dirty) != 0; }

std::uint64_t Turn::unsigned_from() const { return page_->unsigned_from; }

void Turn::set_unsigned_from(std::uint64_t line) { page_->unsigned_from = line; }

}  // namespace pgchaperone::audit
