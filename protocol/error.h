#pragma once
// What can be wrong with bytes that a peer sent, or with a message that we were asked to write.
// Errors are values: nothing in this folder throws, and no function of it has a side effect when it
// fails.

#include <boost/system/error_code.hpp>
#include <boost/system/result.hpp>

#include <type_traits>

namespace pgchaperone::protocol {

enum class Error {
    truncated = 1,         // the bytes end before the message does
    trailing_bytes,        // the message ends before the bytes do
    unterminated_string,   // a String without its zero byte
    unknown_message,       // no such tag in this direction
    invalid_length,        // shorter than possible, or longer than this kind of message may be
    invalid_value_length,  // the length of a parameter or column value is negative and not -1
    invalid_count,         // more elements announced than bytes are left
    unexpected_code,       // another Authentication or request code than this message has
    invalid_key_length,    // a cancel key of fewer than 4 or more than 256 bytes
    missing_terminator,  // a startup packet whose last byte is not the terminator of its parameters
    duplicate_parameter,  // a startup packet that gives `user` or `database` twice
    embedded_zero,        // encode: a String that contains a zero byte, or an empty list element
    too_many_elements,    // encode: more elements than an Int16 can count
    message_too_long,     // encode: longer than the peer would accept
};

// The category's name is "protocol"; its messages are phrases for people, in lower case, without a
// full stop.
const boost::system::error_category& error_category() noexcept;

inline boost::system::error_code make_error_code(Error e) noexcept {
    return {static_cast<int>(e), error_category()};
}

template <class T>
using Result = boost::system::result<T>;

}  // namespace pgchaperone::protocol

template <>
struct boost::system::is_error_code_enum<pgchaperone::protocol::Error> : std::true_type {};
