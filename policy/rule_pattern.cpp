#include "policy/rule_pattern.h"

#include <arpa/inet.h>

#include <algorithm>
#include <charconv>
#include <stdexcept>

namespace pgchaperone::policy {
namespace {

char lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; }

std::string lower(std::string_view text) {
    std::string out(text);
    std::transform(out.begin(), out.end(), out.begin(), [](char c) { return lower(c); });
    return out;
}

// The usual matching with one point to come back to: linear in practice, at worst text times
// pattern.
template <class Equal, class Wild>
bool glob_matches(std::size_t pattern_size, std::string_view text, Equal equal,
                  Wild wild) noexcept {
    std::size_t p = 0, t = 0;
    std::size_t star = std::string_view::npos, star_text = 0;
    while (t < text.size()) {
        if (p < pattern_size && wild(p) == '*') {
            star = p++;
            star_text = t;
        } else if (p < pattern_size && (wild(p) == '?' || equal(p, text[t]))) {
            ++p;
            ++t;
        } else if (star != std::string_view::npos) {
            p = star + 1;
            t = ++star_text;
        } else {
            return false;
        }
    }
    while (p < pattern_size && wild(p) == '*') ++p;
    return p == pattern_size;
}

}  // namespace

void throw_exception_from_error(const PatternError& error, const boost::source_location&) {
    throw std::logic_error(error.message);
}

Glob::Glob(std::string_view pattern, Case letters)
    : pattern_(letters == Case::folded ? lower(pattern) : std::string(pattern)),
      letters_(letters),
      literal_(pattern.find_first_of("*?") == std::string_view::npos) {}

bool Glob::matches(std::string_view text) const noexcept {
    if (literal_) {
        if (text.size() != pattern_.size()) return false;
        if (letters_ == Case::exact) return text == pattern_;
        for (std::size_t i = 0; i < text.size(); ++i) {
            if (lower(text[i]) != pattern_[i]) return false;
        }
        return true;
    }
    const bool folded = letters_ == Case::folded;
    return glob_matches(
        pattern_.size(), text,
        [&](std::size_t p, char c) {
            return pattern_[p] != '*' && pattern_[p] == (folded ? lower(c) : c);
        },
        [&](std::size_t p) {
            return pattern_[p] == '*' || pattern_[p] == '?' ? pattern_[p] : ' ';
        });
}

bool Glob::covers(const Glob& other) const noexcept {
    // A glob read as a text: its wildcards are ordinary bytes that only a wildcard here can match.
    // A `?` here could stand for a `*` there, which is longer; such patterns are not compared.
    if (pattern_ == other.pattern_) return true;
    if (pattern_.find('?') != std::string::npos && !other.literal_) return false;
    return matches(other.pattern_);
}

bool NamePattern::Part::matches(std::string_view text) const noexcept {
    return glob_matches(
        bytes.size(), text, [&](std::size_t p, char c) { return wild[p] == ' ' && bytes[p] == c; },
        [&](std::size_t p) { return wild[p]; });
}

bool NamePattern::Part::covers(const Part& other) const {
    if (bytes == other.bytes && wild == other.wild) return true;
    // As Glob::covers: a wildcard there stands for itself, as a byte that no name holds.
    std::string text = other.bytes;
    bool literal = true;
    for (std::size_t i = 0; i < text.size(); ++i) {
        if (other.wild[i] == ' ') continue;
        text[i] = '\0';
        literal = false;
    }
    if (!literal && wild.find('?') != std::string::npos) return false;
    return matches(text);
}

bool NamePattern::covers(const NamePattern& other) const {
    const auto part_covers = [](const Part& wide, const Part& narrow) {
        return wide.empty() || (!narrow.empty() && wide.covers(narrow));
    };
    return name_.covers(other.name_) && part_covers(schema_, other.schema_) &&
           part_covers(catalog_, other.catalog_);
}

Parsed<NamePattern> NamePattern::parse(std::string_view text) {
    NamePattern result;
    result.text_ = text;
    std::vector<Part> parts(1);
    bool quoted = false;
    for (std::size_t i = 0; i < text.size(); ++i) {
        const char c = text[i];
        if (c == '"') {
            if (quoted && i + 1 < text.size() && text[i + 1] == '"') {
                parts.back().bytes += '"';
                parts.back().wild += ' ';
                ++i;
                continue;
            }
            quoted = !quoted;
            parts.back().given = true;
        } else if (!quoted && c == '.') {
            parts.emplace_back();
        } else if (!quoted && (c == ' ' || c == ',' || c == '(' || c == ')')) {
            return PatternError{"\"" + std::string(text) + "\" is not a name: it holds a " +
                                (c == ' ' ? std::string("space") : "'" + std::string(1, c) + "'") +
                                "; write names as schema.name, and quote what is quoted in SQL"};
        } else {
            parts.back().given = true;
            parts.back().bytes += quoted ? c : lower(c);
            parts.back().wild += !quoted && (c == '*' || c == '?') ? c : ' ';
        }
    }
    if (quoted) return PatternError{"the quote in " + std::string(text) + " is never closed"};
    if (parts.size() > 3)
        return PatternError{"\"" + std::string(text) + "\" has more than database.schema.name"};
    for (const Part& part : parts) {
        if (part.bytes.empty())
            return PatternError{"\"" + std::string(text) + "\" has an empty part"};
    }
    result.name_ = std::move(parts.back());
    if (parts.size() > 1) result.schema_ = std::move(parts[parts.size() - 2]);
    if (parts.size() > 2) result.catalog_ = std::move(parts.front());
    return result;
}

