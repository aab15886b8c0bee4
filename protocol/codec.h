#pragma once
// Bodies into messages and messages into bytes, for every struct of messages.h. Knows no dialogue:
// whether a message may come now is for the session to say.

#include "protocol/cursor.h"
#include "protocol/messages.h"

#include <boost/assert.hpp>

#include <string>
#include <string_view>
#include <vector>

namespace pgchaperone::protocol {

inline constexpr std::size_t min_cancel_key_size = 4;
inline constexpr std::size_t max_cancel_key_size = 256;

// What a startup packet may be long, its length word included. The server compares without that
// word's four bytes (MAX_STARTUP_PACKET_LENGTH in libpq/pqcomm.h, ProcessStartupPacket()).
inline constexpr Int32 max_startup_packet_length = 10'000 + 4;
inline constexpr Int32 min_startup_packet_length = 8;

// The field visitor that decodes.
class FieldDecoder {
public:
    explicit FieldDecoder(std::string_view body) noexcept : in(body) {}

    void byte1(std::string_view, char& x) noexcept { x = in.byte1(); }
    void int8(std::string_view, Int8& x) noexcept { x = in.int8(); }
    void int16(std::string_view, Int16& x) noexcept { x = in.int16(); }
    void int32(std::string_view, Int32& x) noexcept { x = in.int32(); }
    void version(std::string_view, Int32& x) noexcept { x = in.int32(); }
    void string(std::string_view, std::string_view& x) noexcept { x = in.string(); }
    void bytes(std::string_view, std::string_view& x) noexcept { x = in.rest(); }
    void fixed(std::string_view, std::string_view& x, std::size_t n) noexcept { x = in.bytes(n); }
    void value(std::string_view, Value& x) noexcept { x = in.value(); }
    void secret_string(std::string_view, std::string_view& x) noexcept { x = in.string(); }
    void secret_bytes(std::string_view, std::string_view& x) noexcept { x = in.rest(); }
    void secret_value(std::string_view, Value& x) noexcept { x = in.value(); }

    void code(Int32 expected) noexcept {
        if (in.int32() != expected) in.fail(Error::unexpected_code);
    }

    void key(std::string_view, std::string_view& x) noexcept {
        const std::size_t size = in.remaining();
        if (size < min_cancel_key_size || size > max_cancel_key_size) {
            return in.fail(Error::invalid_key_length);
        }
        x = in.rest();
    }

    template <class T>
    void counted16(std::string_view, std::vector<T>& list) noexcept {
        elements(in.count16(), list);
    }

    template <class T>
    void counted32(std::string_view, std::vector<T>& list) noexcept {
        const Int32 count = in.int32();
        if (count < 0) return in.fail(Error::invalid_count);
        elements(static_cast<std::size_t>(count), list);
    }

    template <class T>
    void until_zero(std::string_view, std::vector<T>& list) noexcept {
        while (in.ok()) {
            if (in.remaining() == 0) return in.fail(Error::missing_terminator);
            if (in.peek() == '\0') {
                in.byte1();
                return;
            }
            element(*this, list.emplace_back());
        }
    }

    Reader in;

private:
    template <class T>
    void elements(std::size_t count, std::vector<T>& list) noexcept {
        // Every element takes a byte at least: without this a few bytes could make us reserve
        // gigabytes.
        if (count > in.remaining()) return in.fail(Error::invalid_count);
        list.reserve(count);
        for (std::size_t i = 0; i < count && in.ok(); ++i) element(*this, list.emplace_back());
    }
};

// The field visitor that encodes.
class FieldEncoder {
public:
    explicit FieldEncoder(std::string& bytes) noexcept : out(bytes) {}

