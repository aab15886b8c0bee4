#pragma once
// The system calls by which the audit log reaches the disk, so that a test can make each of them
// fail.

#include <cstddef>
#include <sys/types.h>

namespace pgchaperone::audit {

// All as the calls of the same name: -1 and errno on failure.
class Disk {
public:
    virtual ~Disk() = default;
    virtual ssize_t write(int file, const char* bytes, std::size_t size);
    virtual int fdatasync(int file);
    virtual int ftruncate(int file, off_t size);
    virtual int rename(const char* from, const char* to);
};

}  // namespace pgchaperone::audit
