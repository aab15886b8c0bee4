#include "cli/ticket_view.h"
#include "support/catch.h"

#include <sstream>

using namespace pgchaperone;
using namespace std::chrono_literals;
using Catch::Matchers::ContainsSubstring;

namespace {

const cli::Time noon = *cli::parse_time("2026-11-21 12:00:00Z");

cli::Look terminal(std::size_t width, bool colour = false) {
    cli::Look look;
    look.terminal = true;
    look.colour = colour;
    look.width = width;
    look.now = noon;
    return look;
}

using Values = std::vector<std::optional<std::string>>;

cli::Rows pending(std::vector<Values> values) {
    return {{{"ticket", cli::ValueKind::text},
             {"state", cli::ValueKind::text},
             {"requester", cli::ValueKind::text},
             {"database", cli::ValueKind::text},
             {"opened", cli::ValueKind::time},
             {"waiting", cli::ValueKind::boolean},
             {"effects", cli::ValueKind::text},
             {"approvals", cli::ValueKind::text},
             {"statement", cli::ValueKind::text}},
            std::move(values)};
}

const cli::Rows two = pending(
    {{"K7", "pending", "clerk", "shop", "2026-11-21 11:58:00Z", "true",
      "2,000 rows of public.orders", "0 of 1", "UPDATE orders\nSET status = 'live'"},
     {"M12", "pending", "ann", "shop", "2026-11-21 10:00:00Z", "false", "", "1 of 2",
      "DROP TABLE old_orders"}});

cli::Rows ticket(std::vector<std::pair<std::string, std::string>> fields) {
    cli::Rows rows{{{"field", cli::ValueKind::text}, {"value", cli::ValueKind::text}}, {}};
    for (auto& [name, value] : fields) rows.values.push_back({name, value});
    return rows;
}

std::vector<std::string> lines(const std::string& text) {
    std::vector<std::string> out;
    std::istringstream in(text);
    for (std::string line; std::getline(in, line);) out.push_back(line);
    return out;
}

}  // namespace

TEST_CASE("what would be lost stands beside the ticket, the statement last") {
    const auto shown = lines(cli::pending_text(two, terminal(200)));
    REQUIRE(shown.size() == 3);
    CHECK(shown[0] ==
          "TICKET  WOULD CHANGE                 WHO    DATABASE  OPENED     STATE            "
          "STATEMENT");
    CHECK(shown[1] ==
          "K7      2,000 rows of public.orders  clerk  shop      2 min ago  waiting          "
          "UPDATE orders ⏎ SET status = 'live'");
    CHECK(shown[2] ==
          "M12                                  ann    shop      2 h ago    pending, 1 of 2  "
          "DROP TABLE old_orders");
}

TEST_CASE("a table is cut to the terminal's width, whatever that is, and not in a pipe") {
    for (std::size_t width = 20; width < 160; ++width) {
        for (const std::string& line : lines(cli::pending_text(two, terminal(width)))) {
            INFO(width << ": " << line);
            // Seven columns need their gaps and a few letters each.
            if (width >= 90) CHECK(cli::columns_of(line) <= width);
        }
    }
    const auto narrow = lines(cli::pending_text(two, terminal(100)));
    CHECK_THAT(narrow[1], ContainsSubstring("K7") && ContainsSubstring("2,000 rows") &&
                              ContainsSubstring("…"));
    const std::string piped = cli::pending_text(two, cli::Look{});
    CHECK_THAT(piped, ContainsSubstring("UPDATE orders ⏎ SET status = 'live'") &&
                          ContainsSubstring("2026-11-21 11:58:00Z") && !ContainsSubstring("\033"));
}

TEST_CASE("columns line up whatever letters are in them") {
    const cli::Rows rows = pending(
        {{"K7", "pending", "名前", "shop", "2026-11-21 11:58:00Z", "true", "", "0 of 1", "X"},
         {"K8", "pending", "clerk", "shop", "2026-11-21 11:58:00Z", "true", "", "0 of 1", "X"}});
    const auto shown = lines(cli::pending_text(rows, terminal(200)));
    CHECK(cli::columns_of(shown[1]) == cli::columns_of(shown[2]));
}

TEST_CASE("colours are there only where they are wanted, and around the effects") {
    CHECK_THAT(cli::pending_text(two, terminal(200, true)),
               ContainsSubstring("\033[1;31m2,000 rows of public.orders\033[0m"));
    CHECK_THAT(cli::pending_text(two, terminal(200, false)), !ContainsSubstring("\033"));
}

