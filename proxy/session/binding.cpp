#include "proxy/session/binding.h"

#include <openssl/evp.h>

#include <algorithm>
#include <array>
#include <cstring>

namespace pgchaperone::session {

namespace {

constexpr char hex_digits[] = "0123456789abcdef";
// A parameter as an approver sees it: the binding holds all of it.
constexpr std::size_t readable_bytes_max = 10'000;

std::string hex(std::string_view bytes) {
    std::string out;
    for (const char c : bytes) {
        const auto byte = static_cast<unsigned char>(c);
        out += hex_digits[byte >> 4];
        out += hex_digits[byte & 15];
    }
    return out;
}

std::int64_t big_endian(std::string_view bytes) {
    std::uint64_t value = 0;
    for (const char c : bytes) value = value << 8 | static_cast<unsigned char>(c);
    const std::size_t unused = 64 - 8 * bytes.size();
    return static_cast<std::int64_t>(value << unused) >> unused;
}

// PostgreSQL's fixed object ids (src/include/catalog/pg_type.dat).
std::string readable_binary(std::int32_t type, std::string_view value) {
    constexpr std::int32_t bool_oid = 16, int8_oid = 20, int2_oid = 21, int4_oid = 23;
    constexpr std::array<std::int32_t, 6> texts{18, 19, 25, 114, 1042, 1043};
    if (std::find(texts.begin(), texts.end(), type) != texts.end()) return std::string(value);
    const bool whole = (type == int8_oid && value.size() == 8) ||
                       (type == int4_oid && value.size() == 4) ||
                       (type == int2_oid && value.size() == 2);
    if (whole) return std::to_string(big_endian(value));
    if (type == bool_oid && value.size() == 1) return value[0] != 0 ? "true" : "false";
    return "\\x" + hex(value);
}

std::int16_t format_of(const protocol::Bind& bind, std::size_t index) {
    const auto& formats = bind.parameter_formats;
    if (formats.empty()) return 0;
    return formats.size() == 1 ? formats[0] : index < formats.size() ? formats[index] : 0;
}

}  // namespace

Binding& Binding::add(std::string_view field) {
    bytes_ += std::to_string(field.size());
    bytes_ += ':';
    bytes_ += field;
    return *this;
}

std::string Binding::sha256_hex() const {
    std::array<unsigned char, EVP_MAX_MD_SIZE> digest{};
    unsigned size = 0;
    if (EVP_Digest(bytes_.data(), bytes_.size(), digest.data(), &size, EVP_sha256(), nullptr) != 1)
        return {};
    return hex({reinterpret_cast<const char*>(digest.data()), size});
}

void add_parameters(Binding& binding, const std::vector<std::int32_t>& types,
                    const protocol::Bind& bind) {
    binding.add(bind.parameters.size());
    for (std::size_t i = 0; i < bind.parameters.size(); ++i) {
        binding.add(static_cast<std::uint64_t>(i < types.size() ? types[i] : 0));
        binding.add(static_cast<std::uint64_t>(format_of(bind, i)));
        binding.add(bind.parameters[i] ? "value" : "null");
        binding.add(bind.parameters[i].value_or(std::string_view()));
    }
}

std::vector<std::optional<std::string>> readable_parameters(const std::vector<std::int32_t>& types,
                                                            const protocol::Bind& bind) {
    std::vector<std::optional<std::string>> out;
    for (std::size_t i = 0; i < bind.parameters.size(); ++i) {
        if (!bind.parameters[i]) {
            out.emplace_back(std::nullopt);
            continue;
        }
        std::string_view value = *bind.parameters[i];
        const bool cut = value.size() > readable_bytes_max;
        value = value.substr(0, readable_bytes_max);
        std::string text = format_of(bind, i) == 0
                               ? std::string(value)
                               : readable_binary(i < types.size() ? types[i] : 0, value);
        if (cut) text += "... (" + std::to_string(bind.parameters[i]->size()) + " bytes)";
        out.emplace_back(std::move(text));
    }
    return out;
}

void add_identity(Binding& binding, const Identity& identity) {
    // Only where there is one: what was bound before there were several stays so.
    if (!identity.person.upstream.empty()) binding.add("upstream").add(identity.person.upstream);
    binding.add(identity.person.role).add(identity.person.oid);
    for (const auto& [name, value] : identity.settings) binding.add(name).add(value);
    // Temporary relations may hide what the text names.
    binding.add(identity.temporary);
}

std::string readable_settings(const Identity& identity) {
    std::string out;
    const auto usual = [](std::string_view name, std::string_view value) {
        return (name == "standard_conforming_strings" && value == "on") ||
               (name == "transform_null_equals" && value == "off") ||
               (name == "row_security" && value == "on") ||
               (name == "session_replication_role" && value == "origin") ||
               (name == "client_encoding" && value == "UTF8") || name == "schemas" ||
               name == "session_authorization" || name == "default_text_search_config" ||
               name == "lc_monetary" || name == "xmloption" || name == "IntervalStyle" ||
               name == "bytea_output" || name == "extra_float_digits" || name == "array_nulls";
    };
    for (const auto& [name, value] : identity.settings) {
        if (usual(name, value)) continue;
        if (!out.empty()) out += ", ";
        out += name + " = " + value;
    }
    if (!identity.temporary.empty()) out += ", with temporary tables of its own";
    return out;
}

}  // namespace pgchaperone::session
