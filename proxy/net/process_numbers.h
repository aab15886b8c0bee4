#pragma once
// What the kernel counts of this process, read from /proc. What can't be read is 0.

#include <cstdint>

namespace pgchaperone::net {

struct ProcessNumbers {
    double cpu_seconds = 0;
    double start_seconds = 0;  // since 1970
    std::uint64_t resident_bytes = 0;
    std::uint64_t virtual_bytes = 0;
    std::uint64_t threads = 0;
    std::uint64_t open_fds = 0;
    std::uint64_t max_fds = 0;
};
ProcessNumbers process_numbers();

}  // namespace pgchaperone::net
