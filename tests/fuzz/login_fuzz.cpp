// Any bytes from who is about to log in: a load balancer's header, requests for encryption, startup
// packets and SCRAM; and any text as the file of who may. What must hold:
// - where pgchaperone checks the passwords the server is connected to only for somebody who is
//   known and whose proof is right, and hears of nobody before;
// - nobody comes in unencrypted where encryption is required;
// - how the bytes are cut into chunks changes nothing;
// - the users that a text names are read again from what is written of them.
//
// The input is a byte of options (0xFF: the rest is a text of users), then what the client sends
// without waiting, turn by turn: two bytes of length, and bytes. TLS itself is not here: what
// follows in a turn behind the beginning of a handshake belongs to that, and is passed over.

#include "fuzz/driver.h"
#include "support/session_host.h"

#include "protocol/peek.h"
#include "protocol/startup.h"
#include "proxy/net/proxy_header.h"
#include "proxy/session/scram_parts.h"
#include "proxy/session/users.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

using namespace pgchaperone;
using namespace pgchaperone::test;

namespace {

constexpr std::uint8_t users_text = 0xFF;
constexpr std::string_view exchange_nonce = "cGdjaGFwZXJvbmUgaGVyZQ==";
constexpr std::string_view salt = "0123456789abcdef";
constexpr std::uint32_t iterations = 2;
const std::string endpoint_hash(32, '\x5A');

void require(bool holds, const char* what) {
    if (holds) return;
    std::fprintf(stderr, "violated: %s\n", what);
    std::abort();
}

struct Options {
    bool tls_offered = false, tls_required = false;
    bool passthrough = false;     // else authentication: users
    bool load_balancer = false;   // the bytes begin with its header
    bool endpoint_known = false;  // there is something to bind SCRAM to, once there is TLS
    std::size_t piece = 1;

    explicit Options(std::uint8_t byte)
        : tls_offered((byte & 1) != 0),
          tls_required((byte & 3) == 3),
          passthrough((byte & 28) == 28),
          load_balancer((byte & 4) != 0),
          endpoint_known((byte & 8) != 0),
          piece(1 + byte / 32) {}
};

const session::ScramVerifier& verifier_of_alice() {
    static const auto verifier = session::ScramVerifier::make("secret", salt, iterations).value();
    return verifier;
}

std::shared_ptr<const session::Users> users() {
    static const auto known = std::make_shared<const session::Users>(
        session::Users::parse_users(session::user_line("alice", verifier_of_alice().text()),
                                    "chance")
            .value());
    return known;
}

// --- Who may come in, worked out from the password and not from the verifier.

// Takes a SASL message off the front; nothing where none stands there.
template <class Message>
std::optional<Message> take_sasl(std::string_view& bytes) {
    const auto head = bytes.size() < protocol::head_size
                          ? protocol::Result<protocol::Head>(protocol::Error::unknown_message)
                          : protocol::read_head(bytes, protocol::Side::frontend);
    if (!head || head->tag != 'p' || bytes.size() < head->total()) return std::nullopt;
    const auto message = protocol::decode<Message>(
        bytes.substr(protocol::head_size, head->body_size()));
    bytes.remove_prefix(head->total());
    if (!message) return std::nullopt;
    return *message;
}

bool proof_is_right(const protocol::SASLInitialResponse& initial, std::string_view final,
                    bool able) {
    namespace scram = session::scram;
    const std::string_view first = initial.data.value_or("");
    const bool bound = initial.mechanism == scram::sha_256_plus_name;
    const std::string_view gs2 = bound  ? "p=tls-server-end-point,,"
                                 : able ? "n,,"
                                        : first.substr(0, 3);
    if (bound && !able) return false;
    if (!bound && gs2 != "n,," && gs2 != "y,,") return false;
    if (!first.starts_with(gs2)) return false;
    const std::string bare(first.substr(gs2.size()));
    const std::size_t nonce_at = bare.find(",r=");
    if (nonce_at == bare.npos) return false;
    const std::string nonce = bare.substr(nonce_at + 3,
                                          bare.find(',', nonce_at + 3) - nonce_at - 3) +
                              std::string(exchange_nonce);
    const std::string server_first = "r=" + nonce + ",s=" + scram::to_base64(salt) +
                                     ",i=" + std::to_string(iterations);

    const std::size_t proof_at = final.rfind(",p=");
    if (proof_at == final.npos) return false;
    const std::string without_proof(final.substr(0, proof_at));
    const std::string begin = "c=" +
                              scram::to_base64(std::string(gs2) +
                                               (bound ? endpoint_hash : std::string())) +
                              ",r=" + nonce;
    if (!(without_proof + ",").starts_with(begin + ",")) return false;

    static const session::Secret salted = scram::salted_password("secret", salt, iterations);
    const session::Secret key = scram::hmac(salted.view(), "Client Key");
    const session::Secret stored = scram::sha_256(key.view());
    const session::Secret signature = scram::hmac(stored.view(),
                                                  bare + "," + server_first + "," + without_proof);
    std::string proof(key.view());
    for (std::size_t i = 0; i < proof.size(); ++i)
        proof[i] = static_cast<char>(proof[i] ^ signature.view()[i]);
    return final.substr(proof_at + 3) == scram::to_base64(proof);
}

// `said`: what has come over the connection as it is now. `able`: it can be bound to.
bool may_come_in(std::string_view said, bool able) {
    using Kind = protocol::StartupPacket::Kind;
    for (;;) {
        const auto packet = protocol::parse_startup(said);
        if (!packet || !*packet) return false;
        said.remove_prefix((*packet)->size);
        if ((*packet)->kind == Kind::ssl_request || (*packet)->kind == Kind::gssenc_request)
            continue;
        if ((*packet)->kind != Kind::startup_message) return false;
        if ((*packet)->startup.find("user") != "alice") return false;
        break;
    }
    const auto initial = take_sasl<protocol::SASLInitialResponse>(said);
    const auto final = initial ? take_sasl<protocol::SASLResponse>(said) : std::nullopt;
    return final && proof_is_right(*initial, final->data, able);
}

// --- A login.

class Login {
public:
    explicit Login(const Options& options) : options_(options), host_(setup_of(options)) {
        if (options.load_balancer) header_.emplace();
    }

