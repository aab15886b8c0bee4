#include "proxy/net/proxy_header.h"

#include <boost/asio/ip/address.hpp>

#include <algorithm>
#include <cstdint>
#include <utility>

namespace pgchaperone::net {
namespace {

using boost::asio::ip::address_v4;
using boost::asio::ip::address_v6;

constexpr std::string_view signature("\r\n\r\n\0\r\nQUIT\n", 12);
constexpr std::string_view version_one = "PROXY ";
constexpr std::size_t head_bytes = 16;  // signature, version and command, family, length
// Of its first byte behind the signature the upper half is the version.
constexpr std::uint8_t version = 2, command_local = 0, command_proxy = 1;
constexpr std::uint8_t tcp4 = 0x11, tcp6 = 0x21, unix_stream = 0x31, unspecified = 0x00;
// Both addresses and both ports.
constexpr std::size_t tcp4_bytes = 12, tcp6_bytes = 36;

std::uint8_t byte_at(std::string_view bytes, std::size_t at) {
    return static_cast<std::uint8_t>(bytes[at]);
}

template <class Address>
typename Address::bytes_type address_at(std::string_view bytes, std::size_t at) {
    typename Address::bytes_type out{};
    for (std::size_t i = 0; i < out.size(); ++i) out[i] = byte_at(bytes, at + i);
    return out;
}

policy::ClientAddress client_of(const address_v6& v6) {
    policy::ClientAddress client;
    client.bytes = v6.to_bytes();
    client.text = v6.is_v4_mapped()
                      ? boost::asio::ip::make_address_v4(boost::asio::ip::v4_mapped, v6).to_string()
                      : v6.to_string();
    return client;
}

ProxyHeader wrong(std::string why) {
    ProxyHeader header;
    header.wrong = std::move(why);
    return header;
}

}  // namespace

ProxyHeader read_proxy_header(std::string_view bytes) {
    const std::size_t known = std::min(bytes.size(), signature.size());
    if (bytes.substr(0, known) != signature.substr(0, known)) {
        // However it is cut, it is told as what it is.
        if (version_one.starts_with(bytes) && bytes.size() < version_one.size()) return {};
        if (bytes.starts_with(version_one))
            return wrong("version 1 of PROXY protocol came, and version 2 is expected");
        return wrong("no header of PROXY protocol came");
    }
    if (bytes.size() < head_bytes) return {};
    const std::uint8_t command = byte_at(bytes, 12) & 0x0F;
    if (byte_at(bytes, 12) >> 4 != version || command > command_proxy)
        return wrong("a header of PROXY protocol of an unknown version came");
    const std::uint8_t family = byte_at(bytes, 13);
    const std::size_t length = std::size_t{byte_at(bytes, 14)} << 8 | byte_at(bytes, 15);
    if (head_bytes + length > ProxyHeader::bytes_max)
        return wrong("a header of PROXY protocol of " + std::to_string(length) + " bytes came");
    if (bytes.size() < head_bytes + length) return {};

    ProxyHeader header;
    header.complete = true;
    header.size = head_bytes + length;
    if (command == command_local) return header;
    const bool four = family == tcp4, six = family == tcp6;
    if (!four && !six) {
        if (family == unspecified || family == unix_stream) return header;
        return wrong("a header of PROXY protocol came for something else than TCP");
    }
    if (length < (four ? tcp4_bytes : tcp6_bytes))
        return wrong("a header of PROXY protocol came that is too short for its addresses");
    header.source = client_of(four ? boost::asio::ip::make_address_v6(
                                         boost::asio::ip::v4_mapped,
                                         address_v4(address_at<address_v4>(bytes, head_bytes)))
                                   : address_v6(address_at<address_v6>(bytes, head_bytes)));
    return header;
}

}  // namespace pgchaperone::net
