#include "audit/disk.h"

#include <unistd.h>

#include <cstdio>

namespace pgchaperone::audit {

ssize_t Disk::write(int file, const char* bytes, std::size_t size) {
    return ::write(file, bytes, size);
}

int Disk::fdatasync(int file) { return ::fdatasync(file); }

int Disk::ftruncate(int file, off_t size) { return ::ftruncate(file, size); }

int Disk::rename(const char* from, const char* to) { return std::rename(from, to); }

}  // namespace pgchaperone::audit
