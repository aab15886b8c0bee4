#pragma once
// What an approval is bound to: the hash of everything that decides what a statement means and for
// whom it runs. Pure functions.

#include "proxy/session/identity.h"

#include "protocol/messages.h"

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace pgchaperone::session {

// SHA-256 over a list of fields, each with its length, so that no two lists look alike.
class Binding {
public:
    Binding& add(std::string_view field);
    Binding& add(std::uint64_t number) { return add(std::to_string(number)); }
    std::string sha256_hex() const;

private:
    std::string bytes_;
};

// Parameters of a Bind, as bytes in a canonical order: declared types, formats, values.
void add_parameters(Binding& binding, const std::vector<std::int32_t>& types,
                    const protocol::Bind& bind);
// The same for people: text as it is, the commonest binary types as text, others as \x...; none:
// NULL.
std::vector<std::optional<std::string>> readable_parameters(const std::vector<std::int32_t>& types,
                                                            const protocol::Bind& bind);

void add_identity(Binding& binding, const Identity& identity);
// "search_path=public role=none": what of the settings is worth an approver's while.
std::string readable_settings(const Identity& identity);

}  // namespace pgchaperone::session
