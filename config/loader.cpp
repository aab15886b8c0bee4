#include "config/loader.h"

#include "config/policy_loader.h"
#include "config/upstreams.h"
#include "config/webhook_loader.h"
#include "policy/rule_presets.h"

#include <algorithm>
#include <map>
#include <set>
#include <sstream>
#include <stdexcept>

namespace pgchaperone::config {
namespace {

constexpr int deepest_include = 16;

std::string section_of(std::string_view key) {
    const auto dot = key.find('.');
    return dot == std::string_view::npos ? std::string() : std::string(key.substr(0, dot));
}

class Loader {
public:
    Loader(const Request& request, Problems& problems, const Surroundings& surroundings)
        : request_(request),
          problems_(problems),
          surroundings_(surroundings),
          policies_(problems, surroundings) {}

    std::optional<Loaded> run() {
        if (!request_.file.empty()) load_file(request_.file, nullptr, 0);
        for (const auto& [setting, text] : request_.overrides) {
            if (const auto wrong = setting->set(loaded_.options, text, {})) {
                problems_.error({std::string(setting->option), 0, 0}, *wrong);
            }
            loaded_.places[std::string(setting->key)] = {std::string(setting->option), 0, 0};
        }
        if (!request_.policy.empty()) {
            load_named_policy(request_.policy);
        } else if (!has_policy_) {
            loaded_.policy = policies_.load_preset(request_.default_preset);
        }
        if (entries_) load_upstreams(*entries_);
        if (!problems_.has_errors()) report_inconsistencies();
        // What is wrong elsewhere is no reason to tell of these another time.
        report_unreachable_rules(loaded_.policy, problems_);
        for (const Upstream& entry : loaded_.upstreams) {
            if (has_own_policy_.count(entry.name) != 0)
                report_unreachable_rules(entry.policy, problems_);
        }
        if (problems_.has_errors()) return std::nullopt;
        loaded_.files.insert(loaded_.files.end(), policies_.included().begin(),
                             policies_.included().end());
        return std::move(loaded_);
    }

private:
    // `asked` and `asker`: where the file is included from.
    void load_file(const std::filesystem::path& path, YamlReader* asker, int depth,
                   const YAML::Node& asked = {}) {
        const auto fail = [&](const std::string& message, const std::string& advice) {
            if (asker != nullptr)
                asker->error(asked, message, advice);
            else
                problems_.error({path.string(), 0, 0}, message, advice);
        };
        if (depth >= deepest_include ||
            std::find(open_.begin(), open_.end(), path) != open_.end()) {
            return fail("\"" + path.string() + "\" includes itself, perhaps by way of another file",
                        "");
        }
        const auto text = surroundings_.read_file(path);
        if (!text) {
            return fail(
                "can't read the configuration " + path.string() + ": " + text.error().message,
                asker != nullptr
                    ? "names of included files are relative to the file that includes them"
                    : "");
        }
        loaded_.files.push_back(path);
        open_.push_back(path);
        const auto reader = std::make_shared<YamlReader>(path.string(), problems_, surroundings_);
        if (const auto root = reader->parse(*text); root && !root->IsNull())
            load_root(reader, *root, path, depth);
        open_.pop_back();
    }

    void load_root(const std::shared_ptr<YamlReader>& shared_reader, const YAML::Node& root,
                   const std::filesystem::path& path, int depth) {
        YamlReader& reader = *shared_reader;
        const std::filesystem::path base = path.parent_path();
        // Included files come first, wherever the key stands: this file overrides them.
        if (root.IsMap() && root["include"]) {
            if (const auto files = reader.texts(root["include"], "include")) {
                for (const auto& file : *files) {
                    load_file((base / file.text).lexically_normal(), &reader, depth + 1, file.node);
                }
            }
        }
        std::vector<std::string> keys = {"include", "policy", "webhooks", "upstreams"};
        std::set<std::string> sections;
        for (const Setting& setting : settings()) {
            const std::string section = section_of(setting.key);
            if (section.empty())
                keys.emplace_back(setting.key);
            else if (sections.insert(section).second)
                keys.push_back(section);
        }
        // A file of nothing but a policy may leave the outer key away: see load_named_policy.
        reader.mapping(
            root, "the configuration", keys,
            [&](const std::string& key, const YAML::Node& at, const YAML::Node& value) {
                if (key == "include") return;
                if (key == "policy") return load_policy(reader, at, value, base);
                if (key == "upstreams") {
                    // They take over what is said elsewhere, and so are read last.
                    if (entries_)
                        return reader.error(at,
                                            "a second list of upstreams: there is one at " +
                                                entries_->reader->place(entries_->node).text() +
                                                " already",
                                            "keep all of them in one file");
                    entries_ = Entries{shared_reader, value, base};
                    return;
                }
                if (key == "webhooks") {
                    loaded_.options.webhooks = load_webhooks(reader, value, base, surroundings_);
                    return;
                }
                if (sections.count(key) != 0)
                    return load_section(reader, key, value, base, top_level());
                set(reader, *find_setting(key), value, base, top_level());
            });
    }

