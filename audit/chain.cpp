#include "audit/chain.h"

#include <boost/json.hpp>

#include <openssl/evp.h>

#include <array>
#include <cassert>
#include <charconv>

namespace pgchaperone::audit {
namespace {

constexpr std::size_t hash_digits = 64;

bool is_hash(std::string_view text) {
    return text.size() == hash_digits &&
           text.find_first_not_of("0123456789abcdef") == std::string_view::npos;
}

}  // namespace

std::string to_text(const ChainPoint& point) {
    return std::to_string(point.seq) + ":" + point.hash;
}

std::optional<ChainPoint> parse_chain_point(std::string_view text) {
    ChainPoint point;
    const auto [end, problem] = std::from_chars(text.data(), text.data() + text.size(), point.seq);
    if (problem != std::errc() || end == text.data() + text.size() || *end != ':')
        return std::nullopt;
    point.hash = text.substr(static_cast<std::size_t>(end + 1 - text.data()));
    if (!is_hash(point.hash)) return std::nullopt;
    return point;
}

std::string sha_256_hex(std::string_view bytes) {
    std::array<unsigned char, 32> digest;
    unsigned size = 0;
    const bool done = EVP_Digest(bytes.data(), bytes.size(), digest.data(), &size, EVP_sha256(),
                                 nullptr) == 1;
    // Without SHA-256 there is no chain, and no honest way on.
    assert(done && size == digest.size());
    (void)done;
    constexpr char digits[] = "0123456789abcdef";
    std::string out;
    out.reserve(hash_digits);
    for (const unsigned char byte : digest) {
        out += digits[byte >> 4];
        out += digits[byte & 15];
    }
    return out;
}

std::optional<LinePlace> read_place(std::string_view line) {
    boost::system::error_code problem;
    const boost::json::value value = boost::json::parse({line.data(), line.size()}, problem);
    if (problem || !value.is_object()) return std::nullopt;
    const boost::json::object& object = value.get_object();
    const boost::json::value* seq = object.if_contains("seq");
    const boost::json::value* prev = object.if_contains("prev");
    if (!seq || !prev || !prev->is_string()) return std::nullopt;
    const bool counts = (seq->is_int64() && seq->get_int64() > 0) || seq->is_uint64();
    const std::string_view hash(prev->get_string().data(), prev->get_string().size());
    if (!counts || !is_hash(hash)) return std::nullopt;
    return LinePlace{seq->to_number<std::uint64_t>(), std::string(hash)};
}

}  // namespace pgchaperone::audit
