#include "sim/model_client.h"

#include "protocol/codec.h"
#include "protocol/head.h"
#include "protocol/messages.h"

namespace pgchaperone::sim {

namespace {

std::optional<std::size_t> message_size(std::string_view bytes) {
    const auto head = protocol::read_head(bytes, protocol::Side::backend);
    if (head.has_error() || bytes.size() < head->total()) return std::nullopt;
    return head->total();
}

// What has no fixed place among the replies.
bool is_asynchronous(std::string_view message) {
    return message[0] == 'A' || message[0] == 'S' ||
           (message[0] == 'N' && field_of(message, 'V') == "LOG");
}

}  // namespace

std::string field_of(std::string_view message, char code) {
    const auto error = protocol::decode<protocol::ErrorResponse>(
        message.substr(protocol::head_size));
    if (error.has_error()) return {};
    const auto value = error->find(code);
    return value ? std::string(*value) : std::string();
}

ModelClient::ModelClient(const Script& script) : script_(script) {
    protocol::StartupMessage startup;
    startup.parameters = {{"user", "clerk"}, {"database", "shop"}};
    out = protocol::encoded(startup);
}

bool ModelClient::can_step() const {
    if (done() || at_ >= script_.size() || !dialogue.logged_in()) return false;
    if (out.size() >= socket_bytes_max) return false;
    switch (script_[at_].kind) {
        case Step::Kind::wait: return dialogue.owed() == 0;
        case Step::Kind::wait_copy: return !dialogue.copy_awaited();
        default: return true;
    }
}

bool ModelClient::step(test::Random& random) {
    const Step& step = script_[at_++];
    switch (step.kind) {
        case Step::Kind::send:
            if (step.only_while_copying && !dialogue.copying()) return false;
            dialogue.sent(step.tag(), step.statements);
            out += step.bytes;
            return false;
        case Step::Kind::wait:
        case Step::Kind::wait_copy: return false;
        case Step::Kind::cancel: return true;
        case Step::Kind::terminate:
            out += protocol::encoded(protocol::Terminate{});
            ended = true;
            return false;
        case Step::Kind::half_close: ended = true; return false;
        case Step::Kind::vanish:
            if (!out.empty()) out.resize(random.below(out.size() + 1));
            ended = broken = true;
            return false;
    }
    return false;
}

std::optional<std::string> ModelClient::receive(std::string_view bytes) {
    if (broken) return std::nullopt;
    in_ += bytes;
    while (const auto size = message_size(in_)) {
        const std::string message = in_.substr(0, *size);
        in_.erase(0, *size);
        const bool logged_in = dialogue.logged_in();
        if (auto wrong = dialogue.received(message)) return wrong;
        if (logged_in && !is_asynchronous(message)) messages.push_back(message);
    }
    if (in_.size() >= protocol::head_size &&
        protocol::read_head(in_, protocol::Side::backend).has_error()) {
        return "bytes that are no message";
    }
    return std::nullopt;
}

}  // namespace pgchaperone::sim
