#pragma once
// Messages as lines for people. Built on the field visitors of messages.h, so it shows what the
// decoder reads. Takes any garbage: what can't be read is said to be malformed, with the fields
// that came before the fault. Long texts and lists are cut. Passwords, SASL and GSSAPI data and
// cancel keys are never shown; statements and values are, so a dump is as confidential as the data.

#include "protocol/catalog.h"

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

namespace pgchaperone::protocol {

// One line without line end for a message of the phase after startup: `Query query="SELECT 1"`.
std::string dump(Side from, std::string_view message);

// The same for a packet of the startup phase.
std::string dump_startup(std::string_view packet);

// Dumps what one side sent, from the beginning of the connection or from any message after startup
// on. Chunking does not matter. Messages are kept whole up to max_shown bytes; longer ones are
// named and skipped, so memory stays bounded. Where TLS or GSSAPI encryption begins, the rest is
// counted as opaque.
class StreamDumper {
public:
    // Takes the offset of a message's first byte in the stream, and its line.
    using Sink = std::function<void(std::uint64_t offset, std::string_view line)>;

    static constexpr std::size_t max_shown = std::size_t{16} << 20;

    StreamDumper(Side from, Sink sink);

    // Tells two dumpers that they see the two sides of one connection. Without it the answer to an
    // SSLRequest is guessed from what can't be a message. Both must live as long as either is fed.
    static void pair(StreamDumper& frontend, StreamDumper& backend);

    // Dumps what is complete by now.
    void feed(std::string_view chunk);
    // The stream is over: reports a message that was cut.
    void finish();

    // A line said "malformed". Where the fault was in the framing, nothing after it is read.
    bool malformed() const { return malformed_; }
    // Where the first fault was: offset of the message in the stream.
    std::uint64_t malformed_offset() const { return malformed_offset_; }

private:
    enum class Phase : std::uint8_t {
        startup,  // packets of the frontend, answers of the backend
        messages,
        opaque,  // encrypted
        closed,  // behind a packet that ends the stream, or lost
    };

    std::size_t step(std::string_view bytes, bool at_end);
    std::size_t step_startup(std::string_view bytes, bool at_end);
    std::size_t step_answer(std::string_view bytes, bool at_end);
    std::size_t step_message(std::string_view bytes);
    void go_opaque(std::string_view what);
    void fault(std::string_view line);
    void emit(std::string_view line) { sink_(offset_, line); }

    const Side from_;
    Sink sink_;
    StreamDumper* peer_ = nullptr;
    Phase phase_ = Phase::startup;
    unsigned answers_due_ = 0;   // by the backend, where the frontend is known
    std::string pending_;        // an incomplete message
    std::uint64_t offset_ = 0;   // in the stream, of the first byte of pending_
    std::uint64_t to_skip_ = 0;  // bytes of a message too long to show
    bool malformed_ = false;
    std::uint64_t malformed_offset_ = 0;
};

}  // namespace pgchaperone::protocol
