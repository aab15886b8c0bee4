#pragma once
// A decision of the policy as a record for the audit log: which need one, and what it says. Pure.

#include "audit/record.h"
#include "policy/decision.h"
#include "policy/secrets.h"
#include "policy/session_facts.h"
#include "proxy/session/command.h"

#include <cstddef>
#include <string>
#include <string_view>

namespace pgchaperone::session {

// "simple", "extended", "function call"
std::string_view protocol_name(StatementKind kind);

// Whether the client is refused. What is only observed is let through.
bool refuses(const policy::Decision& decision);

// Everything that was not simply allowed leaves a record. A supervised statement that only reads,
// by its text, leaves one when it turns out to have done more.
bool needs_record(const policy::Decision& decision, const policy::StatementFacts* facts);

// Whether what came of it is recorded, too, where it has a record and is let through. A rule that
// wants no more than the decision of what it allows does without; what is for pgchaperone itself is
// no statement of the server's.
bool needs_outcome(const policy::Decision& decision);

// The text of statement `index`, or of all where it is the only one or there is none of that index,
// without its secrets. `sent`: the message's, for what is not in the analysis.
policy::Shown shown_text(const policy::Judgement& judgement, std::size_t index,
                         std::string_view sent, const policy::LexicalSettings& lexical);

const policy::Secrets& secrets_of(const policy::Judgement& judgement);

// The record of the decision on statement `index` of the judgement. `text`: what may be shown of
// the statement; the record has as much of it as the rule wants, and no secret of it in its reason.
audit::Record make_record(const policy::SessionFacts& session, const std::string& application,
                          StatementKind kind, policy::Shown text,
                          const policy::LexicalSettings& lexical,
                          const policy::Judgement& judgement, std::size_t index);

// Whether its records show the values of a Bind.
bool records_parameters(const policy::Judgement& judgement);

}  // namespace pgchaperone::session
