#include "sim/model_sql.h"

#include "sim/injected.h"

#include <algorithm>
#include <cctype>
#include <cstdlib>

namespace pgchaperone::sim {

namespace {

bool word_character(char c) {
    return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '_' || c == '$';
}

struct Token {
    std::string text;  // words in lower case; strings without their quotes
    bool quoted = false;
};

struct Piece {
    std::string_view text;
    std::vector<Token> tokens;
    std::vector<std::string> comments;
};

std::string_view trimmed(std::string_view text) {
    while (!text.empty() && std::isspace(static_cast<unsigned char>(text.front())) != 0) {
        text.remove_prefix(1);
    }
    while (!text.empty() && std::isspace(static_cast<unsigned char>(text.back())) != 0) {
        text.remove_suffix(1);
    }
    return text;
}

// Cuts a text at its semicolons, and each part into tokens and comments. False: a comment or string
// does not end.
bool cut(std::string_view sql, std::vector<Piece>& pieces) {
    Piece piece;
    std::size_t start = 0;
    std::size_t at = 0;
    const auto finish = [&](std::size_t end) {
        piece.text = trimmed(sql.substr(start, end - start));
        if (!piece.tokens.empty()) pieces.push_back(std::move(piece));
        piece = {};
        start = end + 1;
    };
    while (at < sql.size()) {
        const char c = sql[at];
        if (std::isspace(static_cast<unsigned char>(c)) != 0) {
            ++at;
        } else if (c == ';') {
            finish(at++);
        } else if (sql.substr(at, 2) == "/*") {
            const std::size_t end = sql.find("*/", at);
            if (end == std::string_view::npos) return false;
            piece.comments.emplace_back(trimmed(sql.substr(at + 2, end - at - 2)));
            at = end + 2;
        } else if (c == '\'' || sql.substr(at, 2) == "$$") {
            const std::string_view quote = sql.substr(at, c == '\'' ? 1 : 2);
            const std::size_t end = sql.find(quote, at + quote.size());
            if (end == std::string_view::npos) return false;
            piece.tokens.push_back(
                {std::string(sql.substr(at + quote.size(), end - at - quote.size())), true});
            at = end + quote.size();
        } else if (word_character(c)) {
            std::string word;
            while (at < sql.size() && word_character(sql[at])) {
                word += static_cast<char>(std::tolower(static_cast<unsigned char>(sql[at++])));
            }
            piece.tokens.push_back({std::move(word), false});
        } else {
            piece.tokens.push_back({std::string(1, c), false});
            ++at;
        }
    }
    finish(sql.size());
    return true;
}

// Reads tokens by the shape of a statement: "delete from @t where id <= #".
class Reader {
public:
    explicit Reader(const std::vector<Token>& tokens) : tokens_(tokens) {}

