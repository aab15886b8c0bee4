#include "protocol/dumper.h"

#include "protocol/codec.h"
#include "protocol/head.h"
#include "protocol/peek.h"
#include "protocol/startup.h"

#include <algorithm>
#include <optional>
#include <utility>

namespace pgchaperone::protocol {
namespace {

constexpr std::size_t max_text_shown = 200;   // bytes
constexpr std::size_t max_binary_shown = 32;  // bytes
constexpr std::size_t max_elements_shown = 32;

constexpr std::string_view hex_digits = "0123456789abcdef";

void append_hex(std::string& out, unsigned char byte) {
    out += hex_digits[byte >> 4];
    out += hex_digits[byte & 0xF];
}

// The well-formed UTF-8 character at the front: its size and code point; size 0 where there is
// none.
struct Character {
    std::size_t size = 0;
    char32_t code_point = 0;
};

Character character_at(std::string_view text) {
    const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
    const unsigned char first = byte(0);
    if (first < 0x80) return {1, first};
    const std::size_t size = first >= 0xC2 && first < 0xE0   ? 2
                             : first >= 0xE0 && first < 0xF0 ? 3
                             : first >= 0xF0 && first < 0xF5 ? 4
                                                             : 0;
    if (size == 0 || text.size() < size) return {};
    char32_t code_point = first & (0xFFU >> (size + 1));
    for (std::size_t i = 1; i < size; ++i) {
        if ((byte(i) & 0xC0) != 0x80) return {};
        code_point = code_point << 6 | (byte(i) & 0x3FU);
    }
    const bool overlong = (size == 3 && code_point < 0x800) || (size == 4 && code_point < 0x10000);
    const bool surrogate = code_point >= 0xD800 && code_point <= 0xDFFF;
    if (overlong || surrogate || code_point > 0x10FFFF) return {};
    return {size, code_point};
}

// Characters that a terminal would act upon, or that would show the text in another order than it
// stands.
bool is_harmless(char32_t c) {
    const bool control = c < 0x20 || (c >= 0x7F && c < 0xA0);
    const bool reorders = c == 0x200E || c == 0x200F || c == 0x061C ||
                          (c >= 0x2028 && c <= 0x202E) || (c >= 0x2066 && c <= 0x2069);
    return !control && !reorders;
}

bool is_text(std::string_view bytes) {
    bytes = bytes.substr(0, max_text_shown);
    while (!bytes.empty()) {
        const Character c = character_at(bytes);
        if (c.size == 0) return bytes.size() < 4;  // perhaps a character cut in half by us
        const bool white = c.code_point == '\n' || c.code_point == '\r' || c.code_point == '\t';
        if (!white && !is_harmless(c.code_point)) return false;
        bytes.remove_prefix(c.size);
    }
    return true;
}

void append_cut_note(std::string& out, std::size_t size) {
    out += "... (" + std::to_string(size) + " bytes)";
}

void append_quoted(std::string& out, std::string_view text, char quote = '"') {
    out += quote;
    std::size_t at = 0;
    while (at < text.size() && at < max_text_shown) {
        const Character c = character_at(text.substr(at));
        const char first = text[at];
        if (c.size > 0 && is_harmless(c.code_point)) {
            if (first == quote || first == '\\') out += '\\';
            out += text.substr(at, c.size);
        } else if (first == '\n') {
            out += "\\n";
        } else if (first == '\r') {
            out += "\\r";
        } else if (first == '\t') {
            out += "\\t";
        } else {
            for (const char b : text.substr(at, std::max<std::size_t>(c.size, 1))) {
                out += "\\x";
                append_hex(out, static_cast<unsigned char>(b));
            }
        }
        at += std::max<std::size_t>(c.size, 1);
    }
    out += quote;
    if (at < text.size()) append_cut_note(out, text.size());
}

void append_data(std::string& out, std::string_view data) {
    if (is_text(data)) return append_quoted(out, data);
    out += "0x";
    for (const char b : data.substr(0, max_binary_shown)) {
        append_hex(out, static_cast<unsigned char>(b));
    }
    if (data.size() > max_binary_shown) append_cut_note(out, data.size());
}

void append_version(std::string& out, Int32 version) {
    const auto bits = static_cast<std::uint32_t>(version);
    out += std::to_string(bits >> 16) + "." + std::to_string(bits & 0xFFFF);
}

// The field visitor that decodes and writes down what it read, up to the first fault.
class FieldDumper {
public:
    FieldDumper(std::string_view body, std::string& line) : fields_(body), out_(line) {}

