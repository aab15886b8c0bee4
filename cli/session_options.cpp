#include "cli/session_options.h"

#include "config/values.h"
#include "policy/rule_pattern.h"
#include "policy/rule_time.h"

#include <CLI/CLI.hpp>

#include <memory>

namespace pgchaperone::cli {

void add_session_options(CLI::App& command, SessionWords& words) {
    const char* group = "Session";
    command.add_option("--user", words.user, "Role that logged in (default: postgres)")
        ->group(group);
    command.add_option("--database", words.database, "Database (default: postgres)")->group(group);
    command.add_option("--client", words.client, "Client's address, or local (default: 127.0.0.1)")
        ->group(group);
    command.add_option("--application-name", words.application_name, "The client's name of itself")
        ->group(group);
    command.add_flag("--tls", words.tls, "The client uses TLS")->group(group);
    command.add_flag("--replication", words.replication, "It is a replication connection")
        ->group(group);
    command.add_flag("--in-transaction", words.in_transaction, "Inside a transaction block")
        ->group(group);
    command
        .add_option_function<std::string>(
            "--search-path",
            [&words](const std::string& text) {
                words.search_path_known = true;
                words.search_path.clear();
                std::string item;
                for (const char c : text + ",") {
                    if (c != ',') {
                        if (c != ' ' || !item.empty()) item += c;
                    } else {
                        if (!item.empty()) words.search_path.push_back(item);
                        item.clear();
                    }
                }
            },
            "Schemas, separated by commas (default: not known)")
        ->group(group);
    command
        .add_option("--at", words.at,
                    "The time, such as 2026-03-01T22:15 or 2026-03-01T22:15+01:00 (default: now)")
        ->type_name("TIME")
        ->group(group);
}

std::optional<Situation> situation(const SessionWords& words,
                                   const std::function<void(std::string, std::string)>& complain) {
    Situation result;
    bool good = true;
    policy::SessionFacts& session = result.session;
    session.user = words.user.empty() ? "postgres" : words.user;
    session.database = words.database.empty() ? "postgres" : words.database;
    session.application_name = words.application_name;
    session.tls = words.tls;
    session.replication = words.replication;
    auto client = policy::parse_client_address(words.client.empty() ? "127.0.0.1" : words.client);
    if (client) {
        session.client = *std::move(client);
    } else {
        complain("client", client.error().message);
        good = false;
    }
    result.moment.now = std::chrono::system_clock::now();
    if (!words.at.empty()) {
        const auto time = policy::parse_time(words.at);
        if (time) {
            result.moment.now = *time;
        } else {
            complain("at", time.error().message);
            good = false;
        }
    }
    result.moment.in_transaction = words.in_transaction;
    if (words.search_path_known) result.moment.search_path = words.search_path;
    if (!good) return std::nullopt;
    return result;
}

bool read_session(config::YamlReader& reader, const YAML::Node& node, SessionWords& words) {
    bool good = true;
    const std::vector<std::string> keys = {
        "user",           "database",    "client", "application_name", "tls", "replication",
        "in_transaction", "search_path", "at"};
    const bool is_map = reader.mapping(
        node, "a session", keys,
        [&](const std::string& key, const YAML::Node&, const YAML::Node& value) {
            if (key == "tls" || key == "in_transaction" || key == "replication") {
                const auto flag = reader.value<bool>(value, key, config::parse_flag);
                good = good && flag;
                if (flag)
                    (key == "tls"           ? words.tls
                     : key == "replication" ? words.replication
                                            : words.in_transaction) = *flag;
            } else if (key == "search_path") {
                const auto items = reader.texts(value, key);
                good = good && items;
                words.search_path.clear();
                words.search_path_known = true;
                if (items) {
                    for (const auto& item : *items) words.search_path.push_back(item.text);
                }
            } else {
                const auto text = reader.text(value, key);
                good = good && text;
                if (!text) return;
                (key == "user"       ? words.user
                 : key == "database" ? words.database
                 : key == "client"   ? words.client
                 : key == "at"       ? words.at
                                     : words.application_name) = *text;
            }
        });
    return is_map && good;
}

}  // namespace pgchaperone::cli