    // Where what is read goes: the top level, or an entry of `upstreams`.
    struct Target {
        Options& options;
        std::map<std::string, policy::Place>& places;
        bool entry = false;
    };
    Target top_level() { return {loaded_.options, loaded_.places}; }

    void load_section(YamlReader& reader, const std::string& section, const YAML::Node& node,
                      const std::filesystem::path& base, Target target) {
        std::vector<std::string> keys;
        for (const Setting& setting : settings()) {
            if (section_of(setting.key) != section) continue;
            if (target.entry && scope_of(setting) == Scope::process) continue;
            keys.emplace_back(setting.key.substr(section.size() + 1));
        }
        reader.mapping(node, section, keys,
                       [&](const std::string& key, const YAML::Node&, const YAML::Node& value) {
                           set(reader, *find_setting(section + "." + key), value, base, target);
                       });
    }

    void set(YamlReader& reader, const Setting& setting, const YAML::Node& node,
             const std::filesystem::path& base, Target target) {
        std::optional<std::string> text;
        if (setting.shape == Setting::Shape::list && node.IsSequence()) {
            const auto items = reader.texts(node, setting.key);
            if (!items) return;
            text.emplace();
            for (const YamlReader::Item& item : *items) {
                if (item.text.find(',') != std::string::npos)
                    reader.error(item.node,
                                 std::string(setting.key) + ": \"" + item.text + "\" has a comma",
                                 "give each its own entry of the list");
                *text += (text->empty() ? "" : ",") + item.text;
            }
        } else {
            text = reader.text(node, setting.key);
        }
        if (!text) return;
        if (const auto wrong = setting.set(target.options, *text, base)) {
            reader.error(node, std::string(setting.key) + ": " + *wrong);
        }
        target.places[std::string(setting.key)] = reader.place(node);
    }

    // A list of further servers: see config/upstreams.h.
    struct Entries {
        std::shared_ptr<YamlReader> reader;
        YAML::Node node;
        std::filesystem::path base;
    };

    void load_upstreams(const Entries& entries) {
        YamlReader& reader = *entries.reader;
        if (!entries.node.IsSequence())
            return reader.error(entries.node, "upstreams must be a list",
                                "begin each server with a dash: - name: billing");
        if (entries.node.size() > upstreams_max)
            return reader.error(entries.node,
                                "more than " + std::to_string(upstreams_max) + " upstreams",
                                "run another pgchaperone for some of them");
        for (const auto& item : entries.node) load_upstream(reader, item, entries.base);
    }

