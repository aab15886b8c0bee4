#include "proxy/net/virtual_schema.h"
#include "support/catch.h"

#include <boost/json.hpp>

#include <atomic>
#include <cstdlib>
#include <filesystem>
#include <future>
#include <stdexcept>

using namespace pgchaperone;
using namespace std::chrono_literals;

namespace {

using approval::Person;
using approval::Result;
using approval::Store;
using approval::Ticket;
using net::VirtualSchema;

const Person clerk{"clerk", 101, {"staff"}};
const Person bob{"bob", 102, {"staff", "approvers"}};
const Person carol{"carol", 103, {"approvers"}};
const Person mallory{"mallory", 104, {"staff"}};
const Person root{"root", 10, {"dba_root"}};

class Folder {
public:
    Folder() {
        path_ = (std::filesystem::temp_directory_path() / "pgchaperone-net-XXXXXX").string();
        if (::mkdtemp(path_.data()) == nullptr) throw std::runtime_error("no temporary directory");
    }
    ~Folder() {
        std::error_code ignored;
        std::filesystem::remove_all(path_, ignored);
    }
    std::string file(const std::string& name) const { return path_ + "/" + name; }

private:
    std::string path_;
};

// A store that works until it is told not to.
class Breakable : public Store {
public:
    Breakable(std::unique_ptr<Store> store, const std::atomic<bool>& broken)
        : store_(std::move(store)), broken_(broken) {}
    Result<Ticket> open(std::string_view binding, const Make& make, const Take& reuse) override {
        if (broken_) return failure();
        return store_->open(binding, make, reuse);
    }
    Result<Ticket> update(std::string_view id, const Change& change) override {
        if (broken_) return failure();
        return store_->update(id, change);
    }
    Result<std::optional<Ticket>> claim(std::string_view binding, const Take& take) override {
        if (broken_) return failure();
        return store_->claim(binding, take);
    }
    Result<Ticket> find(std::string_view id) override {
        if (broken_) return failure();
        return store_->find(id);
    }
    Result<std::vector<Ticket>> open_tickets(std::size_t limit, const Ticket* after) override {
        if (broken_) return failure();
        return store_->open_tickets(limit, after);
    }
    Result<std::vector<Ticket>> ended(std::size_t limit, const Ticket* after) override {
        if (broken_) return failure();
        return store_->ended(limit, after);
    }
    Result<std::vector<Changed>> changed() override {
        if (broken_) return failure();
        return store_->changed();
    }
    Result<void> check() override {
        if (broken_) return failure();
        return store_->check();
    }
    int descriptor() const override { return store_->descriptor(); }
    std::string where() const override { return store_->where(); }

private:
    static approval::Failure failure() {
        return {approval::Problem::store_failed, "the tickets can't be read: disk full", ""};
    }
    std::unique_ptr<Store> store_;
    const std::atomic<bool>& broken_;
};

policy::Policy policy_of_the_shop() {
    policy::Policy policy;
    policy.source = "shop.yaml";
    policy.approvers = {policy::Glob("approvers")};
    policy.operators = {policy::Glob("dba_*")};
    policy::Rule rule;
    rule.name = "no-unbounded-writes";
    policy::Condition condition;
    condition.kind = policy::ConditionKind::unbounded;
    rule.match.children.push_back(condition);
    rule.action.action = policy::Action::hold;
    rule.action.hold = std::make_shared<const policy::HoldTerms>();
    rule.place = {"shop.yaml", 4, 7};
    policy.rules.push_back(rule);
    rule.name = "note-ddl";
    rule.observe = true;
    rule.match.children.front() = {};
    rule.match.children.front().kind = policy::ConditionKind::statement_class;
    rule.match.children.front().classes = 1U << static_cast<unsigned>(policy::StatementClass::ddl);
    rule.action = {policy::Action::block, nullptr, nullptr};
    policy.rules.push_back(rule);
    return policy;
}

struct Answer {
    boost::json::array rows;
    std::string sqlstate;  // of a refusal
    std::string message, detail, hint;

