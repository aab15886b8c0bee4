#include "config/loader.h"

#include "config/policy_loader.h"
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
            places_[std::string(setting->key)] = {std::string(setting->option), 0, 0};
        }
        if (!request_.policy.empty()) {
            load_named_policy(request_.policy);
        } else if (!has_policy_) {
            loaded_.policy = policies_.load_preset(request_.default_preset);
        }
        if (!problems_.has_errors()) {
            for (const auto& problem : inconsistencies(loaded_.options)) {
                const auto place = places_.find(std::string(problem.key));
                problems_.error(place != places_.end()
                                    ? place->second
                                    : policy::Place{request_.file.string(), 0, 0},
                                std::string(problem.key) + ": " + problem.message, problem.advice);
            }
        }
        // What is wrong elsewhere is no reason to tell of these another time.
        report_unreachable_rules(loaded_.policy, problems_);
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
        YamlReader reader(path.string(), problems_, surroundings_);
        if (const auto root = reader.parse(*text); root && !root->IsNull())
            load_root(reader, *root, path, depth);
        open_.pop_back();
    }

    void load_root(YamlReader& reader, const YAML::Node& root, const std::filesystem::path& path,
                   int depth) {
        const std::filesystem::path base = path.parent_path();
        // Included files come first, wherever the key stands: this file overrides them.
        if (root.IsMap() && root["include"]) {
            if (const auto files = reader.texts(root["include"], "include")) {
                for (const auto& file : *files) {
                    load_file((base / file.text).lexically_normal(), &reader, depth + 1, file.node);
                }
            }
        }
        std::vector<std::string> keys = {"include", "policy", "webhooks"};
        std::set<std::string> sections;
        for (const Setting& setting : settings()) {
            const std::string section = section_of(setting.key);
            if (section.empty())
                keys.emplace_back(setting.key);
            else if (sections.insert(section).second)
                keys.push_back(section);
        }
        // A file of nothing but a policy may leave the outer key away: see load_named_policy.
        reader.mapping(root, "the configuration", keys,
                       [&](const std::string& key, const YAML::Node& at, const YAML::Node& value) {
                           if (key == "include") return;
                           if (key == "policy") return load_policy(reader, at, value, base);
                           if (key == "webhooks") {
                               loaded_.options.webhooks = load_webhooks(reader, value, base,
                                                                        surroundings_);
                               return;
                           }
                           if (sections.count(key) != 0)
                               return load_section(reader, key, value, base);
                           set(reader, *find_setting(key), value, base);
                       });
    }

    void load_section(YamlReader& reader, const std::string& section, const YAML::Node& node,
                      const std::filesystem::path& base) {
        std::vector<std::string> keys;
        for (const Setting& setting : settings()) {
            if (section_of(setting.key) == section)
                keys.emplace_back(setting.key.substr(section.size() + 1));
        }
        reader.mapping(node, section, keys,
                       [&](const std::string& key, const YAML::Node&, const YAML::Node& value) {
                           set(reader, *find_setting(section + "." + key), value, base);
                       });
    }

    void set(YamlReader& reader, const Setting& setting, const YAML::Node& node,
             const std::filesystem::path& base) {
        const auto text = reader.text(node, setting.key);
        if (!text) return;
        if (const auto wrong = setting.set(loaded_.options, *text, base)) {
            reader.error(node, std::string(setting.key) + ": " + *wrong);
        }
        places_[std::string(setting.key)] = reader.place(node);
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
    std::map<std::string, policy::Place> places_;
    policy::Place policy_place_;
    bool has_policy_ = false;
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
