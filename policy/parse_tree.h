#pragma once
// PostgreSQL's own parser behind values: text in, a tree of JSON nodes out. This header and its
// .cpp are the only place that knows libpg_query. Knows nothing of what a statement means.

#include "policy/parse_node.h"

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

namespace pgchaperone::policy {

// How deep the tree may be, in levels of JSON; an operator takes two. What is deeper is an error.
inline constexpr std::size_t max_tree_depth = 24'000;

// A parse tree, or the reason why there is none. Its nodes live as long as it does. Kept per thread
// and used again: must be destroyed on the thread that made it.
class ParseTree {
public:
    enum class Kind { sql, plpgsql };

    // `sql`: UTF-8. `backslash_escapes`: standard_conforming_strings is off.
    // For Kind::plpgsql, `sql` is a whole CREATE FUNCTION or DO statement. `mode` is the parser's,
    // as PL/pgSQL's trees name it: 0 for statements, 2 for an expression, 3 to 5 for an assignment.
    ParseTree(std::string_view sql, Kind kind, bool backslash_escapes, int mode = 0);
    ~ParseTree();
    ParseTree(const ParseTree&) = delete;
    ParseTree& operator=(const ParseTree&) = delete;

    bool ok() const { return error_.empty(); }
    const std::string& error() const { return error_; }
    Json root() const { return root_; }

private:
    struct Reader;
    struct Readers;
    static Readers& readers();

    std::unique_ptr<Reader> reader_;
    Json root_;
    std::string error_;
};

// The same for statements that differ in their constants and parameters only, and in the length of
// lists of them. Not the fingerprint of libpg_query, and not the same from one grammar version to
// the next.
std::uint64_t fingerprint_of(const Json& tree);

}  // namespace pgchaperone::policy
