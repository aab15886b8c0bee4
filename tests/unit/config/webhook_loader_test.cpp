#include "config/webhook_loader.h"
#include "config/loader.h"
#include "support/catch.h"

#include <boost/json.hpp>

#include <map>

using namespace pgchaperone;
using namespace pgchaperone::config;
using namespace std::chrono_literals;
using Catch::Matchers::ContainsSubstring;
using webhook::Event;
using webhook::Hook;

namespace {

struct Loading {
    std::map<std::string, std::string> files;
    Problems problems;
    std::optional<Loaded> loaded;

    explicit Loading(const std::string& hooks, std::map<std::string, std::string> more = {})
        : files(std::move(more)) {
        files["/etc/a.yaml"] = "webhooks:\n" + hooks;
        Surroundings s;
        s.read_file = [this](const std::filesystem::path& path) -> Parsed<std::string> {
            const auto at = files.find(path.string());
            if (at == files.end()) return PatternError{"No such file or directory"};
            return {boost::system::in_place_value, at->second};
        };
        s.environment = [](const std::string& name) -> std::optional<std::string> {
            if (name == "SECRET") return "from the environment";
            return std::nullopt;
        };
        Request request;
        request.file = "/etc/a.yaml";
        loaded = config::load(request, problems, s);
    }
    const Hook& hook() const {
        INFO(problems.text());
        REQUIRE(loaded.has_value());
        return loaded->options.webhooks.at(0);
    }
};

std::string with(const std::string& more) {
    return "  - { name: ops, url: https://h/x, " + more + " }\n";
}

}  // namespace

TEST_CASE("a webhook needs a name and a URL and nothing else") {
    const Loading l("  - { name: ops, url: https://h/x }\n");
    Hook expected;
    expected.name = "ops";
    expected.url = "https://h/x";
    CHECK(l.hook() == expected);
    CHECK(l.problems.empty());
    CHECK(expected.events ==
          std::vector{Event::opened, Event::decided, Event::expired, Event::glass});
    CHECK(expected.timeout == 10s);
    CHECK(expected.retry_for == 1h);
}

TEST_CASE("every key of a webhook is read") {
    const Loading l(R"(  - name: ops-chat
    url: https://hooks.example.org/x
    format: template
    template: '{"text": "{event} {statement}"}'
    content_type: application/json
    events: [used, glass, used]
    secret: ["${SECRET}", whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=]
    secret_file: hook.secret
    headers: { Authorization: "Bearer ${SECRET}", X-Team: ops }
    statement: true
    ca: ca.pem
    timeout: 3s
    retry_for: 0s
)",
                    {{"/etc/hook.secret", "one of sixteen bytes\r\n\nanother of sixteen\n"},
                     {"/etc/ca.pem", "x"}});
    const Hook& hook = l.hook();
    CHECK(l.problems.text() == "");
    CHECK(hook.name == "ops-chat");
    CHECK(hook.format == webhook::Format::text);
    CHECK(hook.events == std::vector{Event::used, Event::glass});
    REQUIRE(hook.keys.size() == 4);
    CHECK(hook.keys[0] == "from the environment");
    CHECK(hook.keys[1].size() == 32);
    CHECK(hook.keys[2] == "one of sixteen bytes");
    CHECK(hook.keys[3] == "another of sixteen");
    CHECK(hook.key_files == std::vector<std::filesystem::path>{"/etc/hook.secret"});
    REQUIRE(hook.headers.size() == 2);
    CHECK(hook.headers[0].second == "Bearer from the environment");
    CHECK(hook.statement);
    CHECK(hook.ca == "/etc/ca.pem");
    CHECK(hook.timeout == 3s);
    CHECK(hook.retry_for == 0s);
    CHECK(webhook_keys().size() == 13);
}

