#pragma once
// The only place where bytes become numbers and strings and back, so the only place with length
// arithmetic. Knows no message. All integers are big-endian, as the protocol has them.
//
// Invariants: a Reader never looks outside its bytes; after the first failure it stays failed,
// every read returns zero or an empty view, and error() keeps the first reason. Views point into
// the bytes read.

#include "protocol/error.h"

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace pgchaperone::protocol {

class Reader {
public:
    explicit Reader(std::string_view bytes) noexcept : bytes_(bytes) {}

    bool ok() const noexcept { return ok_; }
    // The reason of the first failure. Only where !ok().
    Error error() const noexcept { return error_; }
    std::size_t remaining() const noexcept { return bytes_.size() - position_; }
    std::size_t position() const noexcept { return position_; }

    void fail(Error e) noexcept {
        if (!ok_) return;
        ok_ = false;
        error_ = e;
        position_ = bytes_.size();
    }

    std::int8_t int8() noexcept { return static_cast<std::int8_t>(unsigned_integer<1>()); }
    std::int16_t int16() noexcept { return static_cast<std::int16_t>(unsigned_integer<2>()); }
    std::int32_t int32() noexcept { return static_cast<std::int32_t>(unsigned_integer<4>()); }
    // Counts are Int16 in the documentation, but the server and libpq read them without a sign:
    // 65,535 parameters are legal.
    std::uint16_t count16() noexcept { return static_cast<std::uint16_t>(unsigned_integer<2>()); }
    char byte1() noexcept { return static_cast<char>(unsigned_integer<1>()); }

    // A String: the bytes up to the next zero byte, which is consumed and not part of the view.
    std::string_view string() noexcept {
        const std::string_view left = bytes_.substr(position_);
        const std::size_t end = left.find('\0');
        if (end == std::string_view::npos) {
            fail(Error::unterminated_string);
            return {};
        }
        position_ += end + 1;
        return left.substr(0, end);
    }

    // Byte[n].
    std::string_view bytes(std::size_t n) noexcept {
        if (n > remaining()) {
            fail(Error::truncated);
            return {};
        }
        const std::string_view result = bytes_.substr(position_, n);
        position_ += n;
        return result;
    }

    // All that is left.
    std::string_view rest() noexcept { return bytes(remaining()); }

    // Int32 length and that many bytes; no value where the length is -1 (NULL).
    std::optional<std::string_view> value() noexcept {
        const std::int32_t length = int32();
        if (!ok_ || length == -1) return std::nullopt;
        if (length < 0) {
            fail(Error::invalid_value_length);
            return std::nullopt;
        }
        return bytes(static_cast<std::size_t>(length));
    }

    // The next byte without consuming it; 0 at the end.
    char peek() const noexcept { return remaining() == 0 ? '\0' : bytes_[position_]; }

private:
    template <std::size_t N>
    std::uint32_t unsigned_integer() noexcept {
        if (remaining() < N) {
            fail(Error::truncated);
            return 0;
        }
        std::uint32_t result = 0;
        for (std::size_t i = 0; i < N; ++i) {
            result = result << 8 | static_cast<unsigned char>(bytes_[position_ + i]);
        }
        position_ += N;
        return result;
    }

    std::string_view bytes_;
    std::size_t position_ = 0;
    bool ok_ = true;
    Error error_{};
};

// Appends to a string. Like the Reader it fails once and for all; what was appended by then is for
// the caller to cut off (encode does).
class Writer {
public:
    explicit Writer(std::string& out) noexcept : out_(out) {}

    bool ok() const noexcept { return ok_; }
    Error error() const noexcept { return error_; }
    std::size_t size() const noexcept { return out_.size(); }

    void fail(Error e) noexcept {
        if (!ok_) return;
        ok_ = false;
        error_ = e;
    }

    void int8(std::int8_t v) { unsigned_integer<1>(static_cast<std::uint8_t>(v)); }
    void int16(std::int16_t v) { unsigned_integer<2>(static_cast<std::uint16_t>(v)); }
    void int32(std::int32_t v) { unsigned_integer<4>(static_cast<std::uint32_t>(v)); }
    void byte1(char v) { out_.push_back(v); }
    void bytes(std::string_view v) { out_.append(v); }

    void count16(std::size_t n) {
        if (n > UINT16_MAX) return fail(Error::too_many_elements);
        unsigned_integer<2>(static_cast<std::uint32_t>(n));
    }

    void length32(std::size_t n) {
        if (n > INT32_MAX) return fail(Error::message_too_long);
        int32(static_cast<std::int32_t>(n));
    }

    void string(std::string_view v) {
        if (v.find('\0') != std::string_view::npos) return fail(Error::embedded_zero);
        out_.append(v);
        out_.push_back('\0');
    }

    void value(const std::optional<std::string_view>& v) {
        if (!v) return int32(-1);
        length32(v->size());
        if (ok_) out_.append(*v);
    }

    // The byte at an offset of the string written to, which must be there.
    char at(std::size_t offset) const { return out_.at(offset); }

private:
    template <int N>
    void unsigned_integer(std::uint32_t v) {
        char encoded[N];
        for (int i = 0; i < N; ++i) encoded[i] = static_cast<char>(v >> (8 * (N - 1 - i)) & 0xFF);
        out_.append(encoded, N);
    }

    std::string& out_;
    bool ok_ = true;
    Error error_{};
};

}  // namespace pgchaperone::protocol
