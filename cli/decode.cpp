#include "cli/decode.h"

#include "protocol/dumper.h"

#include <CLI/CLI.hpp>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <iomanip>
#include <iostream>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace pgchaperone::cli {
namespace {

using protocol::Side;
using protocol::StreamDumper;

std::string_view name_of(Side side) { return side == Side::frontend ? "client" : "server"; }

class Decoder {
public:
    Decoder(std::istream& in, std::string_view source, std::ostream& out, std::ostream& err)
        : in_(in), source_(source), out_(out), err_(err) {}

    int raw(Side side) {
        StreamDumper dumper{side, sink("")};
        std::string chunk(std::size_t{1} << 16, '\0');
        while (in_.read(chunk.data(), static_cast<std::streamsize>(chunk.size())) ||
               in_.gcount() > 0) {
            dumper.feed(std::string_view{chunk}.substr(0, static_cast<std::size_t>(in_.gcount())));
        }
        dumper.finish();
        if (in_.bad()) return complain("can't be read to its end");
        return verdict(side, dumper);
    }

    // Lines of `> bytes` and `< bytes`.
    int text() {
        StreamDumper frontend{Side::frontend, sink("> ")};
        StreamDumper backend{Side::backend, sink("< ")};
        StreamDumper::pair(frontend, backend);
        std::string line;
        for (std::size_t number = 1; std::getline(in_, line); ++number) {
            std::size_t at = line.find_first_not_of(" \t\r");
            if (at == std::string::npos || line[at] == '#') continue;
            const char direction = line[at];
            if (direction != '>' && direction != '<') {
                return complain(number, at, "a line begins with '>', '<' or '#'");
            }
            ++at;
            std::string bytes;
            if (const char* problem = parse(line, at, bytes)) return complain(number, at, problem);
            (direction == '>' ? frontend : backend).feed(bytes);
        }
        if (in_.bad()) return complain("can't be read to its end");
        frontend.finish();
        backend.finish();
        const int status = verdict(Side::frontend, frontend);
        return std::max(status, verdict(Side::backend, backend));
    }

    int complain(std::string_view problem) {
        err_ << "pgchaperone decode: " << source_ << ": " << problem << '\n';
        return decode_trouble;
    }

private:
    // Hex digits in pairs, white space, and text between double quotes, from `at` to the end of the
    // line. Returns what is wrong at `at`, or null.
    static const char* parse(std::string_view line, std::size_t& at, std::string& bytes) {
        while (at < line.size()) {
            const char c = line[at];
            if (c == ' ' || c == '\t' || c == '\r') {
                ++at;
            } else if (c == '"') {
                const std::size_t end = line.find('"', at + 1);
                if (end == std::string_view::npos) return "text without its closing quote";
                bytes += line.substr(at + 1, end - at - 1);
                at = end + 1;
            } else {
                const int high = hex_value(c);
                if (high < 0) return "neither a hex digit nor text in double quotes";
                if (at + 1 == line.size() || hex_value(line[at + 1]) < 0) {
                    return "half a byte: two hex digits belong together";
                }
                bytes += static_cast<char>(high * 16 + hex_value(line[at + 1]));
                at += 2;
            }
        }
        return nullptr;
    }

    static int hex_value(char c) {
        if (c >= '0' && c <= '9') return c - '0';
        if (c >= 'a' && c <= 'f') return c - 'a' + 10;
        if (c >= 'A' && c <= 'F') return c - 'A' + 10;
        return -1;
    }

    StreamDumper::Sink sink(const char* direction) {
        return [this, direction](std::uint64_t offset, std::string_view line) {
            out_ << direction << std::setw(8) << offset << "  " << line << '\n';
        };
    }

    int verdict(Side side, const StreamDumper& dumper) {
        if (!dumper.malformed()) return decode_ok;
        out_.flush();
        err_ << "pgchaperone decode: " << source_ << ": malformed at byte "
             << dumper.malformed_offset() << " of what the " << name_of(side) << " sent\n";
        return decode_malformed;
    }

    int complain(std::size_t line, std::size_t at, std::string_view problem) {
        err_ << "pgchaperone decode: " << source_ << ':' << line << ':' << at + 1 << ": " << problem
             << '\n';
        return decode_trouble;
    }

    std::istream& in_;
    std::string_view source_;
    std::ostream& out_;
    std::ostream& err_;
};

int decode_file(const std::string& file, std::optional<Side> side) {
    int status = decode_trouble;
    if (file == "-") {
        status = decode(std::cin, "standard input", side, std::cout, std::cerr);
    } else {
        errno = 0;
        std::ifstream in{file, std::ios::binary};
        // A directory can be opened, and only its first byte tells.
        const bool readable = in && (in.peek(), errno == 0);
        if (!readable) {
            std::cerr << "pgchaperone decode: " << file << ": "
                      << std::strerror(errno != 0 ? errno : EIO) << '\n';
            return decode_trouble;
        }
        in.clear();
        status = decode(in, file, side, std::cout, std::cerr);
    }
    std::cout.flush();
    return status;
}

}  // namespace

int decode(std::istream& in, std::string_view source, std::optional<Side> side, std::ostream& out,
           std::ostream& err) {
    Decoder decoder{in, source, out, err};
    if (side) return decoder.raw(*side);
    const int first = in.peek();
    if (first == std::istream::traits_type::eof()) {
        return in.bad() ? decoder.complain("can't be read") : decode_ok;
    }
    // Only a startup packet's length begins with a zero byte.
    if (first == 0) return decoder.raw(Side::frontend);
    if (std::string_view{"><# \t\r\n"}.find(static_cast<char>(first)) != std::string_view::npos) {
        return decoder.text();
    }
    return decoder.complain(
        "not in the two-sided text format. For raw bytes say who sent them: --side frontend or "
        "--side backend");
}

void add_decode(CLI::App& app, int& status) {
    struct Arguments {
        std::string side_name;
        std::string file;
    };
    // Lives as long as the callback, that is, as the app.
    const auto arguments = std::make_shared<Arguments>();
    CLI::App* command = app.add_subcommand("decode",
                                           "Print a recorded protocol stream as readable messages");
    command->add_option("--side", arguments->side_name, "Who sent the raw bytes")
        ->check(CLI::IsMember({"frontend", "backend"}));
    command
        ->add_option(
            "FILE", arguments->file,
            "The recording; - for standard input. Without --side: lines of \"> hex\" (client to "
            "server) and \"< hex\" (server to client)")
        ->required();
    command->footer(
        "Passwords, SASL data and cancel keys are hidden; statements and values are shown.\n"
        "Exit status: 0 all is well, 1 the stream is malformed, 2 trouble.");
    command->callback([arguments, &status] {
        std::optional<Side> side;
        if (arguments->side_name == "frontend") side = Side::frontend;
        if (arguments->side_name == "backend") side = Side::backend;
        status = decode_file(arguments->file, side);
    });
}

int decode_main(int argc, char** argv) {
    CLI::App app{"", "pgchaperone"};
    int status = decode_trouble;
    add_decode(app, status);
    app.require_subcommand(1);
    // The name stands in argv[0]; CLI11 looks for it behind its own.
    std::vector<std::string> arguments;
    for (int i = argc - 1; i > 0; --i) arguments.emplace_back(argv[i]);
    arguments.emplace_back("decode");
    try {
        app.parse(std::move(arguments));
    } catch (const CLI::ParseError& e) {
        return app.exit(e) == 0 ? decode_ok : decode_trouble;
    }
    return status;
}

}  // namespace pgchaperone::cli