    void turn(std::string_view bytes, std::size_t piece) {
        if (piece == 0) piece = bytes.size();
        while (!bytes.empty()) {
            const std::string chunk(bytes.substr(0, piece));
            bytes.remove_prefix(chunk.size());
            received(chunk);
        }
        if (!handshake_) return;
        handshake_ = false;
        tls_ = true;
        said_.clear();
        host_.event(session::ClientTlsReady{options_.endpoint_known ? endpoint_hash : "", {}});
    }

    struct Outcome {
        std::string to_server, to_client;
        std::vector<std::string> milestones;
        std::string user, address;
        bool let_in = false, no_header = false;
        bool operator==(const Outcome&) const = default;
    };
    Outcome outcome() {
        const policy::SessionFacts& facts = host_.session.facts();
        return {host_.to_server(), host_.to_client(), host_.milestones, facts.user,
                facts.client.text, let_in_,           no_header_};
    }

private:
    static session::Setup setup_of(const Options& options) {
        session::Setup setup;
        setup.tls_offered = options.tls_offered;
        setup.tls_required = options.tls_required;
        if (options.passthrough) return setup;
        setup.upstream->authentication = session::Authentication::users;
        setup.upstream->users = users();
        setup.exchange_nonce = exchange_nonce;
        return setup;
    }

    // As net::Connection does it.
    void received(std::string_view chunk) {
        if (!header_) return client(chunk);
        *header_ += chunk;
        const net::ProxyHeader header = net::read_proxy_header(*header_);
        require(header.wrong.empty() || !header.complete, "a wrong header is none");
        no_header_ = no_header_ || !header.wrong.empty();
        if (no_header_ || !header.complete) return;
        require(header.size <= header_->size(), "a header is where its bytes are");
        if (header.source) host_.session.comes_from(*header.source);
        const std::string whole = *std::exchange(header_, std::nullopt);
        client(std::string_view(whole).substr(header.size));
    }

    void client(std::string_view chunk) {
        if (host_.closed || handshake_ || chunk.empty()) return;
        said_ += chunk;
        const std::size_t before = host_.milestones.size();
        host_.client(chunk);
        for (std::size_t i = before; i < host_.milestones.size(); ++i) {
            const std::string what = host_.milestones[i];
            handshake_ = handshake_ || what.starts_with("StartTls");
            if (what == "Connect") connect();
        }
        require(let_in_ || host_.sent_to_server.empty(), "the server hears of nobody before");
    }