TEST_CASE("everything that is wrong with a webhook is told with its place and a way out") {
    const struct {
        std::string hook, complaint, place;
    } cases[] = {
        {"  - { url: https://h/x }\n", "a webhook needs a name", "/etc/a.yaml:2:5"},
        {"  - { name: ops }\n", "a webhook needs a url", "/etc/a.yaml:2:5"},
        {"  ops\n", "webhooks must be a list", "/etc/a.yaml:2:3"},
        {"  - ops\n", "a webhook must be a mapping", "/etc/a.yaml:2:5"},
        {with("evnets: [opened]"), "did you mean \"events\"?", "/etc/a.yaml:2:36"},
        {with("events: [opend]"), "did you mean \"opened\"?", "/etc/a.yaml:2:45"},
        {with("events: []"), "events is an empty list", "/etc/a.yaml:2:44"},
        {with("format: slak"), "did you mean \"slack\"?", "/etc/a.yaml:2:44"},
        {with("format: template"), "needs a template", "/etc/a.yaml:2:44"},
        {with("template: x"), "for format: template alone", "/etc/a.yaml:2:36"},
        {with("content_type: text/plain"), "for format: template alone", "/etc/a.yaml:2:36"},
        {with("format: template, content_type: text/html, template: x"),
         "must be application/json or text/plain", "/etc/a.yaml:2:68"},
        {with("format: template, template: '{\"a\": \"{tiket}\"}'"), "did you mean \"ticket\"?",
         "/etc/a.yaml:2:64"},
        {with("format: template, template: '{\"a\": {ticket}}'"), "this is no JSON",
         "/etc/a.yaml:2:64"},
        {with("format: template, template: '{\"a\": \"{statement}\"}'"),
         "{statement} without statement: true", "/etc/a.yaml:2:64"},
        {with("secret: whsec_-"), "no Base64", "/etc/a.yaml:2:44"},
        {with("secret: ''"), "secret is empty", "/etc/a.yaml:2:44"},
        {with("secret: [aaaaaaaaaaaaaaaa1, aaaaaaaaaaaaaaaa2, aaaaaaaaaaaaaaaa3, "
              "aaaaaaaaaaaaaaaa4, aaaaaaaaaaaaaaaa5]"),
         "more than 4 secrets", "/etc/a.yaml:2:"},
        {with("secret_file: none"), "can't read /etc/none: No such file", "/etc/a.yaml:2:49"},
        {with("secret_file: empty"), "holds no secret", "/etc/a.yaml:2:49"},
        {with("ca: none"), "can't read /etc/none: No such file", "/etc/a.yaml:2:40"},
        {with("headers: [x]"), "headers must be a mapping", "/etc/a.yaml:2:45"},
        {with("headers: { 'a b': x }"), "no name of a header", "/etc/a.yaml:2:47"},
        {with("headers: { Host: x }"), "is set by pgchaperone itself", "/etc/a.yaml:2:47"},
        {with("headers: { Webhook-Id: x }"), "is set by pgchaperone itself", "/etc/a.yaml:2:47"},
        {with("headers: { a: x, A: y }"), "A stands twice", "/etc/a.yaml:2:53"},
        {with("headers: { a: \"x\\r\\nHost: y\" }"), "holds a line break", "/etc/a.yaml:2:50"},
        {with("statement: perhaps"), "must be true or false", "/etc/a.yaml:2:47"},
        {with("timeout: 5"), "is not a duration", "/etc/a.yaml:2:45"},
        {with("timeout: 2m"), "timeout must be from 100ms to 1m", "/etc/a.yaml:2:45"},
        {with("retry_for: 8d"), "retry_for must be from", "/etc/a.yaml:2:47"},
        {"  - { name: 'a b', url: https://h/x }\n", "a webhook's name is one word",
         "/etc/a.yaml:2:13"},
        {with("statement: false") + with("statement: true"), "a second webhook of the name \"ops\"",
         "/etc/a.yaml:3:13"},
    };
    for (const auto& one : cases) {
        const Loading l(one.hook, {{"/etc/empty", "\n\n"}});
        INFO(one.hook);
        CHECK_FALSE(l.loaded);
        CHECK_THAT(l.problems.text(), ContainsSubstring(one.complaint));
        CHECK_THAT(l.problems.text(), ContainsSubstring(one.place));
    }
}

