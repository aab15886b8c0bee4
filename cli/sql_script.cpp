#include "cli/sql_script.h"

#include "cli/liquibase.h"

#include <algorithm>
#include <array>
#include <utility>

namespace pgchaperone::cli {
namespace {

bool is_space(char c) {
    return c == ' ' || c == '\t' || c == '\n' || c == '\r' || c == '\f' || c == '\v';
}
bool is_name_start(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' ||
           static_cast<unsigned char>(c) >= 0x80;
}
bool is_name(char c) { return is_name_start(c) || (c >= '0' && c <= '9') || c == '$'; }

std::string lower(std::string_view text) {
    std::string out(text);
    for (char& c : out) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
    return out;
}

// psql's commands that change neither the session nor what is run behind an error.
bool only_prints_or_sets(std::string_view command, std::string_view arguments) {
    constexpr std::array harmless = {"a",     "echo",  "encoding", "errverbose", "f",      "h",
                                     "l",     "o",     "p",        "print",      "prompt", "pset",
                                     "qecho", "s",     "t",        "timing",     "unset",  "w",
                                     "warn",  "write", "x",        "z"};
    if (command == "set") return lower(arguments).find("on_error") == std::string::npos;
    return command.starts_with("d") ||
           std::find(harmless.begin(), harmless.end(), command) != harmless.end();
}

class Splitter {
public:
    explicit Splitter(std::string_view text) : text_(text), liquibase_(is_liquibase(text)) {}

    Script run() {
        // A byte order mark, as Windows' editors write it, is no part of the first statement.
        if (text_.substr(0, 3) == "\xEF\xBB\xBF") at_ = 3;
        while (at_ < text_.size()) step();
        finish(text_.size());
        attach_trailing_comments();
        return std::move(script_);
    }

private:
    void step() {
        const char c = text_[at_];
        if (is_space(c)) {
            ++at_;
        } else if (at_delimiter()) {
            const std::size_t begin = at_;
            at_ += changeset_.delimiter.size();
            finish(begin);
        } else if (starts("--")) {
            const std::size_t begin = at_;
            at_ = std::min(text_.find('\n', at_), text_.size());
            if (liquibase_) begin_changeset(begin);
            comment(begin);
        } else if (starts("/*")) {
            const std::size_t begin = at_;
            skip_block_comment();
            comment(begin);
        } else if (c == '\\') {
            backslash();
        } else if (c == ';' && depth_ == 0 && blocks_ == 0) {
            ++at_;
            const bool copies = copy_from_stdin();
            finish(at_ - 1);
            if (copies) skip_copy_data();
        } else {
            token();
        }
    }

    bool at_delimiter() const {
        const std::string& delimiter = changeset_.delimiter;
        if (delimiter.empty() || lower(text_.substr(at_, delimiter.size())) != lower(delimiter))
            return false;
        if (!changeset_.alone_on_line) return true;
        std::size_t begin = at_, end = at_ + delimiter.size();
        while (begin > 0 && text_[begin - 1] != '\n' && is_space(text_[begin - 1])) --begin;
        while (end < text_.size() && text_[end] != '\n' && is_space(text_[end])) ++end;
        return (begin == 0 || text_[begin - 1] == '\n') &&
               (end == text_.size() || text_[end] == '\n');
    }

    // What one changeset made need not be made now: Liquibase leaves out those that ran before.
    void begin_changeset(std::size_t begin) {
        const auto changeset = changeset_of(text_.substr(begin, at_ - begin));
        if (!changeset) return;
        finish(begin);
        changeset_ = *changeset;
        unknown_ = true;
        if (!changeset_.other_databases.empty()) {
            script_.notes.push_back({begin, "this changeset is for " + changeset_.other_databases +
                                                " and is not checked"});
        }
    }

    void token() {
        const char c = text_[at_];
        if (!open_) {
            open_ = true;
            begin_ = at_;
        }
        if (c == '\'') {
            skip_quoted('\'', false);
        } else if (c == '"') {
            skip_quoted('"', false);
        } else if (c == '$') {
            dollar();
        } else if (c == '(') {
            ++depth_;
            ++at_;
        } else if (c == ')') {
            depth_ = std::max(depth_ - 1, 0);
            ++at_;
        } else if (c == ':') {
            colon();
        } else if (is_name_start(c)) {
            word();
        } else if (c >= '0' && c <= '9') {
            // $ and letters behind digits belong to them: 1e5 is no name and 1$x$ no quote.
            while (at_ < text_.size() && is_name(text_[at_]) && !at_delimiter()) ++at_;
        } else {
            ++at_;
        }
    }