    std::vector<std::string> column(std::string_view name) const {
        std::vector<std::string> out;
        for (const auto& row : rows) {
            const auto* const value = row.as_object().if_contains(name);
            out.push_back(value == nullptr     ? "NULL"
                          : value->is_string() ? std::string(value->as_string())
                                               : boost::json::serialize(*value));
        }
        return out;
    }
    // The value of one of a ticket's fields.
    std::string field(std::string_view name) const {
        for (const auto& row : rows) {
            if (row.at("field").as_string() == name)
                return std::string(row.at("value").as_string());
        }
        return "none";
    }
};

struct Shop {
    Shop() {
        auto store = approval::open_sqlite_store(folder.file("tickets.db"));
        REQUIRE(store.has_value());
        approval::DeskOptions options;
        options.replica = "one";
        options.now = [this] { return now.load(); };
        desk = std::make_unique<approval::Desk>(
            std::make_unique<Breakable>(std::move(*store), broken), std::move(options));
        rules = std::make_shared<policy::RuleBook>(policy_of_the_shop());
        engine = std::make_unique<policy::Engine>(rules, policy::Capabilities{true, true});
        VirtualSchema::Sources sources{*desk, *rules, directory, {}, {}, {}, {}};
        sources.aside = [this](const std::function<void(policy::Engine&)>& work) { work(*engine); };
        sources.reload = [this](const std::string& role) {
            ++reloads;
            reloaded_by = role;
            return net::ReloadOutcome{reload_problem, policy_taken, restart};
        };
        sources.store = "tickets.db";
        sources.now = [this] { return now.load(); };
        schema = std::make_unique<VirtualSchema>(std::move(sources));
    }

    Answer ask(const Person& person, const std::string& name, bool call,
               std::vector<std::optional<std::string>> arguments) {
        session::AskChaperone question;
        auto parsed = std::make_shared<policy::ChaperoneCall>();
        parsed->call = call;
        parsed->name = name;
        question.call = parsed;
        question.arguments = std::move(arguments);
        question.person = person;
        policy::SessionFacts facts;
        facts.id = 1;
        facts.user = person.role;
        facts.database = "shop";
        std::promise<session::ChaperoneAnswer> promise;
        auto future = promise.get_future();
        schema->ask(std::move(question), facts, [&promise](session::ChaperoneAnswer answer) {
            promise.set_value(std::move(answer));
        });
        REQUIRE(future.wait_for(20s) == std::future_status::ready);
        const session::ChaperoneAnswer raw = future.get();
        Answer answer;
        if (raw.refusal) {
            CHECK(raw.rows.empty());
            answer = {{},
                      raw.refusal->sqlstate,
                      raw.refusal->message,
                      raw.refusal->detail,
                      raw.refusal->hint};
        } else {
            answer.rows = boost::json::parse(raw.rows).as_array();
        }
        return answer;
    }
    Answer show(const Person& person, const std::string& name) {
        return ask(person, name, false, {});
    }
    Answer call(const Person& person, const std::string& name,
                std::vector<std::optional<std::string>> arguments) {
        return ask(person, name, true, std::move(arguments));
    }