TEST_CASE("a URL is checked, and neither its path nor a secret is printed with what is wrong") {
    for (const char* url : {"ftp://h/not-to-be-seen", "https://u:not-to-be-seen@h/",
                            "not-to-be-seen", "https://h:0x/not-to-be-seen"}) {
        const Loading l("  - { name: ops, url: \"" + std::string(url) +
                        "\", secret: never-to-be-seen, headers: { a: nowhere-to-be-seen }, "
                        "foo: 1 }\n");
        CHECK_FALSE(l.loaded);
        CHECK_THAT(l.problems.text(), ContainsSubstring("url: "));
        CHECK_THAT(l.problems.text(), ContainsSubstring("unknown key \"foo\""));
        CHECK_THAT(l.problems.text(), !ContainsSubstring("to-be-seen"));
    }
    // Good as it is; the line is shown for the sake of another key.
    const Loading l("  - { name: ops, url: https://h/not-to-be-seen, foo: 1 }\n");
    CHECK_THAT(l.problems.text(), ContainsSubstring("url: https://h***************, foo: 1"));
}

TEST_CASE("what works but should not stay so is a warning") {
    const Loading in_clear("  - { name: ops, url: http://h.example.org/x }\n");
    CHECK(in_clear.loaded);
    CHECK_THAT(in_clear.problems.text(),
               ContainsSubstring("warning: url: what is sent to h.example.org goes in clear"));
    CHECK(Loading("  - { name: ops, url: http://127.0.0.1:81/x }\n").problems.empty());
    const Loading weak(with("secret: short"));
    CHECK(weak.loaded);
    CHECK_THAT(weak.problems.text(), ContainsSubstring("fewer than 16 bytes can be guessed"));
}

TEST_CASE("there is a bound to the number of webhooks") {
    std::string many;
    for (std::size_t i = 0; i <= webhooks_max; ++i)
        many += "  - { name: h" + std::to_string(i) + ", url: https://h/x }\n";
    const Loading l(many);
    CHECK_FALSE(l.loaded);
    CHECK_THAT(l.problems.text(), ContainsSubstring("more than 16 webhooks"));
}

TEST_CASE("the effective configuration shows webhooks without what is secret in them") {
    const Loading l(R"(  - name: ops
    url: https://h.example.org/secret-path
    secret: a-secret-of-the-test
    headers: { Authorization: secret-header }
    format: template
    template: '{"text": "{ticket}"}'
    retry_for: 0s
)");
    REQUIRE(l.loaded);
    const std::string shown = show(*l.loaded);
    CHECK_THAT(shown, ContainsSubstring("url: https://h.example.org/********") &&
                          ContainsSubstring("Authorization: \"********\"") &&
                          ContainsSubstring("retry_for: 0s"));
    CHECK_THAT(shown, !ContainsSubstring("secret-"));
    const Loading again(shown.substr(shown.find("webhooks:\n") + 10,
                                     shown.find("policy:") - shown.find("webhooks:\n") - 10));
    CHECK(again.hook().text == "\"********\"");
    CHECK(again.hook().events == l.hook().events);
}

TEST_CASE("the JSON Schema knows every key of a webhook") {
    const auto schema = boost::json::parse(json_schema());
    const auto& hooks = schema.at("properties").at("webhooks");
    CHECK(hooks.at("maxItems") == webhooks_max);
    const auto& keys = hooks.at("items").at("properties").as_object();
    CHECK(keys.size() == webhook_keys().size());
    for (const WebhookKey& key : webhook_keys()) CHECK(keys.contains(key.key));
}

TEST_CASE("a secret of nothing but asterisks is hidden like any other") {
    const Loading l("  - { name: ops, url: https://h/*, secret: '****************', foo: 1 }\n");
    CHECK_THAT(l.problems.text(), ContainsSubstring("unknown key \"foo\""));
}