    void load_upstream(YamlReader& reader, const YAML::Node& node,
                       const std::filesystem::path& base) {
        std::vector<std::string> keys = {"name", "policy"};
        std::set<std::string> sections;
        for (const Setting& setting : settings()) {
            if (scope_of(setting) == Scope::process) continue;
            const std::string section = section_of(setting.key);
            if (section.empty())
                keys.emplace_back(setting.key);
            else if (sections.insert(section).second)
                keys.push_back(section);
        }
        Upstream entry;
        entry.options = loaded_.options;
        // Parts that only make sense together are taken over together, or not at all.
        entry.options.databases = Options{}.databases;
        if (node.IsMap() && (node["authentication"] || node["users"])) {
            entry.options.authentication = Options{}.authentication;
            entry.options.users = {};
        }
        if (node.IsMap() && node["limits"]) entry.options.limits = {};
        entry.policy = loaded_.policy;
        entry.place = reader.place(node);
        std::map<std::string, policy::Place> places;
        bool own_policy = false;
        const Target target{entry.options, places, true};
        const bool good = reader.mapping(
            node, "an entry of upstreams", keys,
            [&](const std::string& key, const YAML::Node&, const YAML::Node& value) {
                if (key == "name") {
                    entry.name = upstream_name(reader, value);
                } else if (key == "policy") {
                    own_policy = true;
                    entry.policy = policies_.load(reader, value, base);
                } else if (sections.count(key) != 0) {
                    load_section(reader, key, value, base, target);
                } else {
                    set(reader, *find_setting(key), value, base, target);
                }
            });
        if (!good) return;
        if (!node["name"])
            reader.error(node, "this entry of upstreams has no name",
                         "name: billing; it stands in logs, tickets and metrics");
        check_entry(reader, node, places);
        if (own_policy) has_own_policy_.insert(entry.name);
        entry.places = places;
        entry_places_[entry.name] = std::move(places);
        loaded_.upstreams.push_back(std::move(entry));
    }

    std::string upstream_name(YamlReader& reader, const YAML::Node& node) {
        const auto name = reader.text(node, "name");
        if (!name) return {};
        if (!is_upstream_name(*name)) {
            reader.error(node, "name: the name of an upstream is one word of at most " +
                                   std::to_string(upstream_name_bytes_max) +
                                   " letters, digits, dots, dashes and underscores");
        } else if (entry_places_.count(*name) != 0) {
            reader.error(node, "a second upstream of the name \"" + *name + "\"",
                         "give one of them another name");
        }
        return *name;
    }

    // What belongs to a listener, only where it has one.
    void check_entry(YamlReader& reader, const YAML::Node& node,
                     const std::map<std::string, policy::Place>& places) {
        if (places.count("listen") != 0) return;
        if (places.count("databases") == 0)
            reader.error(node,
                         "nobody would come to this one: it has neither databases nor a "
                         "listener",
                         "say which databases are there, or give it a `listen` of its own");
        for (const auto& [key, place] : places) {
            if (scope_of(*find_setting(key)) == Scope::listener)
                problems_.error(place,
                                key +
                                    " belongs to the listener, which this one shares with the "
                                    "top level",
                                "set it there, or give this one a `listen` of its own");
        }
    }

    // By their place, and each but once: entries take over what the top level has.
    void report_inconsistencies() {
        std::set<std::pair<std::string, std::string>> told;
        const auto report = [&](const Options& options,
                                const std::map<std::string, policy::Place>& own,
                                const policy::Place& otherwise) {
            for (const auto& problem : inconsistencies(options)) {
                const std::string key(problem.key);
                if (!told.insert({key, problem.message}).second) continue;
                const auto at = own.find(key);
                problems_.error(at != own.end() ? at->second : otherwise,
                                key + ": " + problem.message, problem.advice);
            }
        };
        report(loaded_.options, loaded_.places, policy::Place{request_.file.string(), 0, 0});
        for (const Upstream& entry : loaded_.upstreams)
            report(entry.options, entry_places_[entry.name], entry.place);
        for (const EntryProblem& problem : problems_of_upstreams(loaded_)) {
            const auto& places = entry_places_[problem.entry->name];
            const auto at = places.find(std::string(problem.key));
            const policy::Place& place = at != places.end() ? at->second : problem.entry->place;
            if (problem.warning)
                problems_.warning(place, problem.message, problem.advice);
            else
                problems_.error(place, problem.message, problem.advice);
        }
    }

    void load_policy(YamlReader& reader, const YAML::Node& at, const YAML::Node& node,
                     const std::filesystem::path& base) {
        if (has_policy_) {
            reader.error(at,
                         "a second policy: there is one at " + policy_place_.text() + " already",
                         "keep one, and include the other's rules: rules: [ { include: FILE } ]");
            return;
        }
        has_policy_ = true;
        policy_place_ = reader.place(at);
        // The command line's policy wins; the file's is read all the same, for its mistakes.
        loaded_.policy = policies_.load(reader, node, base);
    }

