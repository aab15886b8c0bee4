#pragma once
// What a client may expect of a server, whoever stands between: every reply must answer something
// that was sent, in order; each Query, FunctionCall and Sync that counts is answered by exactly one
// ReadyForQuery; and its transaction status must be what the replies before it made of it. Written
// after the protocol's documentation and independently of the guard's own ledger, which it checks.

#include "sim/model_sql.h"

#include <cstddef>
#include <cstdint>
#include <deque>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace pgchaperone::sim {

class Dialogue {
public:
    // A message was sent. `statements`: what a Query holds, or what an Execute will run.
    void sent(char tag, std::vector<Statement> statements);

    // A message came, whole. Returns what is wrong with it, if anything is.
    std::optional<std::string> received(std::string_view message);

    // Replies that must still come.
    std::size_t owed() const { return owed_.size(); }
    std::size_t ready_owed() const;
    bool copying() const { return !owed_.empty() && owed_.front().copying; }
    // What is answered now is a COPY FROM STDIN that has failed.
    bool copy_failed() const;
    // A COPY was asked for and it is not known yet whether it began.
    bool copy_awaited() const;
    bool logged_in() const { return logged_in_; }
    bool fatal() const { return fatal_; }

private:
    struct Owed {
        char tag = 0;
        std::vector<Statement> statements;
        std::size_t next = 0;  // of `statements`, the one whose replies come now
        bool errored = false;
        bool copying = false;
        bool described = false;  // Describe of a statement: its parameters have come
        bool empty_answered = false;
        bool copy_ended = false;  // CopyDone or CopyFail was sent behind it
    };
    const Statement* current() const;
    std::optional<std::string> error(std::string_view body);
    std::optional<std::string> ready(std::string_view body);
    std::optional<std::string> complete(std::string_view body);
    std::optional<std::string> copy_begins();
    std::optional<std::string> login(char tag);
    std::optional<std::string> surprise(char tag) const;
    void settled(const Statement& statement);

    std::deque<Owed> owed_;
    bool logged_in_ = false;
    bool skipping_ = false;
    bool fatal_ = false;
    // The transaction, as the replies have it.
    bool block_ = false;
    bool failed_ = false;
    bool unsure_ = false;
};

}  // namespace pgchaperone::sim
