// Prints a dictionary for libFuzzer: the head of every message of the catalog, the request codes of
// the startup phase, the numbers at which lengths go wrong, and names that the protocol gives a
// meaning.

#include "protocol/codec.h"

#include <cstdio>
#include <string>
#include <string_view>

namespace pgchaperone::protocol {
namespace {

void print(std::string_view name, std::string_view bytes) {
    for (const char c : name) std::putchar(c == '.' || c == '-' ? '_' : c);
    std::fputs("=\"", stdout);
    for (const char c : bytes) std::printf("\\x%02X", static_cast<unsigned char>(c));
    std::fputs("\"\n", stdout);
}

std::string int32(Int32 n) {
    std::string out;
    Writer{out}.int32(n);
    return out;
}

void print_dictionary() {
    for (const MessageKind& kind : catalog) {
        const std::string side = kind.side == Side::frontend ? "f_" : "b_";
        print(side + std::string{kind.name}, kind.tag + int32(4));
        print(side + std::string{kind.name} + "_longest", kind.tag + int32(kind.max_length));
    }
    print("SSLRequest", encoded(SSLRequest{}));
    print("GSSENCRequest", encoded(GSSENCRequest{}));
    print("CancelRequest", int32(16) + int32(CancelRequest::request_code));
    print("version_3_0", int32(3 << 16));
    print("version_3_2", int32(3 << 16 | 2));
    for (const Int32 n : {-1, -2, INT32_MAX, INT32_MIN, 65'535}) {
        print("int32_" + std::to_string(static_cast<std::uint32_t>(n)), int32(n));
    }
    for (const std::string name :
         {"user", "database", "replication", "_pq_.", "SCRAM-SHA-256", "SCRAM-SHA-256-PLUS"}) {
        print(name, name + '\0');
    }
    for (Int32 code = 0; code <= 12; ++code) {
        print("authentication_" + std::to_string(code), 'R' + int32(8) + int32(code));
    }
}

}  // namespace
}  // namespace pgchaperone::protocol

int main() {
    pgchaperone::protocol::print_dictionary();
    return 0;
}
