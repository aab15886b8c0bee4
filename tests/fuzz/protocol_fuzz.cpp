// Any bytes, as a stream of either side and as the body of every message. What must hold:
// - nothing is read outside the input (the sanitizers see to that);
// - a body is refused, or it is exactly what the message that was read from it would be written as;
// - peeks agree with decodes;
// - cutting a stream into other pieces changes nothing in what is read;
// - a dumped line holds no control characters.

#include "fuzz/driver.h"

#include "protocol/dumper.h"
#include "protocol/head.h"
#include "protocol/peek.h"
#include "protocol/startup.h"
#include "support/messages.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

namespace pgchaperone::protocol {
namespace {

void require(bool holds, std::string_view what) {
    if (holds) return;
    std::fprintf(stderr, "does not hold: %.*s\n", static_cast<int>(what.size()), what.data());
    std::abort();
}

template <class M>
void check_body(std::string_view body) {
    const Result<M> message = decode<M>(body);
    if (!message) return;
    std::string again;
    const Result<void> written = encode(*message, again);
    // A body longer than its kind may be never gets here by way of read_head().
    if (!written && written.error() == Error::message_too_long) return;
    require(written.has_value(), "what was decoded can be encoded");
    const std::size_t head = has_tag<M> ? head_size : 4;
    require(std::string_view{again}.substr(head) == body, "decoding and encoding give the same");
}

void check_peeks(std::string_view body) {
    require(peek_parse(body).has_value() == decode<Parse>(body).has_value(),
            "a peek at a Parse is as strict as a decode");
    const Result<Bind> bind = decode<Bind>(body);
    if (bind) {
        const Result<BindHead> head = peek_bind(body);
        require(head && head->portal == bind->portal && head->statement == bind->statement,
                "a peek at a Bind agrees with the decode");
    }
    const Result<ErrorResponse> error = decode<ErrorResponse>(body);
    if (error) {
        const Result<Value> field = peek_error_field(body, 'C');
        require(field && *field == error->find('C'), "a peek at an error agrees with the decode");
    }
}

using Lines = std::vector<std::string>;

Lines lines_of(Side side, std::string_view stream, std::size_t chunk_size) {
    Lines lines;
    StreamDumper dumper{side, [&](std::uint64_t offset, std::string_view line) {
                            lines.push_back(std::to_string(offset) + ' ' + std::string{line});
                        }};
    while (!stream.empty()) {
        const std::string_view chunk = stream.substr(0, chunk_size);
        dumper.feed(chunk);
        stream.remove_prefix(chunk.size());
    }
    dumper.finish();
    return lines;
}

void check_stream(Side side, std::string_view stream) {
    const Lines whole = lines_of(side, stream, std::max<std::size_t>(stream.size(), 1));
    for (const std::string& line : whole) {
        const bool clean = std::none_of(line.begin(), line.end(), [](char c) {
            return static_cast<unsigned char>(c) < 0x20 || c == 0x7F;
        });
        require(clean, "a dumped line holds no control characters");
    }
    for (const std::size_t chunk_size : {std::size_t{1}, std::size_t{7}}) {
        require(lines_of(side, stream, chunk_size) == whole, "chunking does not matter");
    }
}

void check_startup(std::string_view bytes) {
    const Result<std::optional<StartupPacket>> whole = parse_startup(bytes);
    if (!whole || !*whole) return;
    const std::size_t size = (*whole)->size;
    require(size <= bytes.size(), "a startup packet ends where its bytes end");
    if (size == 0) return;
    const Result<std::optional<StartupPacket>> cut = parse_startup(bytes.substr(0, size - 1));
    require(cut && !*cut, "a startup packet without its last byte needs more");
}

// The target: see the top of the file.
void check_all(std::string_view input) {
    const auto check = [&]<class M>() { check_body<M>(input); };
    StartupPackets::for_each(check);
    FrontendMessages::for_each(check);
    BackendMessages::for_each(check);
    check_peeks(input);
    check_startup(input);
    check_stream(Side::frontend, input);
    check_stream(Side::backend, input);
    require(!dump(Side::frontend, input).empty(), "every input is dumped as something");
    require(!dump_startup(input).empty(), "every input is dumped as something");
}

std::string seed(test::Random& random) {
    using test::random_message_of;
    std::string input;
    if (random.one_in(4)) input += random_message_of<StartupPackets>(random);
    const bool frontend = random.one_in(2);
    for (std::size_t n = random.below(4); n > 0; --n) {
        input += frontend ? random_message_of<FrontendMessages>(random)
                          : random_message_of<BackendMessages>(random);
    }
    // Now and then a body alone: it is tried as every kind's.
    if (random.one_in(2) && input.size() >= head_size) input.erase(0, head_size);
    return input;
}

}  // namespace
}  // namespace pgchaperone::protocol

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    pgchaperone::protocol::check_all({reinterpret_cast<const char*>(data), size});
    return 0;
}

std::string pgchaperone_fuzz_seed(pgchaperone::test::Random& random) {
    return pgchaperone::protocol::seed(random);
}
