#pragma once
// The session and the moment for which `explain`, `test` and `check` judge: from options or from
// YAML.

#include "config/yaml_reader.h"
#include "policy/session_facts.h"

#include <functional>
#include <optional>
#include <string>
#include <vector>

namespace CLI {
class App;
}

namespace pgchaperone::cli {

// What people can say of a session. Empty: the default.
struct SessionWords {
    std::string user, database, client, application_name, at;
    bool tls = false, in_transaction = false, replication = false;
    std::vector<std::string> search_path;
    bool search_path_known = false;
};

void add_session_options(CLI::App& command, SessionWords& words);

struct Situation {
    policy::SessionFacts session;
    policy::Moment moment;
};

// Without --at the moment is now. What is wrong with the words goes to `complain`, which gets the
// word's name and the message; then there is no situation.
std::optional<Situation> situation(
    const SessionWords& words,
    const std::function<void(std::string name, std::string message)>& complain);

// Reads a `session:` mapping over what `words` has already. False where something is wrong
// (reported).
bool read_session(config::YamlReader& reader, const YAML::Node& node, SessionWords& words);

}  // namespace pgchaperone::cli