TEST_CASE("an empty list says so in a sentence") {
    CHECK(cli::pending_text(pending({}), terminal(80)) ==
          "No ticket waits for a decision that you could see.\n");
    CHECK(cli::history_text(pending({}), terminal(80)) ==
          "No ticket has ended that you could see.\n");
}

TEST_CASE("nothing that a requester chose reaches the terminal as it is") {
    const std::string evil = "\033[8mhidden\xe2\x80\xae\a";
    const cli::Rows rows = pending(
        {{evil, evil, evil, evil, evil, evil, evil, evil, evil + "\n" + evil}});
    const cli::Rows fields = ticket({{"ticket", evil},
                                     {"state", evil},
                                     {"effects", evil},
                                     {"application", evil},
                                     {"opened", evil},
                                     {evil, evil},
                                     {"statement", evil + "\n" + evil}});
    for (const std::string& text :
         {cli::pending_text(rows, terminal(120)), cli::history_text(rows, terminal(120)),
          cli::pending_line(rows, 0, cli::Look{}), cli::ticket_text(fields, terminal(120))}) {
        INFO(text);
        CHECK_THAT(text, !ContainsSubstring("\033") && !ContainsSubstring("\a") &&
                             !ContainsSubstring("\xe2\x80\xae") && ContainsSubstring("<U+001B>"));
    }
}

TEST_CASE("a line for a pipe has as many fields as the table has columns, whatever is in them") {
    const cli::Rows rows = pending({{"K7", "pending", "a\tb", "shop", "2026-11-21 11:58:00Z",
                                     "true", "", "0 of 1", "SELECT\t1\n\nX"}});
    const std::string line = cli::pending_line(rows, 0, cli::Look{});
    CHECK(line == "K7\t\ta b\tshop\t2026-11-21 11:58:00Z\twaiting\tSELECT 1 ⏎ X\n");
}

TEST_CASE("a ticket in full begins with what it would change and ends with its statement") {
    const cli::Rows fields = ticket({{"ticket", "K7"},
                                     {"state", "pending"},
                                     {"requester", "clerk"},
                                     {"opened", "2026-11-21 11:58:00.5+00"},
                                     {"waiting", "yes"},
                                     {"effects", "2,000 rows of public.orders"},
                                     {"tables", "public.orders: 2,000 updated\npublic.log: 1"},
                                     {"statement", "UPDATE orders\nSET status = 'live'"}});
    CHECK(cli::ticket_text(fields, terminal(80)) ==
          "K7  pending, its client is waiting\n"
          "  2,000 rows of public.orders\n"
          "\n"
          "  requester  clerk\n"
          "  opened     2 min ago\n"
          "  tables     public.orders: 2,000 updated\n"
          "             public.log: 1\n"
          "\n"
          "    UPDATE orders\n"
          "    SET status = 'live'\n");
    CHECK_THAT(cli::ticket_text(fields, terminal(80, true)),
               ContainsSubstring("\033[1;31m2,000 rows of public.orders\033[0m"));
}

TEST_CASE("JSON has the values' own types and hides nothing") {
    cli::Rows rows = pending({{"K7", "pending", std::nullopt, "shop", "2026-11-21 11:58:00Z",
                               "true", "", "0 of 1", "a\n\"b\""}});
    rows.columns.push_back({"session", cli::ValueKind::number});
    rows.values[0].push_back("17");
    CHECK(boost::json::serialize(cli::rows_json(rows)) ==
          R"([{"ticket":"K7","state":"pending","requester":null,"database":"shop",)"
          R"("opened":"2026-11-21T11:58:00Z","waiting":true,"effects":"","approvals":"0 of 1",)"
          R"("statement":"a\n\"b\"","session":17}])");
    CHECK(boost::json::serialize(cli::ticket_json(ticket({{"ticket", "K7"}, {"state", "used"}}))) ==
          R"({"ticket":"K7","state":"used"})");
    CHECK(boost::json::serialize(cli::rows_json(pending({}))) == "[]");
}

TEST_CASE("a ticket's id is letters and digits, so that it can stand in a name") {
    CHECK(cli::ticket_id("K7") == "k7");
    CHECK(cli::ticket_id("m42") == "m42");
    for (const char* text :
         {"", "K 7", "K7;", "\"K7\"", "K-7", "k7--", "é", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"}) {
        INFO(text);
        CHECK_FALSE(cli::ticket_id(text).has_value());
    }
}
