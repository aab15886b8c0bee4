#pragma once
// Reads an audit log back and checks its chain: each line's `seq` follows the one before, each
// line's `prev` is the SHA-256 of the line before. It finds a line that was edited, removed,
// inserted or moved, and a torn last line. What no chain can show by itself is that lines were cut
// off at the end, that the last line was edited, or that the whole was written anew: for that give
// a head that was noted elsewhere. Signed checkpoints show the last, but for the lines behind them.
// Where the log itself tells that something is missing, the chain is in order: that is told, too.

#include "audit/chain.h"
#include "audit/line_reader.h"
#include "audit/signature.h"

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace pgchaperone::audit {

struct Verification {
    enum class Outcome : std::uint8_t {
        intact,
        broken,      // `line` and `problem` say where and how
        unreadable,  // the file can't be opened or read: `problem` says why
    };
    Outcome outcome = Outcome::intact;
    std::uint64_t line = 0;          // of the file, from 1; where it is broken
    std::string problem;             // a sentence
    std::uint64_t lines = 0;         // that are in order
    ChainPoint begin;                // what the first line says stood before it
    ChainPoint head;                 // the last line in order
    bool contains_expected = false;  // the line that `expected` names is there, unchanged
    // Where the line that is broken says that it follows another line than the one before it.
    std::optional<ChainPoint> claimed;
    // Where the log says of itself that it is not whole (`torn`, `refused`, `changed`).
    struct Admission {
        std::uint64_t line = 0;
        std::string words;  // printable
    };
    static constexpr std::size_t admissions_max = 100;
    std::vector<Admission> admissions;
    std::uint64_t more_admissions = 0;
};

// What signed checkpoints say of a log's lines, from file to file. A checkpoint speaks for the
// lines from the number that it names up to itself, and for no others: a process vouches for what
// it has written, and not for what it has found.
struct SignatureCheck {
    std::vector<Key> keys;  // any of which may have signed
    struct Stretch {
        std::uint64_t first = 0;
        std::uint64_t last = 0;
    };
    // No checkpoint speaks for these, and one comes later: their process was killed, or had no key;
    // or somebody wrote them anew.
    std::vector<Stretch> unsigned_lines;
    std::uint64_t checkpoints = 0;
    bool begun = false;
    std::uint64_t looked_at = 0;  // the number of the last line that is in one or the other
};

// `after`: the head of the file before (rotation): the first line must follow it. Without it the
// first line may start anywhere in the chain. `expected`: a head that was noted earlier; look for
// it. `signatures`: check those of checkpoints, too.
Verification verify(LineReader& file, const std::optional<ChainPoint>& after = {},
                    const std::optional<ChainPoint>& expected = {},
                    SignatureCheck* signatures = nullptr);
Verification verify(const std::filesystem::path& file, const std::optional<ChainPoint>& after = {},
                    const std::optional<ChainPoint>& expected = {},
                    SignatureCheck* signatures = nullptr);

// Where the line of this hash stands: what claims to follow it, and does not, is a fork.
struct LinePosition {
    std::filesystem::path file;
    std::uint64_t line = 0;  // from 1
};
std::optional<LinePosition> find_line(const std::vector<std::filesystem::path>& files,
                                      const std::string& hash);

}  // namespace pgchaperone::audit
