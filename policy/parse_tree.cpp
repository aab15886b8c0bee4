#include "policy/parse_tree.h"

#include "policy/analyzer.h"

#include <pg_query.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <cstring>
#include <utility>
#include <vector>

namespace pgchaperone::policy {

namespace {

// Buffers that have grown beyond this are given back: one huge statement must not cost memory for
// ever.
constexpr std::size_t kept_buffer_bytes = 1024 * 1024;

// Owns what libpg_query returned.
struct ParsedJson {
    explicit ParsedJson(PgQueryParseResult result) : sql(result) {}
    explicit ParsedJson(PgQueryPlpgsqlParseResult result) : plpgsql(result), is_plpgsql(true) {}
    ~ParsedJson() {
        if (is_plpgsql) {
            pg_query_free_plpgsql_parse_result(plpgsql);
        } else {
            pg_query_free_parse_result(sql);
        }
    }
    ParsedJson(const ParsedJson&) = delete;
    ParsedJson& operator=(const ParsedJson&) = delete;

    const PgQueryError* error() const { return is_plpgsql ? plpgsql.error : sql.error; }
    char*& json() { return is_plpgsql ? plpgsql.plpgsql_funcs : sql.parse_tree; }
    // Lets simdjson read beyond the end without a copy.
    bool pad(std::size_t length) {
        void* padded = std::realloc(json(), length + simdjson::SIMDJSON_PADDING);
        if (padded == nullptr) return false;
        json() = static_cast<char*>(padded);
        return true;
    }

    PgQueryParseResult sql{};
    PgQueryPlpgsqlParseResult plpgsql{};
    bool is_plpgsql = false;
};

PgQueryParseResult parse_sql(const char* sql, [[maybe_unused]] bool backslash_escapes,
                             [[maybe_unused]] int mode) {
#ifdef PG_QUERY_DISABLE_STANDARD_CONFORMING_STRINGS
    if (backslash_escapes || mode != 0) {
        return pg_query_parse_opts(
            sql, mode | (backslash_escapes ? PG_QUERY_DISABLE_STANDARD_CONFORMING_STRINGS |
                                                 PG_QUERY_DISABLE_ESCAPE_STRING_WARNING
                                           : 0));
    }
#endif
    return pg_query_parse(sql);
}

}  // namespace

namespace {

std::uint64_t mix(std::uint64_t hash, std::uint64_t value) {
    hash = (hash ^ value) * 0x9E3779B97F4A7C15U;
    return hash ^ (hash >> 29U);
}

template <typename Word>
std::uint64_t load(const char* from) {
    Word word;
    std::memcpy(&word, from, sizeof word);
    return word;
}

// Most texts here are short: they are read in two overlapping halves.
std::uint64_t mix(std::uint64_t hash, std::string_view text) {
    const char* from = text.data();
    std::size_t size = text.size();
    hash ^= std::uint64_t{size} << 56U;
    for (; size > 16; size -= 8, from += 8) {
        hash = mix(hash, load<std::uint64_t>(from));
    }
    if (size >= 8) {
        const std::uint64_t end = load<std::uint64_t>(from + size - 8);
        return mix(hash, load<std::uint64_t>(from) + ((end << 23U) | (end >> 41U)));
    }
    if (size >= 4) {
        return mix(hash, load<std::uint32_t>(from) | (load<std::uint32_t>(from + size - 4) << 32U));
    }
    std::uint64_t few = 0;
    for (std::size_t i = 0; i < size; ++i) {
        few = (few << 8U) | static_cast<unsigned char>(from[i]);
    }
    return mix(hash, few);
}

}  // namespace

std::uint64_t fingerprint_of(const Json& tree) {
    constexpr std::uint64_t seed = 0x70676368;
    std::uint64_t hash = seed;
    JsonObject object;
    if (tree.get(object) == simdjson::SUCCESS) {
        for (const auto& [key, value] : object) {
            if (key == "location" || key == "stmt_location" || key == "stmt_len") {
                continue;
            }
            if (key == "A_Const" || key == "ParamRef") {
                return mix(seed, 2U);
            }
            hash = mix(mix(hash, key), fingerprint_of(value));
        }
        return hash;
    }
    JsonArray array;
    if (tree.get(array) == simdjson::SUCCESS) {
        std::uint64_t before = 0;
        for (const Json item : array) {
            const std::uint64_t one = fingerprint_of(item);
            if (one != before) {
                hash = mix(hash, one);
            }
            before = one;
        }
        return mix(hash, 1U);
    }
    std::string_view text;
    std::int64_t number = 0;
    bool truth = false;
    if (tree.get(text) == simdjson::SUCCESS) {
        return mix(hash, text);
    }
    if (tree.get(number) == simdjson::SUCCESS) {
        return mix(hash, static_cast<std::uint64_t>(number));
    }
    return tree.get(truth) == simdjson::SUCCESS ? mix(hash, truth ? 3U : 4U) : hash;
}

struct ParseTree::Reader {
    simdjson::dom::parser parser;
    std::string text;
    std::array<char, 8 * 1024> small;  // holds most trees; larger ones stay where they are
    std::size_t capacity = 0;

