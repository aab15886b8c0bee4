#include "protocol/error.h"

#include <string>

namespace pgchaperone::protocol {
namespace {

const char* text_of(Error e) noexcept {
    switch (e) {
        case Error::truncated: return "message ends too early";
        case Error::trailing_bytes: return "bytes left over after the last field";
        case Error::unterminated_string: return "string without its terminating zero byte";
        case Error::unknown_message: return "unknown message type";
        case Error::invalid_length: return "invalid message length";
        case Error::invalid_value_length: return "invalid length of a value";
        case Error::invalid_count: return "more elements announced than bytes are left";
        case Error::unexpected_code: return "unexpected request or authentication code";
        case Error::invalid_key_length: return "cancel key is not 4 to 256 bytes long";
        case Error::missing_terminator: return "startup packet without terminator as last byte";
        case Error::duplicate_parameter: return "startup packet gives user or database twice";
        case Error::embedded_zero: return "zero byte inside a string, or an empty list element";
        case Error::too_many_elements: return "more than 65535 elements";
        case Error::message_too_long: return "message longer than its kind may be";
    }
    return "unknown protocol error";
}

// Boost gives its base class no virtual destructor, and none is needed: the one object is never
// deleted.
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wnon-virtual-dtor"
class Category final : public boost::system::error_category {
public:
    const char* name() const noexcept override { return "protocol"; }
    std::string message(int value) const override { return text_of(static_cast<Error>(value)); }
    const char* message(int value, char*, std::size_t) const noexcept override {
        return text_of(static_cast<Error>(value));
    }
};
#pragma GCC diagnostic pop

}  // namespace

const boost::system::error_category& error_category() noexcept {
    static const Category category;
    return category;
}

}  // namespace pgchaperone::protocol
