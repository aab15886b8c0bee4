// Any text as a configuration. What must hold:
// - the same text gives the same problems, each with its place in a file that was read;
// - what is loaded can be shown, and what is shown loads without a problem to the same.
//
// The input is the text of one file; behind a form feed, that of another, which it may include.

#include "fuzz/driver.h"

#include "config/loader.h"

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <map>
#include <string>
#include <string_view>
#include <vector>

using namespace pgchaperone;
using namespace pgchaperone::config;
using pgchaperone::test::Random;

namespace {

using Files = std::map<std::string, std::string>;

void require(bool holds, std::string_view what, std::string_view text) {
    if (holds) return;
    std::fprintf(stderr, "violated: %.*s\n%.*s\n", static_cast<int>(what.size()), what.data(),
                 static_cast<int>(text.size()), text.data());
    std::abort();
}

Surroundings surroundings_of(const Files& files) {
    Surroundings surroundings;
    surroundings.read_file =
        [&files](const std::filesystem::path& path) -> policy::Parsed<std::string> {
        const auto at = files.find(path.string());
        if (at == files.end()) return policy::PatternError{"No such file or directory"};
        return {boost::system::in_place_value, at->second};
    };
    surroundings.environment = [](const std::string& name) -> std::optional<std::string> {
        if (name == "PORT") return "6432";
        if (name == "EMPTY") return "";
        return std::nullopt;
    };
    return surroundings;
}

std::optional<Loaded> load_all(const Files& files, Problems& problems) {
    Request request;
    request.file = "a.yaml";
    return load(request, problems, surroundings_of(files));
}

void check_places(const Problems& problems, const Files& files) {
    for (const Problem& problem : problems.list()) {
        const policy::Place& place = problem.place;
        require(!problem.message.empty(), "a problem is told", place.text());
        // Of what is not there (a key without the other one that it needs) the file is known.
        require(place.line >= 0 && place.column >= 0 && (place.line > 0) == (place.column > 0),
                "a place is one", place.text() + ": " + problem.message);
        const auto file = files.find(place.file);
        require(file != files.end() || place.file.starts_with("preset "), "a place is in a file",
                place.text() + ": " + problem.message);
    }
}

void check(const Files& files) {
    Problems problems;
    const auto loaded = load_all(files, problems);
    check_places(problems, files);
    const std::string told = problems.text();
    require(loaded.has_value() != problems.has_errors(), "it is loaded, or it is said why not",
            told);
    Problems again;
    (void)load_all(files, again);
    require(again.text() == told, "the same text gives the same problems", told);
    if (!loaded) return;

    const std::string shown = show(*loaded);
    Problems of_shown;
    const auto reloaded = load_all({{"a.yaml", shown}}, of_shown);
    require(reloaded.has_value(), "what is shown is loaded", of_shown.text() + shown);
    require(show(*reloaded) == shown, "what is shown loads to the same", shown);
}

// --- Inputs that make sense.

std::string read_file(const std::string& path) {
    std::ifstream in(path, std::ios::binary);
    if (!in) {
        std::fprintf(stderr, "%s can't be read\n", path.c_str());
        std::exit(2);
    }
    return {std::istreambuf_iterator<char>(in), {}};
}

const std::vector<std::string>& whole_files() {
    static const std::vector<std::string> texts = [] {
        std::vector<std::string> out;
        for (const char* name : {"policy/presets/interactive.yaml", "policy/presets/approval.yaml",
                                 "policy/presets/application.yaml", "policy/presets/migration.yaml",
                                 "policy/presets/agent.yaml", "tests/golden/cli/night.yaml",
                                 "tests/golden/cli/guard.yaml", "packaging/pgchaperone.yaml",
                                 "docker/pgchaperone.yaml"})
            out.push_back(read_file(std::string(SOURCES) + "/" + name));
        return out;
    }();
    return texts;
}

const char* const settings_seeds[] = {"listen: 0.0.0.0:${PORT}\n",
                                      "upstream: \"[::1]:${PORT:-5432}\"\n",
                                      "environment: \"PROD $${x} \\u00e4\"\n",
                                      "threads: 2\nidle_timeout: 1h30m\n",
                                      "limits: { connections: 100, reserved: 3 }\n",
                                      "client_tls:\n  mode: require\n  certificate: a.crt\n",
                                      "audit: { file: a.jsonl, rotate_size: 1GiB, keep: 3 }\n",
                                      "proxy_protocol: 10.0.0.0/8, ::1\n",
                                      "include: [b.yaml]\n",
                                      "webhooks:\n  - { name: h, url: \"https://h/x\" }\n",
                                      "approval: { store: \"host=db dbname=${EMPTY:-x}\" }\n"};

const char* const rule_seeds[] = {
    "match: { command: [DELETE, \"DROP *\"], unbounded: true }\n      action: hold\n",
    "match: { any: [ { class: [WRITE, DDL] }, { not: { user: \"dba_*\" } } ] }\n"
    "      action: { supervise: { max_rows: 10, on_exceed: block } }\n",
    "match: { time: { outside: \"Mon-Fri 08:00-18:00\", zone: Europe/Berlin } }\n"
    "      action: block\n      message: \"no {relations}\"\n",
    "match: { client: [10.0.0.0/8], relation: public.orders }\n      action: allow\n"
    "      audit: statement\n      mode: observe\n",
    "match: { regex: \"(?i)drop\\\\s+table\" }\n      statement_timeout: 5s\n"};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const std::string_view input(reinterpret_cast<const char*>(data), size);
    const std::size_t end = input.find('\f');
    Files files;
    files["a.yaml"] = input.substr(0, end);
    if (end != input.npos) files["b.yaml"] = input.substr(end + 1);
    check(files);
    return 0;
}

std::string pgchaperone_fuzz_seed(Random& random) {
    if (random.one_in(8)) return whole_files()[random.below(whole_files().size())];
    std::string out;
    for (std::size_t n = random.below(4); n > 0; --n)
        out += settings_seeds[random.below(std::size(settings_seeds))];
    if (!random.one_in(4)) {
        out += "policy:\n";
        if (random.one_in(3)) out += "  preset: interactive\n";
        if (random.one_in(3)) out += "  approvers: [dba_*]\n";
        out += "  rules:\n";
        for (std::size_t n = random.between(1, 3); n > 0; --n) {
            out += "    - name: r" + std::to_string(n) + "\n      " +
                   rule_seeds[random.below(std::size(rule_seeds))];
        }
    }
    if (random.one_in(4)) {
        out += '\f';
        out += settings_seeds[random.below(std::size(settings_seeds))];
    }
    return out;
}
