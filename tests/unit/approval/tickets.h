#pragma once
// People, requests and moments for the tests of tickets.

#include "approval/ticket.h"

#include "support/catch.h"

#include <string>
#include <utility>

namespace pgchaperone::test {

using namespace std::chrono_literals;
using approval::Claim;
using approval::Evidence;
using approval::Person;
using approval::Problem;
using approval::Request;
using approval::State;
using approval::Terms;
using approval::Ticket;
using approval::Time;

inline const Time start_time{std::chrono::microseconds(1'763'712'000'123'456)};

inline Person person(std::string role, std::uint32_t oid, std::vector<std::string> member_of = {}) {
    return {.role = std::move(role), .oid = oid, .member_of = std::move(member_of)};
}
inline Person alice() { return person("alice", 101, {"staff"}); }
inline Person bob() { return person("bob", 102, {"staff", "dba"}); }
inline Person carol() { return person("carol", 103, {"dba"}); }
inline Person dave() { return person("dave", 104, {"staff"}); }

inline Terms dba_decides(unsigned approvals = 1) {
    Terms terms;
    terms.approvers = {{"dba"}};
    terms.approvals = approvals;
    return terms;
}

inline Request request_of(Person requester, std::string binding = "b1",
                          Terms terms = dba_decides()) {
    Request request;
    request.binding = std::move(binding);
    request.requester = std::move(requester);
    request.database = "shop";
    request.command = "UPDATE";
    request.statement = "UPDATE orders SET live = true";
    request.rule = "no-unbounded-writes";
    request.terms = std::move(terms);
    request.wait = 60s;
    return request;
}
inline Request request_of_alice(std::string binding = "b1", Terms terms = dba_decides()) {
    return request_of(alice(), std::move(binding), std::move(terms));
}

inline Claim claim_of(const Ticket& ticket, bool of_the_waiting_session) {
    return {.binding = ticket.request.binding,
            .requester = ticket.request.requester,
            .terms = ticket.request.terms,
            .ticket = of_the_waiting_session ? ticket.id : ""};
}

}  // namespace pgchaperone::test

// Results have a way of printing themselves that asks for one of tickets; so this comes before it.
namespace Catch {
template <class T>
struct StringMaker<boost::system::result<T, pgchaperone::approval::Failure>> {
    static std::string convert(const pgchaperone::approval::Result<T>& result) {
        return result ? "an answer" : "failure: " + result.error().text;
    }
};
}  // namespace Catch