Truth NamePattern::matches(std::string_view catalog, std::string_view schema, std::string_view name,
                           const std::vector<std::string>* schemas) const noexcept {
    if (name.empty()) return matches_every_relation(schema);
    if (!name_.matches(name)) return Truth::no;
    if (!catalog_.empty() && !catalog.empty() && !catalog_.matches(catalog)) return Truth::no;
    if (schema_.empty()) return Truth::yes;
    if (!schema.empty()) return schema_.matches(schema) ? Truth::yes : Truth::no;
    if (schema_.bytes == "*" && schema_.wild == "*") return Truth::yes;
    if (schemas == nullptr) return Truth::maybe;
    // PostgreSQL takes the first schema that has the name; which one has it is not known here.
    std::size_t matching = 0;
    for (const std::string& candidate : *schemas) matching += schema_.matches(candidate) ? 1 : 0;
    if (matching == 0) return Truth::no;
    return matching == schemas->size() ? Truth::yes : Truth::maybe;
}

// Of a whole schema, or of all: the pattern may stand for one of its relations, or for none that is
// there.
Truth NamePattern::matches_every_relation(std::string_view schema) const noexcept {
    const auto everything = [](const Part& part) {
        return part.empty() || (part.bytes == "*" && part.wild == "*");
    };
    if (!schema.empty() && !schema_.empty() && !schema_.matches(schema)) return Truth::no;
    const bool whole_schema = everything(schema_) || !schema.empty();
    return everything(name_) && whole_schema ? Truth::yes : Truth::maybe;
}

Parsed<ClientAddress> parse_client_address(std::string_view text) {
    ClientAddress address;
    address.text = text;
    if (text == "local") {
        address.local = true;
        return address;
    }
    const std::string copy(text);
    in_addr v4{};
    in6_addr v6{};
    if (inet_pton(AF_INET, copy.c_str(), &v4) == 1) {
        address.bytes[10] = address.bytes[11] = 0xff;
        const auto* bytes = reinterpret_cast<const std::uint8_t*>(&v4);
        std::copy_n(bytes, 4, address.bytes.begin() + 12);
        return address;
    }
    if (inet_pton(AF_INET6, copy.c_str(), &v6) == 1) {
        std::copy_n(v6.s6_addr, 16, address.bytes.begin());
        return address;
    }
    return PatternError{"\"" + copy + "\" is not an IP address; write 10.1.2.3, fd00::1 or local"};
}

Parsed<Network> Network::parse(std::string_view text) {
    Network network;
    network.text_ = text;
    if (text == "local") {
        network.local_ = true;
        return network;
    }
    const auto slash = text.find('/');
    const auto address = parse_client_address(text.substr(0, slash));
    if (!address) {
        return PatternError{
            "\"" + std::string(text) +
            "\" is not a network; write 10.1.0.0/16, fd00::/8, a single address, or local"};
    }
    network.bytes_ = address->bytes;
    const bool v4 = text.substr(0, slash).find(':') == std::string_view::npos;
    const unsigned width = v4 ? 32 : 128;
    unsigned bits = width;
    if (slash != std::string_view::npos) {
        const auto digits = text.substr(slash + 1);
        const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(),
                                                  bits);
        if (error != std::errc() || end != digits.data() + digits.size() || bits > width) {
            return PatternError{"the part behind the slash in \"" + std::string(text) +
                                "\" must be a number of bits from 0 to " + std::to_string(width)};
        }
    }
    network.bits_ = bits + (v4 ? 96 : 0);
    for (unsigned bit = network.bits_; bit < 128; ++bit) {
        if (network.bytes_[bit / 8] & (0x80U >> (bit % 8))) {
            return PatternError{"\"" + std::string(text) + "\" has bits set behind its /" +
                                std::to_string(bits) +
                                "; did you mean a single address, or a longer prefix?"};
        }
    }
    return network;
}

bool Network::contains(const ClientAddress& address) const noexcept {
    if (local_ || address.local) return local_ && address.local;
    for (unsigned bit = 0; bit < bits_; bit += 8) {
        const unsigned left = std::min(8U, bits_ - bit);
        const auto mask = static_cast<std::uint8_t>(0xff00U >> left);
        if ((address.bytes[bit / 8] & mask) != (bytes_[bit / 8] & mask)) return false;
    }
    return true;
}

bool Network::covers(const Network& other) const noexcept {
    if (local_ || other.local_) return local_ == other.local_;
    ClientAddress first;
    first.bytes = other.bytes_;
    return bits_ <= other.bits_ && contains(first);
}

}  // namespace pgchaperone::policy
