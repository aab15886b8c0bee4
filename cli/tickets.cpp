// `pgchaperone pending`, `show`, `approve`, `deny`, `withdraw` and `history`: what the virtual
// schema of a running guard has to say, for people at a terminal and for scripts. Thin: who may see
// and decide what is the guard's business.
#include "cli/guard_client.h"
#include "cli/subcommands.h"
#include "cli/ticket_view.h"
#include "config/json_text.h"

#include <CLI/CLI.hpp>

#include <sys/ioctl.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <iostream>
#include <memory>
#include <set>
#include <thread>

namespace pgchaperone::cli {
namespace {

using std::string;
using std::string_view;

struct Arguments {
    ConnectionWords connection;
    bool json = false;
    string id;
    string comment;
    bool yes = false;
    double watch_s = 2;
};

const std::vector<string_view> pending_columns = {"ticket", "effects", "statement"};
const std::vector<string_view> history_columns = {"ticket", "state", "statement"};
const std::vector<string_view> field_columns = {"field", "value"};
const std::vector<string_view> decision_columns = {"ticket", "state", "message"};

// Prints it where errors go; the exit status that it means.
int fail(const ServerError& error) {
    std::cout.flush();
    std::cerr << error.text();
    return error.kind == ServerError::Kind::refused ? exit_findings : exit_trouble;
}

void print_json(const boost::json::value& value) {
    std::cout << visible_json(config::pretty(value));
}

// --- Watching

// A signal while nothing is half written ends the program at once; else it is looked at behind it.
volatile std::sig_atomic_t writing = 0;
volatile std::sig_atomic_t stop = 0;

void on_interrupt(int) {
    if (writing == 0 || stop != 0) _exit(exit_ok);
    stop = 1;
}

// Nobody reads any more: that ends a watch as it ends any filter.
bool write_whole(const string& text) {
    writing = 1;
    std::cout << text << std::flush;
    writing = 0;
    return static_cast<bool>(std::cout);
}

class Watch {
public:
    Watch(Arguments arguments, GuardClient client)
        : arguments_(std::move(arguments)), client_(std::move(client)) {}

    int run() {
        struct sigaction action {};
        action.sa_handler = on_interrupt;
        action.sa_flags = SA_RESTART;
        sigemptyset(&action.sa_mask);
        sigaction(SIGINT, &action, nullptr);
        sigaction(SIGTERM, &action, nullptr);
        while (stop == 0) {
            Answer<Rows> rows = ask();
            if (!rows && rows.error().kind != ServerError::Kind::connection)
                return fail(rows.error());
            if (!write_whole(rows ? shown(*rows) : trouble(rows.error()))) return exit_trouble;
            if (stop != 0) break;
            std::this_thread::sleep_for(std::chrono::duration<double>(arguments_.watch_s));
        }
        return exit_ok;
    }

private:
    // A guard that was started anew is found again.
    Answer<Rows> ask() {
        if (!client_) {
            auto client = GuardClient::connect(arguments_.connection, false);
            if (!client) return client.error();
            client_.emplace(*std::move(client));
        }
        auto rows = client_->ask("SHOW chaperone.pending", {}, pending_columns);
        if (!rows && rows.error().kind == ServerError::Kind::connection) client_.reset();
        if (rows) lost_ = false;
        return rows;
    }

    string shown(const Rows& rows) {
        const Look look = look_of_output();
        if (look.terminal && !arguments_.json)
            return frame(pending_text(rows, look), client_->where(), look);
        string out;
        for (std::size_t row = 0; row < rows.values.size(); ++row) {
            if (!seen_.insert(string(rows.text(row, "ticket"))).second) continue;
            out += arguments_.json
                       ? visible_json(boost::json::serialize(row_json(rows, row))) + "\n"
                       : pending_line(rows, row, look);
        }
        return out;
    }

    string trouble(const ServerError& error) {
        const Look look = look_of_output();
        if (look.terminal && !arguments_.json)
            return frame(error.text() + "Trying again...\n", "no connection", look);
        if (!lost_) std::cerr << error.text() << "Trying again..." << std::endl;
        lost_ = true;
        return {};
    }

