#pragma once
// Runs the reading of a text where the stack is large enough for its depth: here, or on a thread of
// its own.

#include "policy/lexical.h"
#include "policy/parser_thread.h"

#include <cstddef>
#include <exception>
#include <string_view>

namespace pgchaperone::policy {

enum class ReadingPlace : unsigned char { here, own_thread, nowhere };

// Where a text can be read that needs `extra_bytes` of stack besides what its own depth takes.
ReadingPlace place_for(std::string_view text, bool backslash_escapes,
                       std::size_t extra_bytes) noexcept;

// False, without having run `work`, where the text is nested too deeply for any stack. Rethrows
// what `work` throws.
template <typename Work>
bool with_enough_stack(std::string_view text, bool backslash_escapes, std::size_t extra_bytes,
                       const Work& work) {
    switch (place_for(text, backslash_escapes, extra_bytes)) {
        case ReadingPlace::here: work(); return true;
        case ReadingPlace::own_thread: {
            std::exception_ptr failure;
            ParserThread thread([&] {
                try {
                    work();
                } catch (...) {
                    failure = std::current_exception();
                }
            });
            thread.join();
            if (failure) {
                std::rethrow_exception(failure);
            }
            return true;
        }
        case ReadingPlace::nowhere: break;
    }
    return false;
}

}  // namespace pgchaperone::policy