    // A preset, a file with a `policy:` (other settings of such a file are not taken), or a policy
    // alone.
    void load_named_policy(const std::string& name) {
        for (const policy::Preset& preset : policy::presets()) {
            if (preset.name == name) {
                loaded_.policy = policies_.load_preset(name);
                return;
            }
        }
        const std::filesystem::path path(name);
        const auto text = surroundings_.read_file(path);
        if (!text) {
            std::vector<std::string> names;
            for (const policy::Preset& preset : policy::presets()) names.emplace_back(preset.name);
            const std::string hint = did_you_mean(name, names);
            problems_.error(
                {"--policy", 0, 0}, "can't read " + name + ": " + text.error().message,
                (hint.empty() ? std::string() : hint + " ") + "presets: " + one_of(names));
            return;
        }
        loaded_.files.push_back(path);
        YamlReader reader(path.string(), problems_, surroundings_);
        const auto root = reader.parse(*text);
        if (!root) return;
        if (root->IsMap() && (*root)["policy"]) {
            loaded_.policy = policies_.load(reader, (*root)["policy"], path.parent_path());
        } else if (root->IsNull()) {
            reader.error(*root, "this file is empty", "write a policy, or name a preset");
        } else {
            loaded_.policy = policies_.load(reader, *root, path.parent_path());
        }
    }

    const Request& request_;
    Problems& problems_;
    const Surroundings& surroundings_;
    PolicyLoader policies_;
    Loaded loaded_;
    std::vector<std::filesystem::path> open_;
    policy::Place policy_place_;
    bool has_policy_ = false;
    std::optional<Entries> entries_;
    std::map<std::string, std::map<std::string, policy::Place>> entry_places_;  // by its name
    std::set<std::string> has_own_policy_;                                      // likewise
};

std::string quoted(const std::string& text) {
    const bool plain = !text.empty() && std::all_of(text.begin(), text.end(), [](char c) {
        return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
               c == '/' || c == '_' || c == '.' || c == '-' || c == ':';
    });
    if (plain) return text;
    std::string out = "\"";
    for (const char c : text)
        out += c == '"' || c == '\\' ? std::string("\\") + c : std::string(1, c);
    return out + "\"";
}

// A section without a value would be no mapping.
bool has_values(const std::string& section, const Options& options) {
    return std::any_of(settings().begin(), settings().end(), [&](const Setting& setting) {
        return section_of(setting.key) == section && !setting.show(options).empty();
    });
}

void show_settings(const Options& options, bool comments, std::ostream& out) {
    std::string section;
    for (const Setting& setting : settings()) {
        const std::string own_section = section_of(setting.key);
        std::string_view name = setting.key;
        if (!own_section.empty()) name.remove_prefix(own_section.size() + 1);
        if (own_section != section && !own_section.empty())
            out << (has_values(own_section, options) ? "" : "# ") << own_section << ":\n";
        section = own_section;
        const std::string indent = section.empty() ? "" : "  ";
        const std::string value = setting.show(options);
        if (comments) out << indent << "# " << setting.summary << '\n';
        // What is not set has no value to write.
        if (value.empty())
            out << indent << "# " << name << ": " << setting.metavar << '\n';
        else
            out << indent << name << ": " << quoted(value) << '\n';
    }
}

}  // namespace

std::optional<Loaded> load(const Request& request, Problems& problems,
                           const Surroundings& surroundings) {
    return Loader(request, problems, surroundings).run();
}

policy::Policy built_in_policy() {
    Problems problems;
    const Surroundings none;
    PolicyLoader loader(problems, none);
    policy::Policy policy = loader.load_preset(policy::built_in_preset);
    // Tests load every preset; a broken one can't be built and shipped.
    if (problems.has_errors())
        throw std::logic_error("the built-in policy is broken:\n" + problems.text());
    return policy;
}

std::string default_configuration() {
    std::ostringstream out;
    out << "# The built-in configuration of pgchaperone. Every setting has its default here; a "
           "file of your own needs\n"
           "# only what differs.\n";
    show_settings(Options{}, true, out);
    out << "\n# The built-in policy. `policy: { preset: interactive }` means the same.\n";
    for (const policy::Preset& preset : policy::presets()) {
        if (preset.name == policy::built_in_preset) out << preset.yaml;
    }
    return out.str();
}

}  // namespace pgchaperone::config