    const Reader& in() const { return fields_.in; }

    void byte1(std::string_view name, char& x) {
        fields_.byte1(name, x);
        if (begin(name)) append_quoted(out_, {&x, 1}, '\'');
    }
    void int8(std::string_view name, Int8& x) {
        fields_.int8(name, x);
        if (begin(name)) out_ += std::to_string(x);
    }
    void int16(std::string_view name, Int16& x) {
        fields_.int16(name, x);
        if (begin(name)) out_ += std::to_string(x);
    }
    void int32(std::string_view name, Int32& x) {
        fields_.int32(name, x);
        if (begin(name)) out_ += std::to_string(x);
    }
    void version(std::string_view name, Int32& x) {
        fields_.version(name, x);
        if (begin(name)) append_version(out_, x);
    }
    void string(std::string_view name, std::string_view& x) {
        fields_.string(name, x);
        if (begin(name)) append_quoted(out_, x);
    }
    void bytes(std::string_view name, std::string_view& x) {
        fields_.bytes(name, x);
        if (begin(name)) append_data(out_, x);
    }
    void fixed(std::string_view name, std::string_view& x, std::size_t n) {
        fields_.fixed(name, x, n);
        if (begin(name)) append_data(out_, x);
    }
    void value(std::string_view name, Value& x) {
        fields_.value(name, x);
        if (!begin(name)) return;
        if (x) {
            append_data(out_, *x);
        } else {
            out_ += "NULL";
        }
    }
    void code(Int32 expected) { fields_.code(expected); }
    void secret_string(std::string_view name, std::string_view& x) {
        fields_.secret_string(name, x);
        if (begin(name)) out_ += "(hidden)";
    }
    void secret_bytes(std::string_view name, std::string_view& x) {
        fields_.secret_bytes(name, x);
        if (begin(name)) out_ += "(hidden)";
    }
    void secret_value(std::string_view name, Value& x) {
        fields_.secret_value(name, x);
        if (begin(name)) out_ += x ? "(hidden)" : "NULL";
    }
    void key(std::string_view name, std::string_view& x) {
        fields_.key(name, x);
        // Its length tells which protocol was negotiated, and gives nothing away.
        if (begin(name)) out_ += "(hidden, " + std::to_string(x.size()) + " bytes)";
    }

    template <class T>
    void counted16(std::string_view name, std::vector<T>& list) {
        dump_list(
            name, [&] { fields_.counted16(name, list); }, list);
    }
    template <class T>
    void counted32(std::string_view name, std::vector<T>& list) {
        dump_list(
            name, [&] { fields_.counted32(name, list); }, list);
    }
    template <class T>
    void until_zero(std::string_view name, std::vector<T>& list) {
        dump_list(
            name, [&] { fields_.until_zero(name, list); }, list);
    }

private:
    // Shows an element that was read already: the fields of a struct one after another, without a
    // decoder.
    class ElementPrinter {
    public:
        explicit ElementPrinter(std::string& line) : out_(line) {}
        void byte1(std::string_view name, char x) {
            begin(name), append_quoted(out_, {&x, 1}, '\'');
        }
        void int16(std::string_view name, Int16 x) { begin(name), out_ += std::to_string(x); }
        void int32(std::string_view name, Int32 x) { begin(name), out_ += std::to_string(x); }
        void string(std::string_view name, std::string_view x) {
            begin(name), append_quoted(out_, x);
        }
        void value(std::string_view name, const Value& x) {
            begin(name);
            if (x) {
                append_data(out_, *x);
            } else {
                out_ += "NULL";
            }
        }

    private:
        void begin(std::string_view name) {
            if (!first_) out_ += ' ';
            first_ = false;
            if (!name.empty()) out_.append(name) += '=';
        }
        std::string& out_;
        bool first_ = true;
    };

    bool begin(std::string_view name) {
        if (!fields_.in.ok()) return false;
        out_ += ' ';
        out_.append(name) += '=';
        return true;
    }

