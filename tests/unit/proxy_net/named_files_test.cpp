// What `config check` says of the files that a configuration names.

#include "certificates.h"

#include "proxy/net/named_files.h"
#include "support/catch.h"

#include <algorithm>
#include <sys/stat.h>
#include <unistd.h>

using namespace pgchaperone;
using namespace pgchaperone::net;
using namespace pgchaperone::test;
using Catch::Matchers::ContainsSubstring;

namespace {

class Named {
public:
    Named() {
        options.upstreams.emplace_back();
        options.listeners.emplace_back();
        options.listeners.front().upstreams = {0};
        options.audit.file = file("audit.jsonl");
        options.ticket_store = file("tickets.db");
    }
    std::string file(const std::string& name) const { return directory.path() / name; }

    // "key: what is wrong", and "upstream.key: ..." for one of the others.
    std::vector<std::string> problems() const {
        std::vector<std::string> out;
        for (const FileProblem& one : problems_of_files(options, log))
            out.push_back((one.warning ? "warning: " : "") + one.upstream +
                          (one.upstream.empty() ? "" : ".") + one.key + ": " + one.text);
        return out;
    }
    std::string problem() const {
        const auto found = problems();
        REQUIRE(found.size() == 1);
        return found.front();
    }

    const TemporaryDirectory directory;
    ServerOptions options;
    std::filesystem::path log;
};

}  // namespace

TEST_CASE("each file of a TLS section is looked at, whatever is wrong with the others") {
    const Authority authority;
    const Identity identity = authority.issue();
    Named named;
    const auto& directory = named.directory;
    TlsSettings& tls = named.options.listeners.front().tls;
    tls = {TlsMode::verify_full, directory.write("a.crt", identity.certificate_pem()),
           directory.write("a.key", identity.key_pem()),
           directory.write("ca.crt", authority.identity().certificate_pem())};
    CHECK(named.problems().empty());

    TlsSettings good = tls;
    tls.certificate = named.file("missing");
    tls.key = directory.write("locked.key", identity.key_pem("secret"));
    tls.ca = directory.write("garbage", "no PEM\n");
    const auto all = named.problems();
    REQUIRE(all.size() == 3);
    CHECK_THAT(all[0], ContainsSubstring("client_tls.certificate: ") &&
                           ContainsSubstring("No such file or directory"));
    CHECK_THAT(all[1], ContainsSubstring("client_tls.key: ") && ContainsSubstring("passphrase"));
    CHECK_THAT(all[2], ContainsSubstring("client_tls.ca: ") && ContainsSubstring("garbage"));

    tls = good;
    tls.key = directory.write("other.key", authority.issue().key_pem());
    CHECK_THAT(named.problem(), ContainsSubstring("client_tls.key: ") &&
                                    ContainsSubstring("does not belong to the certificate"));
    tls.key = directory.write("rsa.key", authority.issue({.key_kind = "RSA"}).key_pem());
    CHECK_THAT(named.problem(), ContainsSubstring("does not belong to the certificate"));
    // What a listener does not use is not looked at; a client checks by it in every mode.
    tls = good;
    tls.ca = named.file("missing");
    tls.mode = TlsMode::require;
    CHECK(named.problems().empty());
    named.options.upstreams.front().tls = {TlsMode::require, {}, {}, named.file("missing")};
    CHECK_THAT(named.problem(), ContainsSubstring("upstream_tls.ca: "));
    named.options.upstreams.front().tls = {TlsMode::verify_full, {}, {}, "system"};
    CHECK(named.problems().empty());
    REQUIRE(::chmod(good.key.c_str(), 0604) == 0);
    CHECK_THAT(named.problem(),
               ContainsSubstring("warning: client_tls.key: ") && ContainsSubstring("chmod"));
}

TEST_CASE("whose setting it is that names a wrong file is told") {
    Named named;
    auto& options = named.options;
    options.upstreams.emplace_back().name = "billing";
    options.upstreams.emplace_back().name = "stock";
    options.listeners.front().upstreams = {1, 0};
    options.listeners.emplace_back().upstreams = {2};
    for (ListenerOptions& one : options.listeners)
        one.tls = {TlsMode::require, named.file("a.crt"), named.file("a.key"), {}};
    options.upstreams[1].authentication = session::Authentication::users;
    options.upstreams[1].users = {named.file("users.txt"),
                                  named.directory.write("passwords", "no quotes\n")};
    std::vector<std::string> keys;
    for (const FileProblem& one : problems_of_files(options, {}))
        keys.push_back(one.upstream + ":" + one.key);
    CHECK(keys == std::vector<std::string>{":client_tls.certificate", ":client_tls.key",
                                           "stock:client_tls.certificate", "stock:client_tls.key",
                                           "billing:users.file", "billing:users.passwords"});
}

TEST_CASE("what is written must be writable, or its folder, and nothing is made") {
    Named named;
    CHECK(named.problems().empty());
    CHECK(std::filesystem::is_empty(named.directory.path()));

    named.options.audit.file = named.file("nowhere/audit.jsonl");
    CHECK_THAT(named.problem(), ContainsSubstring("audit.file: the folder ") &&
                                    ContainsSubstring("No such file or directory"));
    named.options.audit.file = named.directory.path();
    CHECK_THAT(named.problem(), ContainsSubstring("Is a directory"));
    named.options.audit.file = "/dev/null";
    CHECK_THAT(named.problem(), ContainsSubstring("not a regular file"));
    named.options.audit.file = named.directory.write("audit.jsonl", "");

    // These make folders that are not there.
    named.options.ticket_store = named.file("new/folder/tickets.db");
    named.log = named.file("logs/guard.log");
    CHECK(named.problems().empty());
    named.log = "/dev/null";
    CHECK(named.problems().empty());
    named.log = named.directory.path();
    CHECK_THAT(named.problem(), ContainsSubstring("log.file: "));
    named.log = named.file("audit.jsonl/guard.log");
    CHECK_THAT(named.problem(), ContainsSubstring("Not a directory"));
    named.log.clear();
    named.options.ticket_store = named.directory.write("no.db",
                                                       "a text of more than sixteen bytes");
    CHECK_THAT(named.problem(),
               ContainsSubstring("approval.store: ") && ContainsSubstring("is no SQLite database"));
    named.options.tickets_in_postgres = true;
    CHECK(named.problems().empty());
    named.options.audit.checkpoint_key = named.file("missing.key");
    CHECK_THAT(named.problem(), ContainsSubstring("audit.checkpoint_key: "));
}

TEST_CASE("it is looked at with the rights of who asks") {
    Named named;
    const uid_t user = ::geteuid();
    constexpr uid_t nobody = 65534;
    REQUIRE(::chmod(named.directory.path().c_str(), 0555) == 0);
    if (user == 0) REQUIRE(::seteuid(nobody) == 0);
    const auto found = named.problems();
    REQUIRE(::seteuid(user) == 0);
    REQUIRE(::chmod(named.directory.path().c_str(), 0755) == 0);
    REQUIRE(found.size() == 2);
    for (const std::string& one : found) CHECK_THAT(one, ContainsSubstring("Permission denied"));
}
