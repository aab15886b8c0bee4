#include "config/webhook_loader.h"

#include "config/values.h"
#include "webhook/signature.h"
#include "webhook/text.h"
#include "webhook/url.h"

#include <algorithm>
#include <array>
#include <map>
#include <set>

namespace pgchaperone::config {
namespace {

using webhook::Format;
using webhook::Hook;
using Shape = WebhookKey::Shape;

constexpr std::size_t name_bytes_max = 64;
constexpr std::size_t keys_max = 4;
constexpr std::size_t headers_max = 16;
constexpr std::chrono::milliseconds timeout_min{100};
constexpr std::chrono::milliseconds timeout_max{60'000};
constexpr std::chrono::milliseconds retry_for_max{7 * 86'400'000LL};
constexpr const char* hidden = "********";

std::vector<std::string> words_of(std::span<const std::string_view> names) {
    return {names.begin(), names.end()};
}

const std::vector<std::string>& content_types() {
    static const std::vector<std::string> words = {std::string(webhook::json_content),
                                                   std::string(webhook::plain_content)};
    return words;
}

bool is_token(std::string_view text) {
    return !text.empty() && std::all_of(text.begin(), text.end(), [](char c) {
        return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
               std::string_view("!#$%&'*+-.^_`|~").find(c) != std::string_view::npos;
    });
}

bool is_header_value(std::string_view text) {
    return std::all_of(text.begin(), text.end(), [](char c) {
        const auto byte = static_cast<unsigned char>(c);
        return byte >= 0x20 && byte != 0x7f;
    });
}

std::string lower(std::string_view text) {
    std::string out(text);
    for (char& c : out) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
    return out;
}

// Reads one item of the list.
class HookLoader {
public:
    HookLoader(YamlReader& reader, const std::filesystem::path& base,
               const Surroundings& surroundings)
        : reader_(reader), base_(base), surroundings_(surroundings) {}

    Hook load(const YAML::Node& node) {
        std::vector<std::string> keys;
        for (const WebhookKey& key : webhook_keys()) keys.emplace_back(key.key);
        hide(node);
        const bool map = reader_.mapping(
            node, "a webhook", keys,
            [this](const std::string& key, const YAML::Node& at, const YAML::Node& value) {
                nodes_[key] = value;
                key_nodes_[key] = at;
                take(key, value);
            });
        if (map) check(node);
        return std::move(hook_);
    }

private:
    // Lines of the file are shown where something is wrong; what is secret in them is not.
    void hide(const YAML::Node& node) {
        if (!node.IsMap()) return;
        for (const char* key : {"url", "secret", "headers"}) {
            const YAML::Node value = node[key];
            if (!value) continue;
            if (value.IsScalar()) {
                const std::string text = value.Scalar();
                const std::size_t host = text.find("://");
                const std::size_t path = text.find('/', host == std::string::npos ? 0 : host + 3);
                const bool url = key == std::string_view("url") && host != std::string::npos &&
                                 text.find('@') == std::string::npos;
                if (!url) reader_.hide(text);
                if (url && path != std::string::npos) reader_.hide(text.substr(path));
            } else {
                for (const auto& item : value) {
                    const YAML::Node& inside = value.IsMap() ? item.second : item;
                    if (inside.IsScalar()) reader_.hide(inside.Scalar());
                }
            }
        }
    }

    void take(const std::string& key, const YAML::Node& node) {
        if (key == "name") return take_name(node);
        if (key == "url") return take_url(node);
        if (key == "format") {
            const auto words = words_of(webhook::format_names());
            if (const auto word = this->word(node, key, words))
                hook_.format = static_cast<Format>(*word);
        } else if (key == "template") {
            if (const auto text = reader_.text(node, key)) hook_.text = *text;
        } else if (key == "content_type") {
            if (const auto word = this->word(node, key, content_types()))
                hook_.content_type = content_types()[*word];
        } else if (key == "events") {
            take_events(node);
        } else if (key == "secret") {
            if (const auto secrets = reader_.texts(node, key))
                for (const auto& item : *secrets) take_secret(item.node, key, item.text);
        } else if (key == "secret_file") {
            take_secret_files(node);
        } else if (key == "headers") {
            take_headers(node);
        } else if (key == "statement") {
            if (const auto flag = reader_.value<bool>(node, key, parse_flag))
                hook_.statement = *flag;
        } else if (key == "ca") {
            if (const auto text = reader_.text(node, key)) {
                hook_.ca = (base_ / *text).lexically_normal();
                if (const auto read = surroundings_.read_file(hook_.ca); !read)
                    reader_.error(
                        node, "ca: can't read " + hook_.ca.string() + ": " + read.error().message);
            }
        } else if (key == "timeout") {
            take_span(node, key, timeout_min, timeout_max, hook_.timeout);
        } else if (key == "retry_for") {
            take_span(node, key, std::chrono::milliseconds(0), retry_for_max, hook_.retry_for);
        }
    }

    std::optional<std::size_t> word(const YAML::Node& node, const std::string& key,
                                    const std::vector<std::string>& words) {
        return reader_.value<std::size_t>(
            node, key, [&](std::string_view text) { return parse_word(text, words); });
    }

    void take_span(const YAML::Node& node, const std::string& key, std::chrono::milliseconds least,
                   std::chrono::milliseconds most, std::chrono::milliseconds& target) {
        const auto span = reader_.value<std::chrono::milliseconds>(node, key, parse_duration);
        if (!span) return;
        if (*span < least || *span > most)
            return reader_.error(
                node, key + " must be from " + duration_text(least) + " to " + duration_text(most));
        target = *span;
    }

    void take_name(const YAML::Node& node) {
        const auto text = reader_.text(node, "name");
        if (!text) return;
        const bool good = !text->empty() && text->size() <= name_bytes_max && is_token(*text);
        if (!good)
            return reader_.error(node,
                                 "name: a webhook's name is one word of at most " +
                                     std::to_string(name_bytes_max) + " letters, digits and signs",
                                 "it stands in the log, such as ops-chat");
        hook_.name = *text;
    }

    void take_url(const YAML::Node& node) {
        const auto text = reader_.text(node, "url");
        if (!text) return;
        std::string problem;
        const auto url = webhook::url_of(*text, problem);
        if (!url)
            return reader_.error(node, "url: " + problem,
                                 "write it as https://host/path; what authorises belongs into "
                                 "headers or secret");
        if (!url->tls && !url->loopback)
            reader_.warning(node,
                            "url: what is sent to " + url->host +
                                " goes in clear: who is in between reads and changes it",
                            "use https");
        hook_.url = *text;
    }

    void take_events(const YAML::Node& node) {
        const auto items = reader_.texts(node, "events");
        if (!items) return;
        hook_.events.clear();
        const auto words = words_of(webhook::event_names());
        for (const auto& item : *items) {
            const auto word = parse_word(item.text, words);
            if (!word) {
                reader_.error(item.node, "events: " + word.error().message);
                continue;
            }
            const auto event = static_cast<webhook::Event>(*word);
            if (!hook_.wants(event)) hook_.events.push_back(event);
        }
    }

    void take_secret(const YAML::Node& node, const std::string& key, std::string_view text) {
        auto secret = webhook::key_of(text);
        if (!secret)
            return reader_.error(
                node,
                key + (text.empty() ? " is empty" : ": what stands behind whsec_ is no Base64"),
                "make one: printf whsec_; openssl rand -base64 32");
        if (secret->size() < webhook::key_bytes_min)
            reader_.warning(node,
                            key + ": a secret of fewer than " +
                                std::to_string(webhook::key_bytes_min) + " bytes can be guessed",
                            "make one: printf whsec_; openssl rand -base64 32");
        if (hook_.keys.size() == keys_max)
            return reader_.error(node,
                                 "more than " + std::to_string(keys_max) +
                                     " secrets: each of them "
                                     "signs every message",
                                 "remove those that no receiver knows any more");
        hook_.keys.push_back(*std::move(secret));
    }

    // Each line of a file that is not empty is a secret.
    void take_secret_files(const YAML::Node& node) {
        const auto items = reader_.texts(node, "secret_file");
        if (!items) return;
        for (const auto& item : *items) {
            const std::filesystem::path file = (base_ / item.text).lexically_normal();
            const auto text = surroundings_.read_file(file);
            if (!text) {
                reader_.error(item.node, "secret_file: can't read " + file.string() + ": " +
                                             text.error().message);
                continue;
            }
            hook_.key_files.push_back(file);
            const std::size_t before = hook_.keys.size();
            std::string_view rest = *text;
            while (!rest.empty()) {
                const std::size_t end = std::min(rest.find('\n'), rest.size());
                std::string_view line = rest.substr(0, end);
                if (!line.empty() && line.back() == '\r') line.remove_suffix(1);
                if (!line.empty()) take_secret(item.node, "secret_file", line);
                rest.remove_prefix(std::min(end + 1, rest.size()));
            }
            if (hook_.keys.size() == before)
                reader_.error(item.node, "secret_file: " + file.string() + " holds no secret",
                              "write one into each line");
        }
    }

    void take_headers(const YAML::Node& node) {
        static const std::set<std::string> ours = {
            "host", "content-length", "content-type", "transfer-encoding", "expect", "connection",
            "te",   "upgrade",        "trailer"};
        if (!node.IsMap())
            return reader_.error(node, "headers must be a mapping of names to values",
                                 "such as headers: { Authorization: \"Bearer ${TOKEN}\" }");
        std::set<std::string> seen;
        for (const auto& pair : node) {
            const std::string name = pair.first.IsScalar() ? pair.first.Scalar() : "";
            if (!is_token(name)) {
                reader_.error(pair.first, "headers: this is no name of a header");
                continue;
            }
            const std::string word = lower(name);
            if (ours.count(word) != 0 || word.starts_with("webhook-")) {
                reader_.error(pair.first, "headers: " + name + " is set by pgchaperone itself",
                              word == "content-type" ? "see content_type" : "");
                continue;
            }
            if (!seen.insert(word).second) {
                reader_.error(pair.first, "headers: " + name + " stands twice", "keep one of them");
                continue;
            }
            const auto value = reader_.text(pair.second, "headers: " + name);
            if (!value) continue;
            if (!is_header_value(*value)) {
                reader_.error(pair.second, "headers: the value of " + name +
                                               " holds a line break or another control character");
                continue;
            }
            hook_.headers.emplace_back(name, *value);
        }
        if (hook_.headers.size() > headers_max)
            reader_.error(node, "headers: at most " + std::to_string(headers_max));
    }

    // What only the whole can show.
    void check(const YAML::Node& node) {
        for (const char* key : {"name", "url"})
            if (nodes_.count(key) == 0)
                reader_.error(node, std::string("a webhook needs a ") + key,
                              key == std::string_view("name") ? "it stands in the log, such as "
                                                                "ops-chat"
                                                              : "where its messages are sent");
        const bool has_text = nodes_.count("template") != 0;
        if (hook_.format != Format::text) {
            for (const char* key : {"template", "content_type"})
                if (nodes_.count(key) != 0)
                    reader_.error(key_nodes_.at(key),
                                  std::string(key) + " is for format: template alone",
                                  "write format: template, or remove it");
            return;
        }
        if (!has_text)
            return reader_.error(nodes_.at("format"), "format: template needs a template",
                                 "such as template: '{\"text\": \"{headline}\"}'");
        check_template(nodes_.at("template"));
    }

    void check_template(const YAML::Node& node) {
        std::vector<std::string> known;
        for (const webhook::TextWord& word : webhook::text_words()) known.emplace_back(word.word);
        for (const std::string& word : webhook::words_in(hook_.text)) {
            if (std::find(known.begin(), known.end(), word) == known.end()) {
                const std::string hint = did_you_mean(word, known);
                std::string all;
                for (const std::string& one : known) all += (all.empty() ? "" : ", ") + one;
                reader_.error(node, "template: nothing is known as {" + word + "}",
                              hint.empty() ? "known words: " + all : hint);
            } else if (word == "statement" && !hook_.statement) {
                reader_.error(node, "template: {statement} without statement: true is empty",
                              "it may hold personal data and goes to the receiver; if that is "
                              "meant, write statement: true");
            }
        }
        if (hook_.content_type != webhook::json_content) return;
        if (const auto why = webhook::why_no_json(hook_.text))
            reader_.error(node, "template: this is no JSON once it is filled in: " + *why,
                          "put every {word} into a string in double quotes, or write "
                          "content_type: text/plain");
    }

    YamlReader& reader_;
    const std::filesystem::path& base_;
    const Surroundings& surroundings_;
    Hook hook_;
    std::map<std::string, YAML::Node> nodes_, key_nodes_;
};

}  // namespace

std::span<const WebhookKey> webhook_keys() {
    static constexpr std::array keys = {
        WebhookKey{"name", Shape::text, "", "What it is called in the log; needed."},
        WebhookKey{"url", Shape::text, "", "Where it is sent, by https or http; needed."},
        WebhookKey{"format", Shape::format, "json",
                   "What is sent: json (the object below), slack (for Slack and Mattermost), or "
                   "template."},
        WebhookKey{"template", Shape::text, "", "The text to send, with {word} for what is known."},
        WebhookKey{"content_type", Shape::content, "application/json",
                   "Of the template: application/json, or text/plain."},
        WebhookKey{"events", Shape::events, "opened, decided, expired, glass",
                   "What it is sent for: opened, voted, decided, expired, withdrawn, used, glass, "
                   "finished."},
        WebhookKey{"secret", Shape::texts, "",
                   "Signs every message: whsec_ and Base64, or plain text; a list while rotating."},
        WebhookKey{"secret_file", Shape::texts, "",
                   "Files with such secrets, one a line; readable for their owner alone."},
        WebhookKey{"headers", Shape::headers, "", "Further headers of the request."},
        WebhookKey{"statement", Shape::flag, "false",
                   "The first 2,000 characters of the statement are sent, too."},
        WebhookKey{"ca", Shape::path, "",
                   "Authorities that may sign the receiver's certificate (PEM), in place of the "
                   "system's."},
        WebhookKey{"timeout", Shape::duration, "10s", "How long one attempt may take."},
        WebhookKey{"retry_for", Shape::duration, "1h",
                   "How long a message is tried again before it is given up; 0s: not at all."},
    };
    return keys;
}

std::vector<Hook> load_webhooks(YamlReader& reader, const YAML::Node& node,
                                const std::filesystem::path& base,
                                const Surroundings& surroundings) {
    std::vector<Hook> hooks;
    if (!node.IsSequence()) {
        reader.error(node, "webhooks must be a list",
                     "begin each webhook with a dash: - name: ops-chat");
        return hooks;
    }
    if (node.size() > webhooks_max)
        reader.error(node, "more than " + std::to_string(webhooks_max) + " webhooks",
                     "each has a thread of its own; let one receiver pass messages on");
    std::set<std::string> names;
    for (const auto& item : node) {
        Hook hook = HookLoader(reader, base, surroundings).load(item);
        if (!hook.name.empty() && !names.insert(hook.name).second)
            reader.error(item["name"], "a second webhook of the name \"" + hook.name + "\"",
                         "give one of them another name");
        hooks.push_back(std::move(hook));
    }
    return hooks;
}

YAML::Node shown_webhooks(const std::vector<Hook>& hooks) {
    YAML::Node list(YAML::NodeType::Sequence);
    const Hook standard;
    for (const Hook& hook : hooks) {
        YAML::Node node;
        node["name"] = hook.name;
        const std::string origin = webhook::origin_of(hook.url);
        node["url"] = origin + (hook.url.size() > origin.size() + 1 ? std::string("/") + hidden
                                                                    : std::string());
        node["format"] = std::string(
            webhook::format_names()[static_cast<std::size_t>(hook.format)]);
        if (hook.format == Format::text) {
            // Some receivers want their key in the body.
            node["template"] = '"' + std::string(hidden) + '"';
            node["content_type"] = hook.content_type;
        }
        YAML::Node events(YAML::NodeType::Sequence);
        for (const webhook::Event event : hook.events)
            events.push_back(std::string(webhook::event_name(event)));
        events.SetStyle(YAML::EmitterStyle::Flow);
        node["events"] = events;
        for (std::size_t i = 0; i < hook.keys.size() && hook.key_files.empty(); ++i)
            node["secret"].push_back(std::string(hidden));
        for (const auto& file : hook.key_files) node["secret_file"].push_back(file.string());
        for (const auto& [name, value] : hook.headers) node["headers"][name] = std::string(hidden);
        node["statement"] = hook.statement;
        if (!hook.ca.empty()) node["ca"] = hook.ca.string();
        node["timeout"] = duration_text(hook.timeout);
        node["retry_for"] = hook.retry_for.count() == 0 ? "0s" : duration_text(hook.retry_for);
        list.push_back(node);
    }
    return list;
}

}  // namespace pgchaperone::config