    template <class Read, class T>
    void dump_list(std::string_view name, Read read, std::vector<T>& list) {
        if (!fields_.in.ok()) return;
        read();
        // The last element is the one at which it failed.
        if (!fields_.in.ok() && !list.empty()) list.pop_back();
        if (!fields_.in.ok() && list.empty()) return;
        out_ += ' ';
        out_.append(name) += "=[";
        const std::size_t shown = std::min(list.size(), max_elements_shown);
        for (std::size_t i = 0; i < shown; ++i) {
            if (i > 0) out_ += ", ";
            ElementPrinter printer{out_};
            element(printer, std::as_const(list[i]));
        }
        if (shown < list.size()) out_ += ", ... " + std::to_string(list.size() - shown) + " more";
        out_ += ']';
    }

    FieldDecoder fields_;
    std::string& out_;
};

struct Dumped {
    std::string line;
    bool malformed = false;
};

void append_fault(std::string& line, Error error) {
    line += line.empty() ? "malformed: " : " malformed: ";
    line += make_error_code(error).message();
}

Dumped fault_line(std::string line, Error error) {
    append_fault(line, error);
    return {std::move(line), true};
}

template <class M>
Dumped dump_body(std::string_view body) {
    Dumped result{std::string{name_of<M>()}, false};
    M message;
    FieldDumper fields{body, result.line};
    M::visit(message, fields);
    if (!fields.in().ok()) return fault_line(std::move(result.line), fields.in().error());
    if (fields.in().remaining() != 0) {
        return fault_line(std::move(result.line), Error::trailing_bytes);
    }
    return result;
}

// The letter says only that the client answers an authentication request; the shape says the rest,
// mostly.
Dumped dump_password_body(std::string_view body) {
    const Result<SASLInitialResponse> initial = decode<SASLInitialResponse>(body);
    const bool known_mechanism = initial && (initial->mechanism.starts_with("SCRAM-") ||
                                             initial->mechanism == "OAUTHBEARER");
    if (known_mechanism) return dump_body<SASLInitialResponse>(body);
    if (decode<PasswordMessage>(body)) return dump_body<PasswordMessage>(body);
    return dump_body<SASLResponse>(body);
}

Dumped dump_authentication_body(std::string_view body) {
    const Result<AuthenticationCode> code = peek_authentication(body);
    if (!code) return fault_line("Authentication", Error::truncated);
    std::optional<Dumped> result;
    BackendMessages::for_each([&]<class M>() {
        if constexpr (requires { M::authentication_code; }) {
            if (M::authentication_code == *code) result = dump_body<M>(body);
        }
    });
    if (result) return std::move(*result);
    return fault_line("Authentication code=" + std::to_string(static_cast<Int32>(*code)),
                      Error::unexpected_code);
}

template <class M>
constexpr char tag_from(Side side) {
    if constexpr (requires { M::backend_tag; }) {
        if (side == Side::backend) return static_cast<char>(M::backend_tag);
    }
    return static_cast<char>(M::tag);
}

// The tag is one of that side's.
Dumped dump_tagged_body(Side from, char tag, std::string_view body) {
    const bool backend = from == Side::backend;
    if (!backend && FrontendTag{tag} == FrontendTag::PasswordMessage)
        return dump_password_body(body);
    if (backend && BackendTag{tag} == BackendTag::Authentication) {
        return dump_authentication_body(body);
    }
    Dumped result;
    const auto try_kind = [&]<class M>() {
        if (tag_from<M>(from) == tag) result = dump_body<M>(body);
    };
    if (backend) {
        BackendMessages::for_each(try_kind);
    } else {
        FrontendMessages::for_each(try_kind);
    }
    return result;
}

std::string describe_bad_head(Side from, std::string_view bytes) {
    std::string line;
    if (const MessageKind* kind = find_kind(from, bytes[0])) {
        line = std::string{kind->name};
        line += " length=" + std::to_string(Reader{bytes.substr(1)}.int32());
    } else {
        line = "tag=";
        append_quoted(line, bytes.substr(0, 1), '\'');
    }
    return line;
}

Dumped dump_whole(Side from, std::string_view message) {
    if (message.size() < head_size) return fault_line("", Error::truncated);
    const Result<Head> head = read_head(message, from);
    if (!head)
        return fault_line(describe_bad_head(from, message),
                          static_cast<Error>(head.error().value()));
    if (message.size() > head->total()) {
        Dumped result = dump_tagged_body(from, head->tag,
                                         message.substr(head_size, head->body_size()));
        append_fault(result.line, Error::trailing_bytes);
        return {std::move(result.line), true};
    }
    Dumped result = dump_tagged_body(from, head->tag, message.substr(head_size));
    if (message.size() < head->total() && !result.malformed) {
        // What is there looks like a whole message, but the length says otherwise.
        return fault_line(std::move(result.line), Error::truncated);
    }
    return result;
}

Dumped dump_startup_packet(const StartupPacket& packet, std::string_view bytes) {
    const std::string_view body = bytes.substr(std::min<std::size_t>(4, bytes.size()));
    switch (packet.kind) {
        case StartupPacket::Kind::ssl_request: return dump_body<SSLRequest>(body);
        case StartupPacket::Kind::gssenc_request: return dump_body<GSSENCRequest>(body);
        case StartupPacket::Kind::cancel_request: return dump_body<CancelRequest>(body);
        case StartupPacket::Kind::startup_message: return dump_body<StartupMessage>(body);
        case StartupPacket::Kind::direct_tls: return {"TLS handshake", false};
        case StartupPacket::Kind::unsupported_version: {
            std::string line = "StartupMessage protocol_version=";
            append_version(line, packet.startup.protocol_version);
            return {std::move(line) + " (another major version)", false};
        }
    }
    return {};
}

// Names the packet as far as it can be told from bytes that parse_startup() refused.
std::string describe_bad_startup(std::string_view bytes) {
    std::string line = "startup packet";
    // Where the upper half is not zero these are no startup packets of anyone, and no four bytes
    // were waited for.
    const bool has_length = bytes.size() >= 4 && bytes[0] == '\0' && bytes[1] == '\0';
    if (has_length) line += " length=" + std::to_string(Reader{bytes}.int32());
    return line;
}

}  // namespace

std::string dump(Side from, std::string_view message) { return dump_whole(from, message).line; }

std::string dump_startup(std::string_view bytes) {
    const Result<std::optional<StartupPacket>> packet = parse_startup(bytes);
    if (!packet) {
        return fault_line(describe_bad_startup(bytes), static_cast<Error>(packet.error().value()))
            .line;
    }
    if (!*packet) return fault_line(describe_bad_startup(bytes), Error::truncated).line;
    const StartupPacket& found = **packet;
    Dumped result = dump_startup_packet(found, bytes.substr(0, found.size));
    const bool more = found.kind != StartupPacket::Kind::direct_tls && found.size < bytes.size();
    if (more) append_fault(result.line, Error::trailing_bytes);
    return std::move(result.line);
}

StreamDumper::StreamDumper(Side from, Sink sink) : from_(from), sink_(std::move(sink)) {}

void StreamDumper::pair(StreamDumper& frontend, StreamDumper& backend) {
    frontend.peer_ = &backend;
    backend.peer_ = &frontend;
}

void StreamDumper::feed(std::string_view chunk) {
    const std::uint64_t skipped = std::min<std::uint64_t>(to_skip_, chunk.size());
    to_skip_ -= skipped;
    offset_ += skipped;
    chunk.remove_prefix(static_cast<std::size_t>(skipped));
    if (chunk.empty()) return;

    pending_.append(chunk);
    std::size_t done = 0;
    while (done < pending_.size()) {
        const std::size_t consumed = step(std::string_view{pending_}.substr(done), false);
        if (consumed == 0) break;
        done += consumed;
        offset_ += consumed;
    }
    pending_.erase(0, done);
}

void StreamDumper::finish() {
    std::size_t done = 0;
    while (done < pending_.size()) {
        const std::size_t consumed = step(std::string_view{pending_}.substr(done), true);
        if (consumed == 0) break;
        done += consumed;
        offset_ += consumed;
    }
    pending_.erase(0, done);
    if (!pending_.empty() || to_skip_ > 0) {
        std::string line = "end of stream inside a message";
        if (from_ == Side::frontend && phase_ == Phase::startup) {
            line = "end of stream inside a startup packet";
        } else if (pending_.size() >= head_size) {
            line = "end of stream after " + std::to_string(pending_.size()) + " bytes of " +
                   std::string{find_kind(from_, pending_[0])->name};
        }
        fault(fault_line(std::move(line), Error::truncated).line);
    }
    pending_.clear();
    to_skip_ = 0;
}

// Consumes one item from the front; 0: more bytes are needed.
std::size_t StreamDumper::step(std::string_view bytes, bool at_end) {
    switch (phase_) {
        case Phase::startup:
            return from_ == Side::frontend ? step_startup(bytes, at_end)
                                           : step_answer(bytes, at_end);
        case Phase::messages: return step_message(bytes);
        case Phase::opaque: return bytes.size();
        case Phase::closed:
            if (!malformed_)
                fault(fault_line("behind the last packet", Error::trailing_bytes).line);
            return bytes.size();
    }
    return 0;
}

std::size_t StreamDumper::step_startup(std::string_view bytes, bool) {
    if (offset_ == 0 && bytes[0] != '\0' && find_kind(Side::frontend, bytes[0]) != nullptr) {
        phase_ = Phase::messages;  // recorded from some later moment on
        return step_message(bytes);
    }
    const Result<std::optional<StartupPacket>> packet = parse_startup(bytes);
    if (!packet) {
        fault(fault_line(describe_bad_startup(bytes), static_cast<Error>(packet.error().value()))
                  .line);
        phase_ = Phase::closed;
        return bytes.size();
    }
    if (!*packet) return 0;
    const StartupPacket& found = **packet;
    switch (found.kind) {
        case StartupPacket::Kind::direct_tls:
            go_opaque("TLS handshake: the rest is encrypted");
            return bytes.size();
        case StartupPacket::Kind::ssl_request:
        case StartupPacket::Kind::gssenc_request:
            if (peer_ != nullptr) ++peer_->answers_due_;
            break;
        case StartupPacket::Kind::cancel_request:
        case StartupPacket::Kind::unsupported_version: phase_ = Phase::closed; break;
        case StartupPacket::Kind::startup_message: phase_ = Phase::messages; break;
    }
    emit(dump_startup_packet(found, bytes.substr(0, found.size)).line);
    return found.size;
}

// What a server says before the first message: one letter for each request to encrypt.
std::size_t StreamDumper::step_answer(std::string_view bytes, bool at_end) {
    const char letter = bytes[0];
    const bool could_be_answer = letter == 'S' || letter == 'N' || letter == 'G';
    bool is_answer = could_be_answer && answers_due_ > 0;
    if (could_be_answer && peer_ == nullptr) {
        // The first byte of a length is never this large, except that of a TLS record behind an
        // 'S'; and no server starts a connection with a CopyInResponse.
        if (bytes.size() == 1 && !at_end) return 0;
        const auto next = bytes.size() == 1 ? '\xFF' : bytes[1];
        is_answer = letter == 'G' || static_cast<unsigned char>(next) > 0x40 ||
                    (letter == 'S' && next == tls_handshake_byte);
    }
    if (!is_answer) {
        if (bytes[0] == tls_handshake_byte) {
            go_opaque("TLS handshake: the rest is encrypted");
            return bytes.size();
        }
        phase_ = Phase::messages;
        return step_message(bytes);
    }
    if (answers_due_ > 0) --answers_due_;
    if (letter == 'N') {
        emit("N: no encryption");
        return 1;
    }
    go_opaque(letter == 'S' ? "S: TLS, the rest is encrypted" : "G: GSSAPI, the rest is encrypted");
    if (peer_ != nullptr) peer_->phase_ = Phase::opaque;
    return bytes.size();
}

std::size_t StreamDumper::step_message(std::string_view bytes) {
    if (bytes.size() < head_size) {
        // An unknown tag needs no length to be wrong.
        if (find_kind(from_, bytes[0]) != nullptr) return 0;
        fault(fault_line(describe_bad_head(from_, bytes), Error::unknown_message).line);
        phase_ = Phase::closed;
        return bytes.size();
    }
    const Result<Head> head = read_head(bytes, from_);
    if (!head) {
        fault(fault_line(describe_bad_head(from_, bytes), static_cast<Error>(head.error().value()))
                  .line);
        phase_ = Phase::closed;
        return bytes.size();
    }
    if (head->total() > max_shown) {
        emit(std::string{find_kind(from_, head->tag)->name} +
             " length=" + std::to_string(head->length) + " (too long to show)");
        const std::size_t here = std::min(bytes.size(), head->total());
        to_skip_ = head->total() - here;
        return here;
    }
    if (bytes.size() < head->total()) return 0;
    Dumped result = dump_whole(from_, bytes.substr(0, head->total()));
    if (result.malformed) {
        fault(result.line);
    } else {
        emit(result.line);
    }
    return head->total();
}

void StreamDumper::go_opaque(std::string_view what) {
    emit(what);
    phase_ = Phase::opaque;
}

void StreamDumper::fault(std::string_view line) {
    if (!malformed_) malformed_offset_ = offset_;
    malformed_ = true;
    emit(line);
}

}  // namespace pgchaperone::protocol
