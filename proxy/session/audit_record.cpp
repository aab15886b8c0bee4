#include "proxy/session/audit_record.h"

#include "policy/redact.h"
#include "policy/relation_names.h"
#include "policy/rule.h"
#include "proxy/session/effects.h"

#include <algorithm>
#include <string_view>
#include <utility>

namespace pgchaperone::session {

namespace {

std::string reason_of(const policy::Decision& decision, const policy::StatementFacts* facts) {
    if (!decision.refusal.reason.empty()) return decision.refusal.reason;
    if (!decision.refusal.message.empty()) return decision.refusal.message;
    if (facts == nullptr) return {};
    for (const policy::Flag* flag : {&facts->unparsable, &facts->unbounded, &facts->destructive,
                                     &facts->dangerous, &facts->opaque}) {
        if (flag->set) return flag->reason;
    }
    return {};
}

void show_no_more_than(const policy::Decision& decision, const policy::LexicalSettings& lexical,
                       audit::Record& record) {
    const bool simply_allowed = decision.action == policy::Action::allow && !decision.observed;
    switch (decision.audit_detail) {
        case policy::AuditDetail::decision:
            record.statement.clear();
            record.redacted = true;
            break;
        case policy::AuditDetail::statement:
            if (!simply_allowed) break;
            record.statement = policy::redacted(record.statement, lexical);
            record.redacted = true;
            break;
        case policy::AuditDetail::parameters: break;
    }
}

}  // namespace

std::string_view protocol_name(StatementKind kind) {
    switch (kind) {
        case StatementKind::query: return "simple";
        case StatementKind::parse:
        case StatementKind::bind:
        case StatementKind::execute: return "extended";
        case StatementKind::function_call: return "function call";
    }
    return {};
}

bool refuses(const policy::Decision& decision) {
    if (decision.observed) return false;
    return decision.action == policy::Action::block;
}

bool needs_record(const policy::Decision& decision, const policy::StatementFacts* facts) {
    if (decision.action == policy::Action::supervise && !decision.observed && !decision.audit &&
        facts != nullptr && only_reads(*facts)) {
        return false;
    }
    // Looking changes nothing.
    if (decision.action == policy::Action::answer) {
        return facts == nullptr || !facts->chaperone || facts->chaperone->call;
    }
    return decision.action != policy::Action::allow || decision.observed || decision.audit;
}

bool needs_outcome(const policy::Decision& decision) {
    if (decision.action == policy::Action::answer || refuses(decision)) return false;
    const bool simply_allowed = decision.action == policy::Action::allow && !decision.observed;
    return !simply_allowed || decision.audit_detail != policy::AuditDetail::decision;
}

policy::Shown shown_text(const policy::Judgement& judgement, std::size_t index,
                         std::string_view sent, const policy::LexicalSettings& lexical) {
    const policy::Analysis* const analysis = judgement.analysis.get();
    if (analysis == nullptr || analysis->text.empty()) return policy::shown(sent, lexical);
    const policy::StatementFacts* const facts = judgement.facts(index);
    if (facts == nullptr || analysis->statements.size() == 1) return policy::shown(*analysis);
    return policy::shown(*analysis, *facts);
}

const policy::Secrets& secrets_of(const policy::Judgement& judgement) {
    static const policy::Secrets none;
    return judgement.analysis ? judgement.analysis->secrets : none;
}

audit::Record make_record(const policy::SessionFacts& session, const std::string& application,
                          StatementKind kind, policy::Shown text,
                          const policy::LexicalSettings& lexical,
                          const policy::Judgement& judgement, std::size_t index) {
    const policy::Decision& decision = judgement.decisions[index];
    audit::Record record;
    record.session = session.id;
    record.user = session.user;
    record.database = session.database;
    record.upstream = session.upstream;
    record.client = session.client.text;
    record.application = application;
    record.protocol = protocol_name(kind);
    record.statement = std::move(text.text);
    record.redacted = text.masked;
    record.decision = policy::action_name(decision.action);
    record.observed = decision.observed;
    record.rule = decision.rule;
    const policy::StatementFacts* const facts = judgement.facts(index);
    if (judgement.analysis) record.fingerprint = judgement.analysis->fingerprint;
    if (facts != nullptr) {
        record.command = facts->command;
        for (const policy::StatementClass one : facts->classes) {
            record.classes.emplace_back(policy::class_name(one));
        }
        for (const policy::RelationName& relation : facts->written) {
            record.relations.push_back(policy::relation_text(relation));
        }
        for (const policy::RelationName& relation : facts->read) {
            record.relations.push_back(policy::relation_text(relation));
        }
    }
    record.reason = reason_of(decision, facts);
    show_no_more_than(decision, lexical, record);
    return record;
}

bool records_parameters(const policy::Judgement& judgement) {
    return std::any_of(judgement.decisions.begin(), judgement.decisions.end(),
                       [](const policy::Decision& decision) {
                           return decision.audit_detail == policy::AuditDetail::parameters;
                       });
}

}  // namespace pgchaperone::session
