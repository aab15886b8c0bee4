// Loaded into the guard by LD_PRELOAD: flushing to the disk takes as long as the file exists that
// $SLOW_DISK names.

#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <unistd.h>

int fdatasync(int file) {
    static int (*real)(int);
    if (!real) *(void**)&real = dlsym(RTLD_NEXT, "fdatasync");
    const char* const name = getenv("SLOW_DISK");
    while (name && access(name, F_OK) == 0) usleep(10000);
    return real(file);
}