    void word() {
        const std::size_t begin = at_;
        while (at_ < text_.size() && is_name(text_[at_]) && !starts("${") && !at_delimiter()) ++at_;
        const std::string name = lower(text_.substr(begin, at_ - begin));
        const char next = at_ < text_.size() ? text_[at_] : ' ';
        if (next == '\'' && (name == "e")) return skip_quoted('\'', true);
        words_.push_back(name);
        follow_atomic_body(name);
    }

    // psql's rule for functions with a body in SQL: BEGIN and CASE open, END closes.
    void follow_atomic_body(const std::string& name) {
        if (depth_ > 0 || words_.empty() || words_.front() != "create") return;
        std::size_t second = 1;
        if (words_.size() > 2 && words_[1] == "or" && words_[2] == "replace") second = 3;
        if (words_.size() <= second ||
            (words_[second] != "function" && words_[second] != "procedure"))
            return;
        if (name == "begin")
            ++blocks_;
        else if (name == "case" && blocks_ > 0)
            ++blocks_;
        else if (name == "end" && blocks_ > 0)
            --blocks_;
    }

    void skip_quoted(char quote, bool escapes) {
        ++at_;
        while (at_ < text_.size()) {
            if (escapes && text_[at_] == '\\') {
                at_ = std::min(at_ + 2, text_.size());
            } else if (text_[at_] == quote) {
                ++at_;
                if (at_ >= text_.size() || text_[at_] != quote) return;
                ++at_;
            } else {
                ++at_;
            }
        }
    }

    void skip_block_comment() {
        int depth = 0;
        while (at_ < text_.size()) {
            if (starts("/*")) {
                ++depth;
                at_ += 2;
            } else if (starts("*/")) {
                at_ += 2;
                if (--depth == 0) return;
            } else {
                ++at_;
            }
        }
    }

    // $1, $tag$ ... $tag$, or ${placeholder}.
    void dollar() {
        std::size_t end = at_ + 1;
        if (end < text_.size() && text_[end] == '{') {
            const auto close = text_.find_first_of("}\n", end);
            if (close != std::string_view::npos && text_[close] == '}') {
                blanks_.push_back({{at_, close + 1 - at_}, Blank::Kind::value});
                at_ = close + 1;
                return;
            }
        }
        if (end < text_.size() && (is_name_start(text_[end]) || text_[end] == '$')) {
            while (end < text_.size() && is_name(text_[end]) && text_[end] != '$') ++end;
            if (end < text_.size() && text_[end] == '$') {
                const auto tag = text_.substr(at_, end + 1 - at_);
                const auto close = text_.find(tag, end + 1);
                at_ = close == std::string_view::npos ? text_.size() : close + tag.size();
                return;
            }
        }
        ++at_;
    }

    void colon() {
        if (starts("::") || starts(":=")) {
            at_ += 2;
            return;
        }
        const std::size_t next = at_ + 1;
        if (next < text_.size() && is_name_start(text_[next])) {
            std::size_t end = next;
            while (end < text_.size() && is_name(text_[end]) && text_[end] != '$') ++end;
            blanks_.push_back({{at_, end - at_}, Blank::Kind::value});
            at_ = end;
        } else if (next + 1 < text_.size() && (text_[next] == '\'' || text_[next] == '"') &&
                   is_name_start(text_[next + 1])) {
            const char quote = text_[next];
            std::size_t end = next + 1;
            while (end < text_.size() && is_name(text_[end]) && text_[end] != '$') ++end;
            if (end < text_.size() && text_[end] == quote) {
                blanks_.push_back({{at_, end + 1 - at_},
                                   quote == '"' ? Blank::Kind::identifier : Blank::Kind::literal});
                at_ = end + 1;
            } else {
                ++at_;
            }
        } else {
            ++at_;
        }
    }