    void connect() {
        let_in_ = true;
        if (!host_.connects_to_cancel) {
            require(tls_ || !options_.tls_required, "encryption is required of everybody");
            require(options_.passthrough || may_come_in(said_, tls_ && options_.endpoint_known),
                    "who comes in has proved who they are");
        }
        host_.event(session::Connected{true, {}, false, {}});
        if (host_.connects_to_cancel) return;
        host_.server(
            protocol::encoded(protocol::AuthenticationOk{}) +
            protocol::encoded(protocol::ParameterStatus{"standard_conforming_strings", "on"}) +
            protocol::encoded(protocol::ParameterStatus{"client_encoding", "UTF8"}) + ready());
    }

    const Options options_;
    SessionHost host_;
    std::optional<std::string> header_;  // of the load balancer, as far as it has come
    std::string said_;                   // by the client, since the connection is as it is
    bool handshake_ = false, tls_ = false, let_in_ = false, no_header_ = false;
};

std::vector<std::string> turns_of(std::string_view input) {
    std::vector<std::string> turns;
    while (input.size() >= 2) {
        const std::size_t length = static_cast<unsigned char>(input[0]) << 8 |
                                   static_cast<unsigned char>(input[1]);
        input.remove_prefix(2);
        turns.emplace_back(input.substr(0, length));
        input.remove_prefix(turns.back().size());
    }
    return turns;
}

Login::Outcome play(const Options& options, const std::vector<std::string>& turns,
                    std::size_t piece) {
    Login login(options);
    for (const std::string& turn : turns) login.turn(turn, piece);
    return login.outcome();
}

void check_login(std::string_view input) {
    const Options options(static_cast<std::uint8_t>(input.front()));
    const std::vector<std::string> turns = turns_of(input.substr(1));
    const Login::Outcome whole = play(options, turns, 0);
    const Login::Outcome cut = play(options, turns, options.piece);
    // Here alone it counts what has come at the same time: bytes behind a request for encryption
    // were sent by somebody who has not waited for the answer.
    if (!whole.milestones.empty() &&
        whole.milestones.back() == "Close: unencrypted data after a request for encryption")
        return;
    require(cut == whole, "chunks do not matter");
}

// --- Texts of users.

void check_users(std::string_view text) {
    const auto lines = session::read_user_lines(text);
    const auto known = session::Users::parse_users(text, "chance");
    if (lines.has_error()) {
        const auto ends = static_cast<std::size_t>(std::count(text.begin(), text.end(), '\n'));
        require(lines.error().line >= 1 && lines.error().line <= ends + 1, "a problem has a line");
        require(!lines.error().text.empty(), "a problem is told");
        require(known.has_error(), "what can't be read names nobody");
        return;
    }
    std::string again;
    for (const session::UserLine& line : *lines)
        again += session::user_line(line.name, line.secret.view()) + "\n";
    const auto read_again = session::read_user_lines(again);
    require(read_again && read_again->size() == lines->size(), "what is written is read again");
    for (std::size_t i = 0; i < lines->size(); ++i) {
        const session::UserLine& one = (*lines)[i];
        const session::UserLine& other = (*read_again)[i];
        require(one.name == other.name && one.secret.view() == other.secret.view(),
                "what is written is read again as the same");
    }
    if (known.has_error()) return;
    require(known->size() == lines->size(), "every line names somebody");
    for (const session::UserLine& line : *lines) {
        const auto [verifier, is_known] = known->find(line.name);
        require(is_known, "who is named is known");
        require(session::ScramVerifier::parse(verifier.text()).has_value(),
                "a verifier that was read can be read");
        require(!known->find(line.name + "x").second || lines->size() > 1, "nobody else is known");
    }
}

// --- Inputs that make sense.

std::string turn(std::string_view bytes) {
    std::string out(1, static_cast<char>(bytes.size() >> 8));
    out += static_cast<char>(bytes.size() & 0xFF);
    return out += bytes;
}

std::string proxy_header(Random& random) {
    std::string out("\r\n\r\n\0\r\nQUIT\n", 12);
    out += random.one_in(6) ? '\x20' : '\x21';
    const bool six = random.one_in(3);
    const std::string rest = random.bytes((six ? 36 : 12) + (random.one_in(3) ? 7 : 0));
    out += random.one_in(8) ? '\0' : six ? '\x21' : '\x11';
    return out + '\0' + static_cast<char>(rest.size()) + rest;
}

std::string startup_packet(std::string_view user, Random& random) {
    protocol::StartupMessage startup;
    if (random.one_in(4)) startup.protocol_version = 3 << 16 | 2;
    startup.parameters = {{"user", user}, {"database", "shop"}};
    if (random.one_in(3)) startup.parameters.push_back({"application_name", "psql"});
    if (random.one_in(6)) startup.parameters.push_back({"replication", "database"});
    if (random.one_in(6)) startup.parameters.push_back({"_pq_.x", "1"});
    return protocol::encoded(startup);
}

struct Sasl {
    std::string first, final;
};

// What a client with that password sends. `between`: somebody is between the two, who has a
// certificate of their own (1), or has taken the offer to bind to the connection away (2).
Sasl sasl_of(std::string_view password, bool tls, bool endpoint_known, std::size_t between) {
    std::string bound_to = tls && endpoint_known ? endpoint_hash : std::string();
    session::ScramServer server(verifier_of_alice(), true, std::string(exchange_nonce),
                                between == 2 ? std::string() : bound_to);
    if (between == 1 && !bound_to.empty()) bound_to.back() = 'X';
    session::ScramSetup setup;
    setup.password = session::Secret(password);
    setup.nonce = "b25lIHdobyBpcyBrbm93bg==";
    setup.tls_server_end_point = bound_to;
    auto client = session::ScramClient::start({true, between != 2 && !bound_to.empty()},
                                              std::move(setup))
                      .value();
    const std::string first = client.client_first();
    const std::string asked = server.first(client.mechanism(), first).value();
    return {protocol::encoded(protocol::SASLInitialResponse{client.mechanism(), first}),
            protocol::encoded(protocol::SASLResponse{client.client_final(asked).value()})};
}

std::string login_seed(std::uint8_t options_byte, std::string_view user, std::string_view password,
                       bool asks_for_tls, std::size_t between, Random& random) {
    const Options options(options_byte);
    std::string out(1, static_cast<char>(options_byte));
    std::string open = options.load_balancer ? proxy_header(random) : std::string();
    if (random.one_in(6))
        out += turn(std::exchange(open, {}) + protocol::encoded(protocol::GSSENCRequest{}));
    if (asks_for_tls)
        out += turn(std::exchange(open, {}) + protocol::encoded(protocol::SSLRequest{}));
    const bool tls = asks_for_tls && options.tls_offered;
    const Sasl sasl = sasl_of(password, tls, options.endpoint_known, between);
    std::vector<std::string> messages = {open + startup_packet(user, random)};
    if (!options.passthrough) messages.insert(messages.end(), {sasl.first, sasl.final});
    messages.push_back(query("SELECT 1"));
    const bool at_once = random.one_in(3);
    std::string all;
    for (const std::string& message : messages) {
        all += message;
        if (!at_once) out += turn(std::exchange(all, {}));
    }
    return all.empty() ? out : out + turn(all);
}

std::string users_seed(Random& random) {
    std::string out(1, static_cast<char>(users_text));
    for (std::size_t n = random.below(4); n > 0; --n) {
        const char* const names[] = {"alice", "O\"Brien", "bob ", "#carol"};
        if (random.one_in(4)) out += "# who may\n\n";
        if (random.one_in(4)) out += " \t";
        out += session::user_line(names[random.below(4)],
                                  random.one_in(4) ? "secret" : verifier_of_alice().text());
        out += random.one_in(4) ? " \r\n" : "\n";
    }
    return out;
}

// Were nobody ever let in, all of the above would hold.
bool who_is_right_comes_in() {
    Random random(1);
    for (const std::uint8_t options : {0, 1, 4, 5, 9, 11, 13}) {
        const std::string input = login_seed(options, "alice", "secret", true, 0, random);
        require(play(Options(options), turns_of(std::string_view(input).substr(1)), 0).let_in,
                "who is right comes in");
    }
    return true;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    static const bool checked = who_is_right_comes_in();
    if (size < 1 || !checked) return 0;
    const std::string_view input(reinterpret_cast<const char*>(data), size);
    if (data[0] == users_text) {
        check_users(input.substr(1));
    } else {
        check_login(input);
    }
    return 0;
}

std::string pgchaperone_fuzz_seed(Random& random) {
    if (random.one_in(5)) return users_seed(random);
    const auto options = static_cast<std::uint8_t>(random.below(users_text));
    if (random.one_in(20)) {
        return std::string(1, static_cast<char>(options)) +
               turn(protocol::encoded(protocol::CancelRequest{7, "key4"}));
    }
    const char* const people[] = {"alice", "alice", "alice", "bob", ""};
    std::string out = login_seed(options, people[random.below(5)],
                                 random.one_in(4) ? "wrong" : "secret", !random.one_in(3),
                                 random.below(6), random);
    if (random.one_in(12)) out.insert(1, turn("\x16\x03\x01"));  // TLS without asking for it
    return out;
}
