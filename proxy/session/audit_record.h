#pragma once
// A decision of the policy as a record for the audit log: which need one, and what it says. Pure.

#include "audit/record.h"
#include "policy/decision.h"
#include "policy/session_facts.h"
#include "proxy/session/command.h"

#include <cstddef>
#include <string>

namespace pgchaperone::session {

// Whether the client is refused. What is only observed is let through.
bool refuses(const policy::Decision& decision);

// Everything that was not simply allowed leaves a record. A supervised statement that only reads,
// by its text, leaves one when it turns out to have done more.
bool needs_record(const policy::Decision& decision, const policy::StatementFacts* facts);

// The record of the decision on statement `index` of the judgement. `text`: as it was sent, or
// empty: that of the analysis. It shows as much of it as the rule wants.
audit::Record make_record(const policy::SessionFacts& session, const std::string& application,
                          StatementKind kind, const std::string& text,
                          const policy::LexicalSettings& lexical,
                          const policy::Judgement& judgement, std::size_t index);

// Whether its records show the values of a Bind.
bool records_parameters(const policy::Judgement& judgement);

}  // namespace pgchaperone::session
