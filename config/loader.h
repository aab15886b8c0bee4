#pragma once
// From files, environment and command line to what main needs: options and a policy. Everything
// that is wrong is reported at once. See docs/configuration.md.

#include "config/options.h"
#include "config/problems.h"
#include "config/settings.h"
#include "config/yaml_reader.h"
#include "policy/rule.h"

#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace pgchaperone::config {

struct Request {
    std::filesystem::path file;  // of -c; empty: none
    std::string policy;          // of --policy: a preset's name or a file; empty: as the file says
    std::vector<std::pair<const Setting*, std::string>> overrides;  // from the command line
    std::string default_preset = "interactive";                     // where nothing names a policy
};

// One of `upstreams`: a further server, or the same with other rules. Its options are all that it
// has or takes over from the top level; what belongs to the process is as it is there.
struct Upstream {
    std::string name;
    Options options;
    policy::Policy policy;
    policy::Place place;
    std::map<std::string, policy::Place> places;  // of its own settings, by their keys
};

struct Loaded {
    Options options;
    policy::Policy policy;
    std::vector<Upstream> upstreams;  // in their order; those of the top level come after them
    std::vector<std::filesystem::path> files;     // all that were read
    std::map<std::string, policy::Place> places;  // where the top level's settings are said
};

// Nothing where `problems` has errors afterwards; warnings don't keep it from being loaded.
std::optional<Loaded> load(const Request& request, Problems& problems,
                           const Surroundings& surroundings);

// What guards when nothing is configured.
policy::Policy built_in_policy();

// The built-in configuration as YAML text: every setting with its default, then the built-in
// policy.
std::string default_configuration();

// The effective configuration as YAML text that means the same when it is loaded.
std::string show(const Loaded& loaded);

// The policy alone, as a file for --policy that means the same. For one that is not sealed.
std::string show(const policy::Policy& policy);

// The JSON Schema of the configuration, for editors that complete and check YAML.
std::string json_schema();

}  // namespace pgchaperone::config