    // From the top of the screen, each line to its end, and nothing below. What is longer than the
    // screen would scroll: the oldest tickets, which come first, are the ones to see.
    string frame(const string& text, const string& where, const Look& look) const {
        winsize size{};
        const bool known = ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_row > 2;
        std::size_t left = known ? std::size_t{size.ws_row} - 1 : 24;
        string out = "\033[H";
        for (const char c : heading(where, look) + text) {
            if (c == '\n' && --left == 0) break;
            if (c == '\n') out += "\033[K";
            out += c;
        }
        return out + "\033[K\033[J";
    }

    string heading(const string& where, const Look& look) const {
        Look absolute = look;
        absolute.terminal = false;
        const string text = "pgchaperone, " + visible_line(where) + ", " +
                            time_text(look.now, absolute) + " (Ctrl-C ends)";
        return inked(cut(text, look.width), Ink::faint, look) + "\n\n";
    }

    Arguments arguments_;
    std::optional<GuardClient> client_;
    std::set<string> seen_;
    bool lost_ = false;
};

// --- The subcommands

int run_pending(const Arguments& arguments, bool watch) {
    auto client = GuardClient::connect(arguments.connection, true);
    if (!client) return fail(client.error());
    if (watch) return Watch(arguments, *std::move(client)).run();
    const auto rows = client->ask("SHOW chaperone.pending", {}, pending_columns);
    if (!rows) return fail(rows.error());
    if (arguments.json)
        print_json(rows_json(*rows));
    else
        std::cout << pending_text(*rows, look_of_output());
    return exit_ok;
}

int run_history(const Arguments& arguments) {
    auto client = GuardClient::connect(arguments.connection, true);
    if (!client) return fail(client.error());
    const auto rows = client->ask("SHOW chaperone.history", {}, history_columns);
    if (!rows) return fail(rows.error());
    if (arguments.json)
        print_json(rows_json(*rows));
    else
        std::cout << history_text(*rows, look_of_output());
    return exit_ok;
}

Answer<Rows> ask_ticket(GuardClient& client, const string& id) {
    return client.ask("SHOW chaperone.ticket_" + id, {}, field_columns);
}

int run_show(const Arguments& arguments) {
    auto client = GuardClient::connect(arguments.connection, true);
    if (!client) return fail(client.error());
    const auto fields = ask_ticket(*client, arguments.id);
    if (!fields) return fail(fields.error());
    if (arguments.json)
        print_json(ticket_json(*fields));
    else
        std::cout << ticket_text(*fields, look_of_output());
    return exit_ok;
}

// What an approver has to have seen.
bool same_case(const Rows& one, const Rows& other) {
    for (const string_view name : {"statement", "parameters", "effects", "tables", "evidence",
                                   "plan", "requester", "database", "settings"}) {
        if (one.field(name) != other.field(name)) return false;
    }
    return true;
}

// Shows the ticket and asks, until somebody answers about what it is now. False: no.
Answer<bool> confirmed(GuardClient& client, const string& id) {
    auto fields = ask_ticket(client, id);
    if (!fields) return fields.error();
    for (;;) {
        // What is decided can't be approved: the guard says so.
        if (fields->field("state") != "pending") return true;
        std::cout << ticket_text(*fields, look_of_output()) << "\nApprove "
                  << visible_line(fields->field("ticket")) << "? [y/N] " << std::flush;
        string answer;
        std::getline(std::cin, answer);
        if (answer != "y" && answer != "Y" && answer != "yes") return false;
        auto now = ask_ticket(client, id);
        if (!now) return now.error();
        if (same_case(*fields, *now)) return true;
        std::cout << "\nThe ticket has changed in the meantime. It is now:\n\n";
        fields = std::move(now);
    }
}

int run_decision(const Arguments& arguments, const string& verb) {
    const bool asks = verb == "approve" && !arguments.yes;
    if (asks && (arguments.json || isatty(STDIN_FILENO) == 0 || isatty(STDOUT_FILENO) == 0)) {
        std::cerr << "pgchaperone: there is nobody to ask whether to approve this: "
                  << (arguments.json ? "--json" : "no terminal")
                  << "\nLook at it with `pgchaperone show`, then say `approve --yes`.\n";
        return exit_trouble;
    }
    auto client = GuardClient::connect(arguments.connection, true);
    if (!client) return fail(client.error());
    if (asks) {
        const auto yes = confirmed(*client, arguments.id);
        if (!yes) return fail(yes.error());
        if (!*yes) {
            std::cout << "Not approved; nothing was decided.\n";
            return exit_findings;
        }
    }
    std::vector<string> parameters = {arguments.id};
    if (!arguments.comment.empty()) parameters.push_back(arguments.comment);
    const auto rows = client->ask(
        "CALL chaperone." + verb + (parameters.size() > 1 ? "($1, $2)" : "($1)"), parameters,
        decision_columns);
    if (!rows) return fail(rows.error());
    if (rows->values.empty()) {
        std::cerr << "pgchaperone: the guard did not say what became of it\n";
        return exit_trouble;
    }
    if (arguments.json)
        print_json(row_json(*rows, 0));
    else
        std::cout << visible_line(rows->text(0, "ticket")) << ' '
                  << visible_lines(rows->text(0, "message")) << '\n';
    return exit_ok;
}

CLI::App* add_command(CLI::App& app, const std::shared_ptr<Arguments>& arguments,
                      const string& name, const string& summary) {
    CLI::App* command = app.add_subcommand(name, summary);
    // -h is the host, as psql has it.
    command->set_help_flag("--help", "Print this help message and exit");
    ConnectionWords& words = arguments->connection;
    command->add_option("-h,--host", words.host, "Where the guard is")->type_name("HOST");
    command->add_option("-p,--port", words.port, "Its port")->type_name("PORT");
    command->add_option("-U,--user,--username", words.user, "Your role")->type_name("ROLE");
    command->add_option("-d,--dbname", words.dbname, "Database, connection string or URI")
        ->type_name("DBNAME");
    command->add_flag("--json", arguments->json, "Print JSON, for programs");
    command->footer(
        "Without them, PGHOST, PGPORT, PGUSER, PGDATABASE, PGSERVICE and ~/.pgpass count, as for "
        "psql.\n"
        "Exit status: 0 done, 1 refused by the guard, 2 wrong usage or no connection.");
    return command;
}

void add_id(CLI::App& command, const std::shared_ptr<Arguments>& arguments) {
    command.add_option("TICKET", arguments->id, "Its id, such as K7")
        ->required()
        ->check([](const string& text) {
            return ticket_id(text) ? string() : "a ticket's id is letters and digits, such as K7";
        })
        ->each([arguments](const string& text) { arguments->id = *ticket_id(text); });
}

}  // namespace

void add_tickets(CLI::App& app, int& status) {
    {
        const auto arguments = std::make_shared<Arguments>();
        CLI::App* command = add_command(app, arguments, "pending",
                                        "List the statements that wait for a second person");
        CLI::Option* watch = command
                                 ->add_option("-w,--watch", arguments->watch_s,
                                              "Look again every so many seconds, 2 by default; in "
                                              "a pipe, print each ticket once")
                                 ->type_name("[SECONDS]")
                                 ->expected(0, 1)
                                 ->check(CLI::Range(0.1, 3600.0));
        command->callback(
            [arguments, watch, &status] { status = run_pending(*arguments, watch->count() > 0); });
    }
    {
        const auto arguments = std::make_shared<Arguments>();
        CLI::App* command = add_command(app, arguments, "show", "Show one ticket in full");
        add_id(*command, arguments);
        command->callback([arguments, &status] { status = run_show(*arguments); });
    }
    struct Verb {
        const char* name;
        const char* summary;
    };
    for (const Verb& verb :
         {Verb{"approve", "Let a statement run that waits for a second person"},
          Verb{"deny", "Say no to it"}, Verb{"withdraw", "Take back a ticket of your own"}}) {
        const auto arguments = std::make_shared<Arguments>();
        const string name = verb.name;
        CLI::App* command = add_command(app, arguments, name, verb.summary);
        add_id(*command, arguments);
        command
            ->add_option("-m,--comment", arguments->comment,
                         "Why; the requester and the audit log are told")
            ->type_name("TEXT");
        if (name == "approve")
            command->add_flag("-y,--yes", arguments->yes, "Do not show the ticket and ask");
        command->callback([arguments, name, &status] { status = run_decision(*arguments, name); });
    }
    const auto arguments = std::make_shared<Arguments>();
    CLI::App* command = add_command(app, arguments, "history", "List the tickets that have ended");
    command->callback([arguments, &status] { status = run_history(*arguments); });
}

}  // namespace pgchaperone::cli