    void backslash() {
        const std::size_t begin = at_;
        if (begin + 1 < text_.size() && text_[begin + 1] == ';') {
            // A semicolon that does not end the query string.
            if (!open_) {
                open_ = true;
                begin_ = at_;
            }
            erased_.push_back({begin, 1});
            at_ = begin + 2;
            words_.clear();
            return;
        }
        std::size_t end = begin + 1;
        while (end < text_.size() && !is_space(text_[end]) && text_[end] != '\\') ++end;
        const std::string command = lower(text_.substr(begin + 1, end - begin - 1));
        std::size_t line_end = std::min(text_.find('\n', end), text_.size());
        if (const auto separator = text_.substr(end, line_end - end).find("\\\\");
            separator != std::string_view::npos) {
            line_end = end + separator;
        }
        // The next command ends this one's arguments, but for those that take the whole line.
        if (command != "!" && command != "copy") line_end = end_of_arguments(end, line_end);
        const std::string_view arguments = text_.substr(end, line_end - end);
        at_ = line_end + (text_.substr(line_end, 2) == "\\\\" ? 2 : 0);
        if (command == "copy") {
            client_copy(begin, end, line_end);
        } else if (command == "g" || command == "gx" || command == "gset" || command == "gdesc" ||
                   command == "gexec" || command == "crosstabview" || command == "watch" ||
                   command.starts_with("g(") || command.starts_with("gx(")) {
            result_is_run_ = command == "gexec";
            if (result_is_run_ && open_) {
                script_.notes.push_back(
                    {begin, "what this query gives is run as SQL (\\gexec) and is not checked"});
            }
            finish(begin);
        } else if (command == "r" || command == "reset") {
            forget();
        } else {
            if (command == "i" || command == "ir" || command == "include" ||
                command == "include_relative") {
                script_.notes.push_back(
                    {begin, "the included file" + std::string(arguments) +
                                " is not checked here: name it on the command line too"});
            } else if (command == "!") {
                script_.notes.push_back({begin, "a shell command is not checked"});
            }
            unknown_ = unknown_ || !only_prints_or_sets(command, arguments);
            if (open_) erased_.push_back({begin, at_ - begin});
        }
    }

    std::size_t end_of_arguments(std::size_t begin, std::size_t line_end) const {
        for (std::size_t i = begin; i < line_end; ++i) {
            const char c = text_[i];
            if (c == '\\') return i;
            if (c != '\'' && c != '"' && c != '`') continue;
            const auto close = text_.find(c, i + 1);
            if (close == std::string_view::npos || close >= line_end) return line_end;
            i = close;
        }
        return line_end;
    }

    // \copy t from 'file' is COPY t FROM STDIN to the server.
    void client_copy(std::size_t begin, std::size_t command_end, std::size_t line_end) {
        std::size_t i = command_end;
        int depth = 0;
        while (i < line_end) {
            const char c = text_[i];
            if (c == '\'' || c == '"') {
                const auto close = text_.find(c, i + 1);
                i = close == std::string_view::npos || close >= line_end ? line_end : close + 1;
            } else if (c == '(' || c == ')') {
                depth += c == '(' ? 1 : -1;
                ++i;
            } else if (is_name_start(c)) {
                const std::size_t start = i;
                while (i < line_end && is_name(text_[i])) ++i;
                const std::string name = lower(text_.substr(start, i - start));
                if (depth == 0 && (name == "from" || name == "to")) break;
            } else {
                ++i;
            }
        }
        const bool from = lower(text_.substr(i >= 4 ? i - 4 : 0, std::min<std::size_t>(i, 4))) ==
                          "from";
        ScriptStatement statement;
        statement.span = {begin, line_end - begin};
        // Longer than the text in the end, perhaps; what is judged is the beginning.
        statement.sql = " " + std::string(text_.substr(begin + 1, i - begin - 1)) +
                        (from ? " stdin" : " stdout");
        statement.comments = std::move(comments_);
        forget();
        script_.statements.push_back(std::move(statement));
    }

    bool copy_from_stdin() const {
        if (words_.empty() || words_.front() != "copy") return false;
        for (std::size_t i = 1; i + 1 < words_.size(); ++i) {
            if (words_[i] == "from" && words_[i + 1] == "stdin") return true;
        }
        return false;
    }

    void skip_copy_data() {
        at_ = std::min(text_.find('\n', at_), text_.size());
        while (at_ < text_.size()) {
            const std::size_t begin = at_ + 1;
            at_ = std::min(text_.find('\n', begin), text_.size());
            if (begin > text_.size()) break;
            std::string_view line = text_.substr(begin, at_ - begin);
            if (!line.empty() && line.back() == '\r') line.remove_suffix(1);
            if (line == "\\.") return;
        }
    }

    void comment(std::size_t begin) { comments_.push_back({begin, at_ - begin}); }

