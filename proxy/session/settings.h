#pragma once
// The server's settings that give a statement's bytes their meaning, as ParameterStatus reports
// them, and when they can't be relied on: from the moment a statement that could change them is
// sent until the ReadyForQuery behind it, since the server may report a change only there.

#include "policy/session_facts.h"

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace pgchaperone::session {

class Settings {
public:
    // A ParameterStatus. True when it changed what the policy may see of the session
    // (application_name).
    bool reported(std::string_view name, std::string_view value);

    // The message with this sequence number may change them.
    void may_change(std::uint64_t sequence) { doubtful_until_ = sequence; }
    // ReadyForQuery came for the message with this sequence number.
    void ready(std::uint64_t sequence) {
        if (sequence >= doubtful_until_) doubtful_until_ = 0;
    }

    policy::LexicalSettings lexical() const;
    // As the server reports it (PostgreSQL 18 does); none: not known.
    const std::optional<std::vector<std::string>>& search_path() const;
    const std::string& application_name() const { return application_name_; }
    bool client_encoding_is_utf8() const { return current_.client_encoding == "UTF8"; }
    bool server_encoding_is_utf8() const { return server_encoding_ == "UTF8"; }

private:
    policy::LexicalSettings current_{policy::StandardConformingStrings::unknown, std::nullopt};
    std::string application_name_;
    std::string server_encoding_;
    std::optional<std::vector<std::string>> search_path_;
    std::optional<std::vector<std::string>> unknown_path_;
    std::uint64_t doubtful_until_ = 0;
};

}  // namespace pgchaperone::session
