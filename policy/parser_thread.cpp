#include "policy/parser_thread.h"

#include <cerrno>
#include <cstdint>
#include <sys/mman.h>
#include <system_error>
#include <utility>

namespace pgchaperone::policy {

namespace {

constexpr std::size_t guard_bytes = 1024 * 1024;

std::uintptr_t lowest_stack_address() {
    pthread_attr_t attributes;
    if (pthread_getattr_np(pthread_self(), &attributes) != 0) {
        return UINTPTR_MAX;
    }
    void* lowest = nullptr;
    std::size_t size = 0;
    pthread_attr_getstack(&attributes, &lowest, &size);
    pthread_attr_destroy(&attributes);
    return reinterpret_cast<std::uintptr_t>(lowest);
}

}  // namespace

std::size_t stack_left_bytes() noexcept {
    // Asking is slow for the first thread of a process (it reads /proc), so that the answer is
    // kept.
    static thread_local const std::uintptr_t lowest = lowest_stack_address();
    const auto here = reinterpret_cast<std::uintptr_t>(__builtin_frame_address(0));
    return here > lowest ? here - lowest : 0;
}

ParserThread::ParserThread(std::function<void()> work) : work_(std::move(work)) {
    stack_ = mmap(nullptr, stack_bytes, PROT_READ | PROT_WRITE,
                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0);
    if (stack_ == MAP_FAILED) {
        throw std::system_error(errno, std::generic_category(),
                                "no address space for a parser thread");
    }
    // With a stack of our own, the C library makes no guard page below it.
    mprotect(stack_, guard_bytes, PROT_NONE);
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstack(&attributes, static_cast<char*>(stack_) + guard_bytes,
                          stack_bytes - guard_bytes);
    const int failed = pthread_create(&thread_, &attributes, &ParserThread::main, this);
    pthread_attr_destroy(&attributes);
    if (failed != 0) {
        munmap(stack_, stack_bytes);
        throw std::system_error(failed, std::generic_category(), "no parser thread");
    }
}

void* ParserThread::main(void* self) {
    static_cast<ParserThread*>(self)->work_();
    return nullptr;
}

void ParserThread::join() noexcept {
    if (!joined_) {
        joined_ = true;
        pthread_join(thread_, nullptr);
        munmap(stack_, stack_bytes);
    }
}

}  // namespace pgchaperone::policy
