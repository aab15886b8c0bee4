// The reference pages against the tables that the program runs by: what is written must be so.
#include "config/loader.h"
#include "config/policy_loader.h"
#include "config/webhook_loader.h"
#include "policy/rule_presets.h"
#include "support/catch.h"
#include "webhook/text.h"

#include <fstream>
#include <iterator>

using namespace pgchaperone;

namespace {

std::string page(const char* name) {
    std::ifstream in(std::string(PGCHAPERONE_DOCS) + "/" + name);
    std::string text{std::istreambuf_iterator<char>(in), {}};
    REQUIRE_FALSE(text.empty());
    return text;
}

bool holds(const std::string& text, const std::string& what) {
    return text.find(what) != std::string::npos;
}

// The fenced blocks that begin with this line.
std::vector<std::string> blocks(const std::string& text, const std::string& fence) {
    std::vector<std::string> out;
    const std::string open = "\n" + fence + "\n";
    for (std::size_t at = text.find(open); at != std::string::npos; at = text.find(open, at)) {
        at += open.size();
        out.push_back(text.substr(at, text.find("\n```", at) + 1 - at));
    }
    return out;
}

std::string problems_of(const std::string& yaml) {
    config::Problems problems;
    config::Surroundings surroundings;
    surroundings.read_file = [&](const std::filesystem::path& path) -> config::Parsed<std::string> {
        const bool secret = path.extension() == ".secret";
        return {boost::system::in_place_value, secret ? "a secret of the documentation" : yaml};
    };
    surroundings.environment = [](const std::string&) { return std::nullopt; };
    config::Request request;
    request.file = "example.yaml";
    config::load(request, problems, surroundings);
    return problems.text();
}

}  // namespace

TEST_CASE("docs/policy.md has every condition with its summary and its example") {
    const std::string text = page("policy.md");
    for (const policy::ConditionType& type : policy::condition_types()) {
        const std::string row = "| `" + std::string(type.key) + "` | " + std::string(type.summary) +
                                " | `" + std::string(type.example) + "` |";
        INFO(row);
        CHECK(holds(text, row));
    }
    for (const auto placeholder : policy::message_placeholders())
        CHECK(holds(text, "`{" + std::string(placeholder) + "}`"));
    for (const policy::Preset& preset : policy::presets())
        CHECK(holds(text, "| `" + std::string(preset.name) + "` |"));
}

TEST_CASE("every configuration in the documentation loads without a problem") {
    std::size_t count = 0;
    for (const char* name : {"policy.md", "approval.md", "configuration.md", "application.md",
                             "web.md", "webhooks.md"}) {
        for (const std::string& block : blocks(page(name), "```yaml")) {
            INFO(name << "\n" << block);
            CHECK(problems_of(block) == "");
            ++count;
        }
    }
    CHECK(count >= 4);
}

TEST_CASE("docs/configuration.md has every setting with its option, default, example and meaning") {
    const std::string text = page("configuration.md");
    for (const config::Setting& setting : config::settings()) {
        const std::string by_default = setting.show(config::Options{});
        const std::string row = "| `" + std::string(setting.key) + "` | `" +
                                std::string(setting.option) + " " + std::string(setting.metavar) +
                                "` | " + (by_default.empty() ? "none" : "`" + by_default + "`") +
                                " | `" + std::string(setting.example) + "` | " +
                                std::string(setting.summary) + " |";
        INFO(row);
        CHECK(holds(text, row));
    }
}

TEST_CASE(
    "every example of a setting is taken from a file and says something else than the default") {
    std::string yaml, section;
    for (const config::Setting& setting : config::settings()) {
        const std::size_t dot = setting.key.find('.');
        const bool inside = dot != std::string_view::npos;
        const std::string own(inside ? setting.key.substr(0, dot) : std::string_view());
        if (inside && own != section) yaml += own + ":\n";
        section = own;
        const std::string_view name = inside ? setting.key.substr(dot + 1) : setting.key;
        yaml += std::string(inside ? "  " : "") + std::string(name) + ": " +
                std::string(setting.example) + "\n";
    }
    config::Problems problems;
    config::Surroundings surroundings;
    surroundings.read_file = [&](const std::filesystem::path&) -> config::Parsed<std::string> {
        return {boost::system::in_place_value, yaml};
    };
    surroundings.environment = [](const std::string&) { return std::nullopt; };
    config::Request request;
    request.file = "example.yaml";
    const auto loaded = config::load(request, problems, surroundings);
    INFO(yaml << problems.text());
    REQUIRE(loaded.has_value());
    CHECK(problems.text() == "");
    for (const config::Setting& setting : config::settings()) {
        INFO(setting.key << ": " << setting.example);
        config::Options alone;
        CHECK_FALSE(setting.set(alone, setting.example, {}).has_value());
        CHECK(setting.show(loaded->options) == setting.show(alone));
        CHECK(setting.show(loaded->options) != setting.show(config::Options{}));
    }
}

TEST_CASE("docs/webhooks.md has every key, event and word with its meaning") {
    const std::string text = page("webhooks.md");
    for (const config::WebhookKey& key : config::webhook_keys()) {
        const std::string by_default = key.by_default.empty()
                                           ? "none"
                                           : "`" + std::string(key.by_default) + "`";
        const std::string row = "| `" + std::string(key.key) + "` | " + by_default + " | " +
                                std::string(key.summary) + " |";
        INFO(row);
        CHECK(holds(text, row));
    }
    for (const std::string_view event : webhook::event_names())
        CHECK(holds(text, "| `" + std::string(event) + "` |"));
    for (const webhook::TextWord& word : webhook::text_words()) {
        const std::string row = "| `{" + std::string(word.word) + "}` | " +
                                std::string(word.summary) + " |";
        INFO(row);
        CHECK(holds(text, row));
    }
}
