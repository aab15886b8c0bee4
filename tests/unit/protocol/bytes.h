#pragma once
// Bytes written so that people can check them against the documentation.

#include <cstring>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>

namespace pgchaperone::test {

// "51 0000000d 'SELECT 1' 00": hex digits, spaces, and text between single quotes.
inline std::string bytes(std::string_view notation) {
    std::string out;
    int high = -1;
    bool text = false;
    for (const char c : notation) {
        if (c == '\'') {
            text = !text;
        } else if (text) {
            out += c;
        } else if (c != ' ') {
            const std::size_t digit = std::string_view{"0123456789abcdef"}.find(c);
            if (digit == std::string_view::npos) throw std::invalid_argument(std::string{notation});
            if (high < 0) {
                high = static_cast<int>(digit);
            } else {
                out += static_cast<char>(high * 16 + static_cast<int>(digit));
                high = -1;
            }
        }
    }
    if (high >= 0 || text) throw std::invalid_argument(std::string{notation});
    return out;
}

// A copy in a block of exactly its size, so that the address sanitizer sees the first byte read
// behind it.
class Exact {
public:
    explicit Exact(std::string_view from) : block_(new char[from.size()]), size_(from.size()) {
        if (!from.empty()) std::memcpy(block_.get(), from.data(), from.size());
    }
    std::string_view view() const { return {block_.get(), size_}; }

private:
    std::unique_ptr<char[]> block_;
    std::size_t size_;
};

}  // namespace pgchaperone::test