    // Takes these words if all of them come next.
    bool take(std::string_view words) {
        std::size_t at = at_;
        while (!words.empty()) {
            const std::size_t end = std::min(words.find(' '), words.size());
            if (at >= tokens_.size() || tokens_[at].quoted ||
                tokens_[at].text != words.substr(0, end)) {
                return false;
            }
            ++at;
            words.remove_prefix(std::min(end + 1, words.size()));
        }
        at_ = at;
        return true;
    }
    bool table(int& table) {
        for (int i = 0; i < 3; ++i) {
            if (take("t" + std::to_string(i + 1))) {
                table = i;
                return true;
            }
        }
        return false;
    }
    bool number(Number& number) {
        if (at_ >= tokens_.size() || tokens_[at_].quoted) return false;
        const std::string& text = tokens_[at_].text;
        const bool parameter = text.size() > 1 && text[0] == '$';
        const std::string digits = parameter ? text.substr(1) : text;
        if (digits.empty() || digits.size() > 6 ||
            !std::all_of(digits.begin(), digits.end(),
                         [](char c) { return c >= '0' && c <= '9'; })) {
            return false;
        }
        (parameter ? number.parameter : number.value) = std::atoi(digits.c_str());
        ++at_;
        return true;
    }
    bool name(std::string& name) {
        if (at_ >= tokens_.size()) return false;
        name = tokens_[at_++].text;
        return true;
    }
    bool quoted(std::string& text) {
        return at_ < tokens_.size() && tokens_[at_].quoted && name(text);
    }
    bool at_end() const { return at_ == tokens_.size(); }

private:
    const std::vector<Token>& tokens_;
    std::size_t at_ = 0;
};

bool read_bound(Reader& in, Statement& s) {
    if (!in.take("where id < =")) return true;
    s.bounded = true;
    return in.number(s.high);
}

bool read_returning(Reader& in, Statement& s) {
    s.returning = in.take("returning id");
    return true;
}

bool read_rows(Reader& in, Statement& s) {
    s.verb = Verb::select_rows;
    if (!in.take("id from") || !in.table(s.table) || !read_bound(in, s)) return false;
    Number limit;
    if (in.take("limit")) {
        if (!in.number(limit)) return false;
        s.limit = limit.value;
    }
    return true;
}

bool read_select(Reader& in, Statement& s) {
    if (in.take("purge (")) {
        s.verb = Verb::purge;
        return in.number(s.high) && in.take(")");
    }
    if (in.take("make_function ( )")) return s.verb = Verb::make_function, true;
    if (in.take("wipe ( )")) return s.verb = Verb::wipe, true;
    if (in.take("1")) {
        s.verb = Verb::select_constant;
        if (in.take("/ 0")) s.fails = "22012";
        return true;
    }
    return read_rows(in, s);
}

bool read_do(Reader& in, Statement& s) {
    std::string body;
    if (!in.quoted(body)) return false;
    std::vector<Piece> pieces;
    if (!cut(body, pieces) || pieces.empty()) return false;
    Reader inner(pieces.front().tokens);
    s.verb = Verb::do_purge;
    return inner.take("begin perform purge (") && inner.number(s.high) && inner.take(")");
}

bool read_transaction(Reader& in, Statement& s) {
    const auto chained = [&] {
        s.chain = in.take("and chain");
        return true;
    };
    if (in.take("begin")) return s.verb = Verb::begin, true;
    if (in.take("start transaction")) {
        s.name = "START TRANSACTION";
        return s.verb = Verb::begin, true;
    }
    if (in.take("commit prepared")) return s.verb = Verb::commit_prepared, in.quoted(s.name);
    if (in.take("rollback prepared")) return s.verb = Verb::rollback_prepared, in.quoted(s.name);
    if (in.take("prepare transaction")) {
        return s.verb = Verb::prepare_transaction, in.quoted(s.name);
    }
    if (in.take("commit") || in.take("end")) return s.verb = Verb::commit, chained();
    if (in.take("rollback to savepoint") || in.take("rollback to")) {
        return s.verb = Verb::rollback_to, in.name(s.name);
    }
    if (in.take("rollback") || in.take("abort")) return s.verb = Verb::rollback, chained();
    if (in.take("savepoint")) return s.verb = Verb::savepoint, in.name(s.name);
    if (in.take("release savepoint") || in.take("release")) {
        return s.verb = Verb::release, in.name(s.name);
    }
    return false;
}

bool read_remove(Reader& in, Statement& s, Verb verb) {
    s.verb = verb;
    return in.table(s.table) && read_bound(in, s);
}

bool read_declare(Reader& in, Statement& s) {
    if (!in.name(s.name) || !in.take("cursor for select") || !read_select(in, s)) return false;
    s.inner = s.verb;
    s.verb = Verb::declare_cursor;
    return s.inner == Verb::select_rows || s.inner == Verb::purge;
}

bool read_prepare(Reader& in, Statement& s) {
    if (!in.name(s.name) || !in.take("as")) return false;
    if (in.take("update")) {
        s.inner = Verb::update;
        if (!in.table(s.table) || !in.take("set a =") || !in.number(s.value)) return false;
    } else {
        s.inner = Verb::remove;
        if (!in.take("delete from") || !in.table(s.table)) return false;
    }
    s.verb = Verb::prepare;
    return read_bound(in, s);
}

bool read_statement(Reader& in, Statement& s) {
    if (in.take("select")) return read_select(in, s);
    if (in.take("insert into")) {
        s.verb = Verb::insert;
        return in.table(s.table) && in.take("select generate_series (") && in.number(s.low) &&
               in.take(",") && in.number(s.high) && in.take(")") && read_returning(in, s);
    }
    if (in.take("update")) {
        s.verb = Verb::update;
        return in.table(s.table) && in.take("set a =") && in.number(s.value) && read_bound(in, s) &&
               read_returning(in, s);
    }
    if (in.take("delete from")) {
        s.verb = Verb::remove;
        return in.table(s.table) && read_bound(in, s) && read_returning(in, s);
    }
    if (in.take("do")) return read_do(in, s);
    if (in.take("truncate")) return s.verb = Verb::truncate, in.table(s.table);
    if (in.take("copy")) {
        if (!in.table(s.table) || !in.take("( id )")) return false;
        s.verb = in.take("from stdin") ? Verb::copy_in : Verb::copy_out;
        return s.verb == Verb::copy_in || in.take("to stdout");
    }
    if (in.take("set application_name =")) {
        return s.verb = Verb::set_application_name, in.quoted(s.name);
    }
    if (in.take("set transaction read")) {
        s.verb = Verb::set_transaction;
        s.immediate = in.take("only");
        return s.immediate || in.take("write");
    }
    if (in.take("set constraints all")) {
        s.verb = Verb::set_constraints;
        s.immediate = in.take("immediate");
        return s.immediate || in.take("deferred");
    }
    if (in.take("with d as ( delete from")) {
        return read_remove(in, s, Verb::with_remove) && in.take("returning id ) select 1");
    }
    if (in.take("explain analyze delete from")) return read_remove(in, s, Verb::explain_remove);
    if (in.take("call sweep (")) {
        s.verb = Verb::call_sweep;
        return in.number(s.high) && in.take(")");
    }
    if (in.take("execute")) return s.verb = Verb::execute, in.name(s.name);
    if (in.take("deallocate")) return s.verb = Verb::deallocate, in.name(s.name);
    if (in.take("declare")) return read_declare(in, s);
    if (in.take("fetch")) {
        s.verb = Verb::fetch;
        return in.number(s.high) && in.take("from") && in.name(s.name);
    }
    if (in.take("close")) return s.verb = Verb::close_cursor, in.name(s.name);
    if (in.take("vacuum")) return s.verb = Verb::vacuum, in.table(s.table);
    if (read_transaction(in, s)) return true;
    return in.take("prepare") && read_prepare(in, s);
}

void read_comment(const std::string& comment, Statement& s) {
    if (comment.starts_with("fail ")) s.fails = comment.substr(5);
    if (comment == "notice") s.notice = true;
    if (comment == "breaks") s.breaks = true;
    if (comment == "heals") s.heals = true;
    if (comment == "cascade") s.cascade = true;
    if (comment.starts_with("later ")) s.later = std::atoi(comment.c_str() + 6);
}

}  // namespace

int Number::of(const std::vector<int>& parameters) const {
    if (parameter == 0) return value;
    const auto index = static_cast<std::size_t>(parameter - 1);
    return index < parameters.size() ? parameters[index] : 0;
}

bool Statement::returns_rows() const {
    switch (verb) {
        case Verb::select_rows:
        case Verb::select_constant:
        case Verb::purge:
        case Verb::make_function:
        case Verb::wipe:
        case Verb::with_remove:
        case Verb::explain_remove:
        case Verb::fetch:
        case Verb::guard: return true;
        default: return returning;
    }
}

bool Statement::controls_transaction() const {
    return verb >= Verb::begin && verb <= Verb::rollback_prepared;
}

bool Statement::ends_failed_block() const {
    return verb == Verb::commit || verb == Verb::rollback || verb == Verb::rollback_to ||
           verb == Verb::prepare_transaction;
}

bool Statement::opaque() const { return verb >= Verb::purge && verb <= Verb::call_sweep; }

std::vector<Statement> parse_sql(std::string_view sql) {
    std::vector<Statement> statements;
    Statement whole;
    whole.text = trimmed(sql);
    if (is_guard_reading(sql)) {
        whole.verb = Verb::guard;
        if (is_guard_plan(sql)) {
            const auto planned = parse_sql(planned_text(sql));
            if (planned.size() != 1) whole.verb = Verb::syntax_error;
            if (planned.size() == 1) whole.parameters = planned.front().parameters;
            if (planned.size() == 1 && planned.front().verb == Verb::syntax_error) {
                whole.verb = Verb::syntax_error;
            }
        }
        return {whole};
    }
    whole.verb = Verb::syntax_error;
    std::vector<Piece> pieces;
    if (!cut(sql, pieces)) return {whole};
    for (const Piece& piece : pieces) {
        Statement statement;
        statement.text = piece.text;
        for (const std::string& comment : piece.comments) read_comment(comment, statement);
        Reader in(piece.tokens);
        if (!read_statement(in, statement) || !in.at_end()) return {whole};
        for (const Number& number : {statement.low, statement.high, statement.value}) {
            statement.parameters = std::max(statement.parameters, number.parameter);
        }
        statements.push_back(std::move(statement));
    }
    return statements;
}

}  // namespace pgchaperone::sim