    void finish(std::size_t end) {
        if (!changeset_.other_databases.empty()) {
            comments_.clear();
        } else if (open_) {
            ScriptStatement statement;
            while (end > begin_ && is_space(text_[end - 1])) --end;
            statement.span = {begin_, end - begin_};
            statement.sql = text_.substr(begin_, end - begin_);
            for (const Span& span : erased_) {
                for (std::size_t i = span.offset; i < span.offset + span.length && i < end; ++i) {
                    if (text_[i] != '\n') statement.sql[i - begin_] = ' ';
                }
            }
            statement.blanks = std::move(blanks_);
            statement.comments = std::move(comments_);
            statement.result_is_run = result_is_run_;
            statement.after_unknown = std::exchange(unknown_, false);
            script_.statements.push_back(std::move(statement));
        }
        // Comments behind the last statement are looked at again in attach_trailing_comments.
        else
            loose_.insert(loose_.end(), comments_.begin(), comments_.end());
        forget();
    }

    void forget() {
        open_ = false;
        depth_ = blocks_ = 0;
        result_is_run_ = false;
        words_.clear();
        blanks_.clear();
        comments_.clear();
        erased_.clear();
    }

    // A comment behind a statement on its last line belongs to that statement, not to the next.
    void attach_trailing_comments() {
        for (std::size_t i = 0; i < script_.statements.size(); ++i) {
            ScriptStatement& statement = script_.statements[i];
            const std::size_t end = statement.span.offset + statement.span.length;
            const std::size_t line_end = std::min(text_.find('\n', end), text_.size());
            auto& from = i + 1 < script_.statements.size() ? script_.statements[i + 1].comments
                                                           : loose_;
            const std::size_t next = i + 1 < script_.statements.size()
                                         ? script_.statements[i + 1].span.offset
                                         : text_.size();
            for (std::size_t c = 0; c < from.size();) {
                if (from[c].offset >= end && from[c].offset < line_end && next > line_end) {
                    statement.comments.push_back(from[c]);
                    from.erase(from.begin() + static_cast<std::ptrdiff_t>(c));
                } else {
                    ++c;
                }
            }
        }
    }

    bool starts(std::string_view what) const { return text_.substr(at_, what.size()) == what; }

    std::string_view text_;
    std::size_t at_ = 0;
    bool liquibase_;
    Changeset changeset_;
    Script script_;
    std::vector<Span> loose_;

    bool open_ = false;
    std::size_t begin_ = 0;
    int depth_ = 0;
    int blocks_ = 0;
    bool result_is_run_ = false;
    bool unknown_ = false;
    std::vector<std::string> words_;
    std::vector<Blank> blanks_;
    std::vector<Span> comments_;
    std::vector<Span> erased_;
};

}  // namespace

std::string ScriptStatement::filled(bool as_names) const {
    std::string out = sql;
    for (const Blank& blank : blanks) {
        const std::size_t begin = blank.span.offset - span.offset;
        if (begin + blank.span.length > out.size()) continue;
        if (blank.kind != Blank::Kind::value) {
            // :'name' and :"name" are a literal and a name already, but for the colon.
            out[begin] = ' ';
            continue;
        }
        std::string filling(blank.span.length, ' ');
        if (as_names) {
            // The name itself: without the colon, or without ${ and }.
            const bool braces = out[begin] == '$';
            for (std::size_t i = braces ? 2 : 1; i < blank.span.length - (braces ? 1 : 0); ++i) {
                const char c = out[begin + i];
                filling[i] = is_name(c) ? c : '_';
            }
            // ${schema}.table must stay one word with what follows.
            if (braces) std::rotate(filling.begin(), filling.end() - 1, filling.end());
        } else {
            filling[0] = '$';
            filling[1] = '1';
        }
        out.replace(begin, blank.span.length, filling);
    }
    return out;
}

LineColumn line_column(std::string_view text, std::size_t offset) {
    LineColumn result;
    offset = std::min(offset, text.size());
    const std::string_view before = text.substr(0, offset);
    result.line += static_cast<std::size_t>(std::count(before.begin(), before.end(), '\n'));
    const auto line_begin = before.rfind('\n');
    for (std::size_t i = line_begin == std::string_view::npos ? 0 : line_begin + 1; i < offset;
         ++i) {
        if ((static_cast<unsigned char>(text[i]) & 0xc0U) != 0x80) ++result.column;
    }
    return result;
}

Script split_script(std::string_view text) { return Splitter(text).run(); }

}  // namespace pgchaperone::cli
