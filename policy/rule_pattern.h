#pragma once
// The patterns that conditions are made of: globs, names of relations and functions, and networks.
// Parsing them reports what is wrong in words; matching never fails and never allocates. Knows no
// YAML and no rule.

#include "policy/facts.h"
#include "policy/session_facts.h"

#include <boost/system/result.hpp>

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace pgchaperone::policy {

// What is wrong with a pattern, in words for the author of the policy, without the place.
struct PatternError {
    std::string message;
};
[[noreturn]] void throw_exception_from_error(const PatternError&, const boost::source_location&);
template <class T>
using Parsed = boost::system::result<T, PatternError>;

// How surely something holds. `maybe`: some of several things match and others don't, or a name can
// mean more than one thing. A rule that restricts applies on `maybe`; a rule that allows needs
// `yes`.
enum class Truth : std::uint8_t { no, maybe, yes };
constexpr Truth negation(Truth t) { return static_cast<Truth>(2 - static_cast<int>(t)); }

// `*` stands for any run of characters, `?` for one byte, everything else for itself.
class Glob {
public:
    enum class Case : std::uint8_t { exact, folded };  // folded: ASCII letters match in either case

    explicit Glob(std::string_view pattern, Case letters = Case::exact);
    bool matches(std::string_view text) const noexcept;
    bool matches_everything() const noexcept { return pattern_ == "*"; }
    // True where every text that `other` matches is matched by this one. May say false where it is
    // true.
    bool covers(const Glob& other) const noexcept;
    const std::string& text() const noexcept { return pattern_; }
    bool operator==(const Glob&) const = default;

private:
    std::string pattern_;  // lower case where folded
    Case letters_;
    bool literal_;
};

// A pattern of a relation's or function's name as in psql's \d: `orders`, `public.*`,
// `shop.public.orders`. Outside double quotes letters are folded to lower case and `*` and `?` are
// wildcards; inside they stand for themselves.
class NamePattern {
public:
    static Parsed<NamePattern> parse(std::string_view text);

    // `schemas`: the search_path for a name without schema, nullptr where it is not known. An empty
    // `name` stands for every relation of the schema; see RelationName.
    Truth matches(std::string_view catalog, std::string_view schema, std::string_view name,
                  const std::vector<std::string>* schemas) const noexcept;
    // True where every name that `other` matches, or may match, is matched as surely by this one.
    // May say false where it is true.
    bool covers(const NamePattern& other) const;
    bool names_a_schema() const noexcept { return !schema_.empty(); }
    const std::string& text() const noexcept { return text_; }
    bool operator==(const NamePattern& other) const { return text_ == other.text_; }

private:
    // A part of the name; each byte knows whether it is a wildcard.
    struct Part {
        std::string bytes;
        std::string
            wild;  // '*' or '?' where that byte is a wildcard, ' ' elsewhere; as long as `bytes`
        bool empty() const { return bytes.empty() && !given; }
        bool given = false;
        bool matches(std::string_view text) const noexcept;
        bool covers(const Part& other) const;
    };
    Truth matches_every_relation(std::string_view schema) const noexcept;

    std::string text_;
    Part catalog_, schema_, name_;
};

// A network in CIDR notation, an address, or the word `local` for Unix-domain sockets.
class Network {
public:
    static Parsed<Network> parse(std::string_view text);
    bool contains(const ClientAddress& address) const noexcept;
    bool covers(const Network& other) const noexcept;
    const std::string& text() const noexcept { return text_; }

private:
    std::string text_;
    bool local_ = false;
    std::array<std::uint8_t, 16> bytes_{};
    unsigned bits_ = 0;  // of the IPv4-mapped or IPv6 address
};

// Reads an address as people write it (IPv4, IPv6, or `local`).
Parsed<ClientAddress> parse_client_address(std::string_view text);

}  // namespace pgchaperone::policy