    static approval::Request request(const Person& requester = clerk) {
        approval::Request request;
        request.binding = std::string(64, 'a');
        request.requester = requester;
        request.database = "shop";
        request.client = "10.0.0.7";
        request.application = "psql";
        request.command = "UPDATE";
        request.statement = "UPDATE orders SET live = true";
        request.rule = "no-unbounded-writes";
        request.reason = "it has no WHERE";
        request.terms.approvers = {{"approvers"}};
        request.evidence.kind = approval::Evidence::Kind::trial;
        request.evidence.tables = {{"public.orders", 0, 48'210, 3}};
        request.wait = 60s;
        return request;
    }
    Ticket open(approval::Request request) {
        std::promise<Result<Ticket>> promise;
        auto future = promise.get_future();
        desk->open(
            std::move(request),
            [&](Result<Ticket> ticket) { promise.set_value(std::move(ticket)); },
            [](const Ticket&) {});
        auto answer = future.get();
        REQUIRE(answer.has_value());
        return *answer;
    }

    Folder folder;
    std::atomic<bool> broken{false};
    std::atomic<approval::Time> now{approval::Time(std::chrono::hours(24 * 20'000))};
    net::Directory directory;
    std::unique_ptr<approval::Desk> desk;
    std::shared_ptr<policy::RuleBook> rules;
    std::unique_ptr<policy::Engine> engine;
    std::unique_ptr<VirtualSchema> schema;
    int reloads = 0;
    std::string reloaded_by;
    std::string reload_problem;
    bool policy_taken = false;
    std::string restart;
};

using Texts = std::vector<std::string>;

}  // namespace

TEST_CASE("what waits is shown to its requester and to who may decide, and to nobody else") {
    Shop shop;
    const Ticket ticket = shop.open(Shop::request());
    for (const Person& person : {clerk, bob}) {
        const Answer answer = shop.show(person, "pending");
        REQUIRE(answer.column("ticket") == Texts{ticket.id});
        CHECK(answer.column("state") == Texts{"pending"});
        CHECK(answer.column("requester") == Texts{"clerk"});
        CHECK(answer.column("database") == Texts{"shop"});
        CHECK(answer.column("opened") == Texts{"2024-10-04T00:00:00.000000Z"});
        CHECK(answer.column("expires") == Texts{"2024-10-04T00:30:00.000000Z"});
        CHECK(answer.column("waiting") == Texts{"true"});
        CHECK(answer.column("command") == Texts{"UPDATE"});
        CHECK(answer.column("effects").front().find("48,213 rows") == 0);
        CHECK(answer.column("rule") == Texts{"no-unbounded-writes"});
        CHECK(answer.column("reason") == Texts{"it has no WHERE"});
        CHECK(answer.column("approvals") == Texts{"0 of 1"});
        CHECK(answer.column("statement") == Texts{"UPDATE orders SET live = true"});
        CHECK(shop.show(person, "ticket_" + ticket.id).field("state") == "pending");
    }
    CHECK(shop.show(mallory, "pending").rows.empty());
    // Not even whether it exists.
    const Answer other = shop.show(mallory, "ticket_" + ticket.id);
    CHECK(other.sqlstate == "42704");
    const Answer none = shop.show(mallory, "ticket_zz99");
    CHECK(none.sqlstate == "42704");
    CHECK(none.hint == other.hint);
}

TEST_CASE("a ticket is told whole, and what is empty is left out") {
    Shop shop;
    approval::Request request = Shop::request();
    request.parameters = {"7", std::nullopt};
    request.settings = "search_path=public";
    request.evidence.exclusive_locks = {"public.orders", "public.items"};
    const Ticket ticket = shop.open(request);
    std::string folded = "ticket_";
    for (const char c : ticket.id) {
        folded += c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
    }
    const Answer answer = shop.show(bob, folded);
    CHECK(answer.field("ticket") == ticket.id);
    CHECK(answer.field("waiting") == "yes");
    CHECK(answer.field("approvers") == "approvers");
    CHECK(answer.field("evidence") == "trial: counted in a run that was rolled back");
    CHECK(answer.field("tables") == "public.orders: 3 deleted, 48,210 updated");
    CHECK(answer.field("exclusive_locks") == "public.orders\npublic.items");
    CHECK(answer.field("parameters") == "$1 = '7'\n$2 = NULL");
    CHECK(answer.field("settings") == "search_path=public");
    for (const char* empty : {"votes", "comment", "ended", "ended_by", "outcome", "glass",
                              "glass_reason", "plan", "catalog_changes", "note"}) {
        CHECK(answer.field(empty) == "none");
    }
    CHECK(answer.column("field").back() == "statement");
}

TEST_CASE("an approval, a second one, and what each of them is told") {
    Shop shop;
    approval::Request request = Shop::request();
    request.terms.approvals = 2;
    const std::string id = shop.open(request).id;
    Answer answer = shop.call(bob, "approve", {" " + id + " ", "checked"});
    CHECK(answer.column("ticket") == Texts{id});
    CHECK(answer.column("state") == Texts{"pending"});
    CHECK(answer.column("message") == Texts{"your approval counts; 1 more is needed"});
    answer = shop.call(bob, "approve", {id, std::nullopt});
    CHECK(answer.sqlstate == "55000");
    answer = shop.call(carol, "approve", {id, std::nullopt});
    CHECK(answer.column("state") == Texts{"approved"});
    CHECK(answer.column("message") == Texts{"approved: clerk's UPDATE runs now"});
    answer = shop.call(bob, "approve", {id});
    CHECK(answer.sqlstate == "55000");
    CHECK(answer.message.starts_with("pgchaperone: ticket " + id + " is approved already by"));
    answer = shop.show(clerk, "ticket_" + id);
    CHECK(answer.field("approvals") == "2 of 2");
    CHECK(answer.field("votes") ==
          "2024-10-04T00:00:00.000000Z bob approved: checked\n"
          "2024-10-04T00:00:00.000000Z carol approved");
}

TEST_CASE("an approval of what nobody waits for any more says for how long it is good") {
    Shop shop;
    const std::string id = shop.open(Shop::request()).id;
    shop.desk->release(id);
    shop.now = shop.now.load() + 10min;
    const Answer answer = shop.call(bob, "approve", {id});
    CHECK(answer.column("message") ==
          Texts{"approved: clerk's UPDATE may run once, within 20 minutes"});
    CHECK(shop.show(bob, "pending").column("waiting") == Texts{"false"});
}

TEST_CASE("nobody decides on their own ticket, and nobody without the role on any") {
    Shop shop;
    const std::string id = shop.open(Shop::request(bob)).id;
    Answer answer = shop.call(bob, "approve", {id});
    CHECK(answer.sqlstate == "42501");
    CHECK(answer.message ==
          "pgchaperone: ticket " + id + " is your own, and it takes a second person to approve it");
    // Renamed, and still the same.
    answer = shop.call({"robert", bob.oid, {"approvers"}}, "approve", {id});
    CHECK(answer.sqlstate == "42501");
    answer = shop.call(mallory, "deny", {id});
    CHECK(answer.sqlstate == "42501");
    answer = shop.call(root, "approve", {id});  // an operator is no approver
    CHECK(answer.sqlstate == "42501");
    CHECK(shop.show(bob, "ticket_" + id).field("state") == "pending");
}

TEST_CASE("a denial gives its reason, and nothing follows it") {
    Shop shop;
    const std::string id = shop.open(Shop::request()).id;
    Answer answer = shop.call(bob, "deny", {id, "use the API"});
    CHECK(answer.column("state") == Texts{"denied"});
    CHECK(answer.column("message") == Texts{"denied: clerk's UPDATE does not run"});
    for (const char* order : {"approve", "deny"}) {
        answer = shop.call(carol, order, {id});
        CHECK(answer.sqlstate == "55000");
        CHECK(answer.message == "pgchaperone: ticket " + id + " was denied by bob: use the API");
    }
    CHECK(shop.call(clerk, "withdraw", {id}).sqlstate == "55000");
    CHECK(shop.show(bob, "pending").rows.empty());
    const Answer history = shop.show(clerk, "history");
    CHECK(history.column("ticket") == Texts{id});
    CHECK(history.column("decided_by") == Texts{"bob"});
    CHECK(history.column("comment") == Texts{"use the API"});
    CHECK(history.column("ended") == Texts{"2024-10-04T00:00:00.000000Z"});
    CHECK(shop.show(mallory, "history").rows.empty());
}

TEST_CASE("a requester takes a ticket back, and nobody else does") {
    Shop shop;
    const std::string id = shop.open(Shop::request()).id;
    CHECK(shop.call(bob, "withdraw", {id}).sqlstate == "42501");
    const Answer answer = shop.call(clerk, "withdraw", {id, "a mistake"});
    CHECK(answer.column("state") == Texts{"withdrawn"});
    CHECK(shop.call(bob, "approve", {id}).sqlstate == "55000");
}

TEST_CASE("an expired ticket can't be approved, at the very moment either") {
    Shop shop;
    const std::string id = shop.open(Shop::request()).id;
    shop.now = shop.now.load() + 30min;
    const Answer answer = shop.call(bob, "approve", {id});
    CHECK(answer.sqlstate == "55000");
    CHECK(answer.message == "pgchaperone: ticket " + id + " has expired");
}

TEST_CASE("orders without what they need are refused") {
    Shop shop;
    for (const char* order : {"approve", "deny", "withdraw"}) {
        const Answer answer = shop.call(bob, order, {std::nullopt, "why"});
        CHECK(answer.sqlstate == "22004");
        CHECK(answer.message ==
              "pgchaperone: chaperone." + std::string(order) + " needs a ticket, not NULL");
        CHECK(shop.call(bob, order, {}).sqlstate == "22004");
        CHECK(shop.call(bob, order, {""}).sqlstate == "42704");
        CHECK(shop.call(bob, order, {"K7'; --"}).sqlstate == "42704");
    }
    CHECK(shop.call(bob, "explain", {std::nullopt}).sqlstate == "22004");
    CHECK(shop.show(bob, "nothing").sqlstate == "42704");
    CHECK(shop.call(bob, "pending", {"K7"}).sqlstate == "42704");
    CHECK(shop.show(bob, "approve").sqlstate == "42704");
}

TEST_CASE("a store that fails is told of, and what needs none goes on") {
    Shop shop;
    const std::string id = shop.open(Shop::request()).id;
    shop.broken = true;
    for (const char* name : {"pending", "history", "ticket_b1"}) {
        CHECK(shop.show(bob, name).sqlstate == "58030");
    }
    CHECK(shop.call(bob, "approve", {id}).sqlstate == "58030");
    CHECK(shop.show(bob, "rules").sqlstate.empty());
    CHECK(shop.show(bob, "stats").sqlstate.empty());
    CHECK(shop.show(bob, "version").column("store") == Texts{"tickets.db"});
}

TEST_CASE("sessions: everybody sees their own, approvers and operators all") {
    Shop shop;
    const approval::Time since = shop.now;
    shop.directory.put({1, "clerk", "shop", "10.0.0.7", "psql", true, since, "K7"});
    shop.directory.put({2, "bob", "shop", "10.0.0.8", "DBeaver", false, since, ""});
    shop.directory.put({9, "mallory", "shop", "10.0.0.9", "", false, since, ""});
    const Answer all = shop.show(bob, "sessions");
    CHECK(all.column("session") == Texts{"1", "2", "9"});
    CHECK(all.column("state") == Texts{"held", "open", "open"});
    CHECK(all.column("ticket") == Texts{"K7", "NULL", "NULL"});
    CHECK(all.column("tls") == Texts{"true", "false", "false"});
    CHECK(shop.show(root, "sessions").rows.size() == 3);
    // Who is at another server is nobody's business here.
    shop.directory.put({3, "clerk", "shop", "10.0.0.7", "psql", true, since, "", "billing"});
    CHECK(shop.show(bob, "sessions").column("session") == Texts{"1", "2", "9"});
    CHECK(shop.show(clerk, "sessions").column("session") == Texts{"1"});
    CHECK(shop.show(clerk, "sessions").column("username") == Texts{"clerk"});
    shop.directory.left(1);
    CHECK(shop.show(bob, "sessions").column("session") == Texts{"2", "9"});
    // Session 1 is who asks, under whatever name: see Shop::ask.
    shop.directory.put({1, "robert", "shop", "10.0.0.7", "psql", true, since, ""});
    CHECK(shop.show(mallory, "sessions").column("session") == Texts{"1", "9"});
}

TEST_CASE("a list of very many ends somewhere") {
    Shop shop;
    for (std::uint64_t i = 1; i <= VirtualSchema::rows_max + 5; ++i) {
        shop.directory.put({i, "clerk", "shop", "::1", "", false, {}, ""});
    }
    CHECK(shop.show(bob, "sessions").rows.size() == VirtualSchema::rows_max);
}

TEST_CASE("rules are listed in their order, with what decides when none of them does") {
    Shop shop;
    const Answer answer = shop.show(mallory, "rules");
    CHECK(answer.column("position") == Texts{"1", "2", "3", "4"});
    CHECK(answer.column("rule") ==
          Texts{"no-unbounded-writes", "note-ddl", "(unparsable)", "(default)"});
    CHECK(answer.column("action") == Texts{"hold", "observe: block", "block", "allow"});
    CHECK(answer.column("condition")[0] == "unbounded: true");
    CHECK(answer.column("condition")[1] == "class: DDL");
    CHECK(answer.column("origin")[0] == "shop.yaml:4:7");
}

TEST_CASE("a statement is explained as it would be judged for who asks") {
    Shop shop;
    const Answer answer = shop.call(
        clerk, "explain",
        {"UPDATE orders SET live = true; SELECT 1; DROP TABLE x; SHOW chaperone.pending"});
    CHECK(answer.column("statement") == Texts{"1", "2", "3", "4"});
    CHECK(answer.column("command")[0] == "UPDATE");
    CHECK(answer.column("action") == Texts{"hold", "allow", "allow", "answer"});
    CHECK(answer.column("rule") == Texts{"no-unbounded-writes", "(default)", "note-ddl", ""});
    CHECK(answer.column("reason")[0].find("no WHERE") != std::string::npos);
    CHECK(answer.column("reason")[2].starts_with("only noted (block): "));
    CHECK(answer.column("sql")[1] == "SELECT 1");
    CHECK(shop.call(clerk, "explain", {""}).rows.empty());
    CHECK(shop.call(clerk, "explain", {"SELEC 1"}).column("rule") == Texts{"(unparsable)"});
    CHECK(shop.call(clerk, "explain", {"SELEC 1"}).column("action") == Texts{"block"});
    CHECK(shop.call(clerk, "explain", {"SELECT 1"}).column("rule") == Texts{"(default)"});
}

TEST_CASE("only operators reload, and read there what is wrong") {
    Shop shop;
    for (const Person& person : {clerk, bob}) {
        const Answer answer = shop.call(person, "reload", {});
        CHECK(answer.sqlstate == "42501");
        CHECK(answer.hint.find("SIGHUP") != std::string::npos);
    }
    CHECK(shop.reloads == 0);
    CHECK(shop.call(root, "reload", {}).column("result") ==
          Texts{"version 1 of the policy is in force, from shop.yaml"});
    CHECK(shop.reloads == 1);
    CHECK(shop.reloaded_by == root.role);
    shop.reload_problem = "shop.yaml:3:1: error: unknown key";
    const Answer answer = shop.call(root, "reload", {});
    CHECK(answer.sqlstate == "F0000");
    CHECK(answer.detail == "shop.yaml:3:1: error: unknown key");
    CHECK(answer.message.ends_with("the policy stays as it was"));
    shop.policy_taken = true;
    shop.reload_problem = "server.crt: no such file";
    CHECK(shop.call(root, "reload", {})
              .message.ends_with("the policy is in force, and not all else is"));
    shop.reload_problem.clear();
    shop.restart = "listen, threads";
    CHECK(shop.call(root, "reload", {}).column("result") ==
          Texts{"version 1 of the policy is in force, from shop.yaml; changed, and taken only at a "
                "restart: listen, threads"});

    policy::Policy nobody = policy_of_the_shop();
    nobody.operators.clear();
    shop.rules->replace(nobody);
    const Answer refused = shop.call(root, "reload", {});
    CHECK(refused.sqlstate == "42501");
    CHECK(refused.detail.find("lists no operators") != std::string::npos);
    CHECK(shop.reloads == 4);
}

TEST_CASE("counts are those of the desk") {
    Shop shop;
    const std::string id = shop.open(Shop::request()).id;
    (void)shop.call(bob, "approve", {id});
    const Answer answer = shop.show(mallory, "stats");
    const Texts names = answer.column("name");
    const Texts values = answer.column("value");
    const auto value = [&](std::string_view name) {
        const auto at = std::find(names.begin(), names.end(), name);
        return at == names.end() ? "none" : values[static_cast<std::size_t>(at - names.begin())];
    };
    CHECK(value("tickets_opened") == "1");
    CHECK(value("tickets_approved") == "1");
    CHECK(value("tickets_used") == "0");
    CHECK(value("sessions") == "0");
}

TEST_CASE("whatever bytes a statement has, what comes out is JSON, and not too long") {
    Shop shop;
    approval::Request request = Shop::request();
    request.statement = "UPDATE t SET a = '\xff\x01\"\\" + std::string(1, '\0') + "é'";
    request.application = "\xc3\x28";
    const Ticket ticket = shop.open(request);
    CHECK(shop.show(bob, "pending").rows.size() == 1);
    CHECK(shop.show(bob, "ticket_" + ticket.id).field("statement").find("é") != std::string::npos);
    shop.call(clerk, "withdraw", {ticket.id});
    request.statement.clear();
    for (int i = 0; i < 1500; ++i) request.statement += "é";
    shop.open(request);
    const std::string shown = shop.show(bob, "pending").column("statement").front();
    CHECK(shown.size() == 1000 * 2 + std::string_view("…").size());
    CHECK(shown.ends_with("é…"));
}
