#include "proxy/net/process_numbers.h"

#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <sys/resource.h>
#include <system_error>
#include <time.h>
#include <unistd.h>

namespace pgchaperone::net {

namespace {

std::string text_of(const char* file) {
    std::ifstream in(file);
    std::ostringstream out;
    out << in.rdbuf();
    return std::move(out).str();
}

double seconds_of(::clockid_t clock) {
    timespec now{};
    if (::clock_gettime(clock, &now) != 0) return 0;
    return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) / 1e9;
}

// When the system began, since 1970. Not from /proc/stat: under systemd's ProcSubset=pid it is not
// there.
double boot_seconds() { return seconds_of(CLOCK_REALTIME) - seconds_of(CLOCK_BOOTTIME); }

}  // namespace

ProcessNumbers process_numbers() {
    ProcessNumbers out;
    const auto ticks = static_cast<double>(::sysconf(_SC_CLK_TCK));
    // proc(5): the program's name, in parentheses, may hold anything; the fields behind it are
    // numbers, and the first of them is the third of all.
    const std::string stat = text_of("/proc/self/stat");
    const auto name_ends = stat.rfind(')');
    if (name_ends != std::string::npos && ticks > 0) {
        std::istringstream fields(stat.substr(name_ends + 1));
        std::string skipped;
        std::uint64_t user = 0, system = 0, start = 0, resident_pages = 0;
        for (int field = 3; field < 14; ++field) fields >> skipped;
        fields >> user >> system;
        for (int field = 16; field < 20; ++field) fields >> skipped;
        fields >> out.threads >> skipped >> start >> out.virtual_bytes >> resident_pages;
        out.cpu_seconds = static_cast<double>(user + system) / ticks;
        out.resident_bytes = resident_pages * static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
        // Once: a figure that names a moment stays as it is when the clock is set.
        static const double boot = boot_seconds();
        out.start_seconds = boot + static_cast<double>(start) / ticks;
    }
    std::error_code error;
    for (std::filesystem::directory_iterator at("/proc/self/fd", error), end; !error && at != end;
         at.increment(error)) {
        ++out.open_fds;
    }
    // That of the folder itself is closed again.
    if (out.open_fds > 0) --out.open_fds;
    rlimit limit{};
    if (::getrlimit(RLIMIT_NOFILE, &limit) == 0) out.max_fds = limit.rlim_cur;
    return out;
}

}  // namespace pgchaperone::net