    void byte1(std::string_view, char x) { out.byte1(x); }
    void int8(std::string_view, Int8 x) { out.int8(x); }
    void int16(std::string_view, Int16 x) { out.int16(x); }
    void int32(std::string_view, Int32 x) { out.int32(x); }
    void version(std::string_view, Int32 x) { out.int32(x); }
    void string(std::string_view, std::string_view x) { out.string(x); }
    void bytes(std::string_view, std::string_view x) { out.bytes(x); }
    void value(std::string_view, const Value& x) { out.value(x); }
    void secret_string(std::string_view, std::string_view x) { out.string(x); }
    void secret_bytes(std::string_view, std::string_view x) { out.bytes(x); }
    void secret_value(std::string_view, const Value& x) { out.value(x); }
    void code(Int32 x) { out.int32(x); }

    void fixed(std::string_view, std::string_view x, std::size_t n) {
        if (x.size() != n) return out.fail(Error::invalid_length);
        out.bytes(x);
    }

    void key(std::string_view, std::string_view x) {
        if (x.size() < min_cancel_key_size || x.size() > max_cancel_key_size) {
            return out.fail(Error::invalid_key_length);
        }
        out.bytes(x);
    }

    template <class T>
    void counted16(std::string_view, const std::vector<T>& list) {
        out.count16(list.size());
        for (const T& x : list) element(*this, x);
    }

    template <class T>
    void counted32(std::string_view, const std::vector<T>& list) {
        out.length32(list.size());
        for (const T& x : list) element(*this, x);
    }

    template <class T>
    void until_zero(std::string_view, const std::vector<T>& list) {
        for (const T& x : list) {
            const std::size_t start = out.size();
            element(*this, x);
            if (!out.ok()) return;
            // It would be read as the end of the list.
            if (out.at(start) == '\0') return out.fail(Error::embedded_zero);
        }
        out.byte1('\0');
    }

    Writer out;
};

// Decodes the body of a message (what follows the length word, whole). Views in the result point
// into `body`. As the server's pq_getmsgend() has it, bytes behind the last field are an error.
// Allocates only for messages with lists, never more than a fixed multiple of the body; for heads
// of Bind and Parse see peek.h.
template <class M>
Result<M> decode(std::string_view body) noexcept {
    M message;
    FieldDecoder decoder{body};
    M::visit(message, decoder);
    if (!decoder.in.ok()) return decoder.in.error();
    if (decoder.in.remaining() != 0) return Error::trailing_bytes;
    return message;
}

namespace detail {

template <class M>
constexpr Int32 max_length_of() {
    if constexpr (!has_tag<M>) {
        return max_startup_packet_length;
    } else if constexpr (requires { M::backend_tag; }) {
        const Int32 other = find_kind(Side::backend, static_cast<char>(M::backend_tag))->max_length;
        return other < kind_of<M>().max_length ? other : kind_of<M>().max_length;
    } else {
        return kind_of<M>().max_length;
    }
}

}  // namespace detail

// Appends a whole message, with tag (where it has one) and length. On error `out` is as it was.
// The message's views must not point into `out`, which may move.
// Errors: embedded_zero, too_many_elements, message_too_long, invalid_length, invalid_key_length.
template <class M>
Result<void> encode(const M& message, std::string& out) {
    const std::size_t start = out.size();
    FieldEncoder encoder{out};
    if constexpr (has_tag<M>) encoder.out.byte1(static_cast<char>(M::tag));
    const std::size_t length_at = out.size();
    encoder.out.int32(0);
    M::visit(message, encoder);
    const std::size_t length = out.size() - length_at;
    if (length > static_cast<std::size_t>(detail::max_length_of<M>())) {
        encoder.out.fail(Error::message_too_long);
    }
    if (!encoder.out.ok()) {
        out.resize(start);
        return encoder.out.error();
    }
    for (int i = 0; i < 4; ++i) {
        out[length_at + static_cast<std::size_t>(i)] = static_cast<char>(length >> (8 * (3 - i)) &
                                                                         0xFF);
    }
    return {};
}

// A whole message as a string of its own; for messages whose fields are ours and known to be legal.
template <class M>
std::string encoded(const M& message) {
    std::string out;
    const Result<void> result = encode(message, out);
    BOOST_ASSERT_MSG(result.has_value(), "a message of our own must be encodable");
    return out;
}

}  // namespace pgchaperone::protocol
