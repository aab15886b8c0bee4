#pragma once
// `pgchaperone decode`: prints a recorded stream of the protocol as readable messages. What it
// reads is described in docs/decode.md; how a message looks is protocol/dumper.h's.

#include "protocol/catalog.h"

#include <iosfwd>
#include <optional>
#include <string_view>

namespace CLI {
class App;
}

namespace pgchaperone::cli {

// Exit statuses, as for the other subcommands.
inline constexpr int decode_ok = 0;
inline constexpr int decode_malformed = 1;  // the stream holds something that is no message
inline constexpr int decode_trouble = 2;    // the input can't be read as a recording

// Decodes all of `in`: raw bytes of that side where one is given; else the two-sided text format,
// or raw bytes that begin like a client's. Lines go to `out` while it reads, complaints to `err`,
// both naming `source`. Returns the exit status.
int decode(std::istream& in, std::string_view source, std::optional<protocol::Side> side,
           std::ostream& out, std::ostream& err);

// Adds `decode` to the subcommands of `app`; where it is the one called, `status` becomes its exit
// status.
void add_decode(CLI::App& app, int& status);

// The subcommand on its own, argv[0] being its name.
int decode_main(int argc, char** argv);

}  // namespace pgchaperone::cli
