#pragma once
// One line of the audit log as a value. Filled by the session core, which has no clock and no file;
// written by audit::Writer. Field names are those of the JSON (see docs/audit.md).

#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

namespace pgchaperone::audit {

struct Record {
    std::chrono::system_clock::time_point time;
    std::uint64_t session = 0;
    std::string user;
    std::string database;
    std::string client;
    std::string application;
    std::string protocol;   // "simple", "extended", "function call"
    std::string statement;  // as sent, cut at the writer's limit; may hold bytes that are not UTF-8
    std::uint64_t fingerprint = 0;
    std::string command;  // command tag
    std::vector<std::string> classes;
    std::vector<std::string> relations;
    std::string decision;  // "allow", "block", ...
    bool observed = false;
    std::string rule;
    std::string reason;  // the refusal's message or the flag's reason
};

}  // namespace pgchaperone::audit
