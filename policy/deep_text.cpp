#include "policy/deep_text.h"

namespace pgchaperone::policy {

ReadingPlace place_for(std::string_view text, bool backslash_escapes,
                       std::size_t extra_bytes) noexcept {
    const std::size_t left = stack_left_bytes();
    // No level of a tree takes less than two bytes of text: most texts need not be looked at.
    if (stack_needed_bytes(text.size() / 2) + extra_bytes <= left) {
        return ReadingPlace::here;
    }
    const std::size_t needed = stack_needed_bytes(nesting_bound(text, backslash_escapes)) +
                               extra_bytes;
    constexpr std::size_t reserve = 4 * 1024 * 1024;
    return needed <= left                                  ? ReadingPlace::here
           : needed <= ParserThread::stack_bytes - reserve ? ReadingPlace::own_thread
                                                           : ReadingPlace::nowhere;
}

}  // namespace pgchaperone::policy