    bool too_large() const {
        return capacity > kept_buffer_bytes || text.capacity() > kept_buffer_bytes;
    }
};

// A statement inside a statement (a function's body) is read while the outer tree is still in use,
// so that there are several readers.
struct ParseTree::Readers {
    std::vector<std::unique_ptr<Reader>> free;
};

ParseTree::Readers& ParseTree::readers() {
    static thread_local Readers kept;
    return kept;
}

ParseTree::ParseTree(std::string_view sql, Kind kind, bool backslash_escapes, int mode) {
#ifndef PG_QUERY_DISABLE_STANDARD_CONFORMING_STRINGS
    if (mode != 0 || (backslash_escapes && sql.find('\\') != std::string_view::npos)) {
        error_ = "this version of the parser cannot read it";
        return;
    }
#endif
    auto& free = readers().free;
    if (free.empty()) {
        reader_ = std::make_unique<Reader>();
    } else {
        reader_ = std::move(free.back());
        free.pop_back();
    }
    reader_->text.assign(sql);  // the parser wants a NUL behind it
    ParsedJson parsed = kind == Kind::sql
                            ? ParsedJson(parse_sql(reader_->text.c_str(), backslash_escapes, mode))
                            : ParsedJson(pg_query_parse_plpgsql(reader_->text.c_str()));
    if (parsed.error() != nullptr || parsed.json() == nullptr) {
        const char* message = parsed.error() != nullptr ? parsed.error()->message : nullptr;
        error_ = message != nullptr && *message != '\0' ? message : "the parser gave no answer";
        return;
    }
    const std::size_t length = std::strlen(parsed.json());
    constexpr const char* no_memory = "there is not enough memory to read the parse tree";
    const char* json = reader_->small.data();
    if (length + simdjson::SIMDJSON_PADDING <= reader_->small.size()) {
        std::memcpy(reader_->small.data(), parsed.json(), length);
    } else if (parsed.pad(length)) {
        json = parsed.json();
    } else {
        error_ = no_memory;
        return;
    }
    // parse() would grow the parser itself, but then forgets the depth.
    if (reader_->capacity < length) {
        const std::size_t capacity = std::max<std::size_t>(length, 16 * 1024);
        if (reader_->parser.allocate(capacity, max_tree_depth) != simdjson::SUCCESS) {
            reader_->capacity = 0;
            error_ = no_memory;
            return;
        }
        reader_->capacity = capacity;
    }
    const auto failed = reader_->parser.parse(json, length, false).get(root_);
    if (failed == simdjson::DEPTH_ERROR) {
        error_ = "it is nested too deeply";
    } else if (failed != simdjson::SUCCESS) {
        error_ = std::string("its parse tree cannot be read: ") + simdjson::error_message(failed);
    }
}

ParseTree::~ParseTree() {
    if (reader_ && !reader_->too_large()) {
        readers().free.push_back(std::move(reader_));
    }
}

std::string_view grammar_version() { return PG_VERSION; }

int grammar_major_version() { return PG_VERSION_NUM / 10000; }

}  // namespace pgchaperone::policy
