#include "sim/script.h"

#include "protocol/codec.h"
#include "protocol/dumper.h"
#include "protocol/head.h"
#include "sim/model_server.h"

#include <utility>

namespace pgchaperone::sim {

namespace {

using test::Random;

void note_flush(char tag, bool& unflushed) {
    if (tag == 'Q' || tag == 'S' || tag == 'H' || tag == 'F') {
        unflushed = false;
    } else if (tag == 'P' || tag == 'B' || tag == 'D' || tag == 'E' || tag == 'C') {
        unflushed = true;
    }
}

class Author {
public:
    Author(Random& random, const Taste& taste) : random_(random), taste_(taste) {}

    Script write() {
        const std::size_t scenes = 1 + random_.below(static_cast<std::size_t>(taste_.scenes));
        for (std::size_t i = 0; i < scenes; ++i) scene();
        if (!taste_.vanishes || random_.one_in(2)) {
            if (!random_.one_in(4)) wait();
            add(Step::Kind::terminate);
        } else {
            add(random_.one_in(2) ? Step::Kind::half_close : Step::Kind::vanish);
        }
        if (taste_.vanishes && random_.one_in(2)) {
            script_.resize(1 + random_.below(script_.size()));
            add(random_.one_in(2) ? Step::Kind::half_close : Step::Kind::vanish);
        }
        if (taste_.cancels) {
            const std::size_t cancels = 1 + random_.below(12);
            for (std::size_t i = 0; i < cancels; ++i) {
                const auto at = static_cast<std::ptrdiff_t>(random_.below(script_.size()));
                Step step;
                step.kind = Step::Kind::cancel;
                script_.insert(script_.begin() + at, std::move(step));
            }
        }
        return std::move(script_);
    }

private:
    void add(Step::Kind kind) {
        Step step;
        step.kind = kind;
        put(std::move(step));
    }
    // Steps belong to one unit until the next one begins.
    void begin_unit() { ++unit_; }
    void put(Step step) {
        step.unit = unit_;
        script_.push_back(std::move(step));
    }
    template <class Message>
    void send(const Message& message, std::vector<Statement> statements = {},
              bool only_while_copying = false) {
        Step step;
        step.bytes = protocol::encoded(message);
        note_flush(step.tag(), unflushed_);
        step.statements = std::move(statements);
        step.only_while_copying = only_while_copying;
        put(std::move(step));
    }
    // Nobody waits for replies that the server may keep until a Sync or Flush.
    void wait() {
        begin_unit();  // the Flush and what waits for it
        if (unflushed_) send(protocol::Flush{});
        add(Step::Kind::wait);
        begin_unit();
    }
    void maybe_wait() {
        if (!random_.one_in(3)) wait();
    }

    std::string number(std::size_t n) { return std::to_string(n); }
    std::size_t rows() {
        if (taste_.wild && random_.one_in(4)) return 5 + random_.below(30);
        return random_.below(static_cast<std::size_t>(taste_.rows_max) + 1);
    }
    std::string table() { return random_.one_in(4) ? "t2" : random_.one_in(4) ? "t3" : "t1"; }

    std::string comments() {
        std::string out;
        if (taste_.plain) return out;
        if (taste_.failures && random_.one_in(12)) {
            static const char* const states[] = {"40P01", "55P03", "22012", "40001", "57014"};
            out += std::string("/* fail ") + states[random_.below(5)] + " */ ";
        }
        if (random_.one_in(12)) out += "/* notice */ ";
        if (taste_.failures && random_.one_in(14)) out += "/* breaks */ ";
        if (random_.one_in(14)) out += "/* heals */ ";
        if (taste_.opaque && random_.one_in(10)) {
            out += "/* later " + number(random_.below(taste_.wild ? 14 : 3)) + " */ ";
        }
        return out;
    }

    // A statement that changes rows and shows it, as SQL. `parameters`: may hold $1.
    std::string write_sql() {
        switch (random_.below(4)) {
            case 0:
            case 1: {
                const std::size_t first = next_id_;
                const std::size_t count = rows();
                next_id_ += count + 1;
                if (taste_.failures && random_.one_in(12)) next_id_ = first;  // a duplicate, later
                return "insert into " + comments() + table() + " select generate_series(" +
                       number(first) + ", " + number(first + count) + ")" + returning();
            }
            case 2:
                return "update " + comments() + table() + " set a = " + number(random_.below(9)) +
                       bound() + returning();
            default:
                return "delete from " + comments() +
                       (!taste_.plain && random_.one_in(4) ? "/* cascade */ " : "") + table() +
                       bound() + returning();
        }
    }
    std::string bound() {
        if (taste_.wild && random_.one_in(8)) return "";
        // Deletes move the first row up, so a bound that is high enough now and then hits more.
        return " where id <= " + number(rows());
    }
    std::string returning() { return random_.one_in(4) ? " returning id" : ""; }

    std::string read_sql() {
        if (random_.one_in(3)) return "select 1";
        if (taste_.failures && random_.one_in(8)) return "select 1 / 0";
        return "select id from " + table() + (random_.one_in(2) ? " where id <= 7" : "") +
               " limit " + number(1 + random_.below(9));
    }
    std::string opaque_sql() {
        switch (random_.below(taste_.wild ? 10 : 7)) {
            case 4:
                return "with d as (delete from " + comments() + table() + bound() +
                       " returning id) select 1";
            case 5:
                if (taste_.plain) return "select purge(1)";
                return "explain analyze delete from " + comments() + table() + bound();
            case 6: return "call " + comments() + "sweep(" + number(rows()) + ")";
            case 0:
            case 1: return "select " + comments() + "purge(" + number(rows()) + ")";
            case 2:
            case 3:
                return "do " + comments() + "$$ begin perform purge(" + number(rows()) +
                       "); end $$";
            case 7: return "select make_function()";
            default: return "select wipe()";
        }
    }
    std::string any_sql() {
        switch (random_.below(12)) {
            case 0:
            case 1:
            case 2: return read_sql();
            case 3: return "set application_name = 'n" + number(random_.below(5)) + "'";
            case 4: return taste_.opaque ? opaque_sql() : write_sql();
            case 5: return taste_.opaque ? opaque_sql() : read_sql();
            case 6: return taste_.wild ? "truncate " + table() : write_sql();
            default: return write_sql();
        }
    }

    void query(const std::string& sql) {
        begin_unit();
        send(protocol::Query{sql}, parse_sql(sql));
    }

    void scene() {
        if (random_.one_in(300)) return flood();
        begin_unit();
        switch (random_.below(16)) {
            case 0:
            case 1:
            case 2: query(any_sql()); break;
            case 15: prepared(); break;
            case 3: several(); break;
            case 4:
            case 5: batch(); break;
            case 6:
            case 7:
            case 8: block(); break;
            case 9: copy_simple(); break;
            case 10: copy_extended(); break;
            case 11: rows_in_portions(); break;
            case 12: odd(); break;
            case 13: taste_.plain ? odd() : call(); break;
            default: pipeline(); break;
        }
        maybe_wait();
    }

    // More than anybody may keep while a decision is awaited.
    void flood() {
        const std::string padding(3000, 'x');
        for (int i = 0; i < 60; ++i) {
            query("update /* " + padding + " */ t3 set a = 1 where id <= 1");
        }
    }

    // SQL's own PREPARE and EXECUTE.
    void prepared() {
        const std::string name = "q" + number(++names_);
        const std::string what = random_.one_in(2) ? "delete from " + comments() + table() + bound()
                                                   : "update t1 set a = 3" + bound();
        query("prepare " + name + " as " + what);
        const std::size_t count = 1 + random_.below(3);
        for (std::size_t i = 0; i < count; ++i) {
            if (random_.one_in(3)) {
                group("execute " + name);
                sync();
            } else {
                query("execute " + name);
            }
        }
        if (random_.one_in(3)) query("deallocate " + name);
    }

    // Several statements in one string, some of which may control transactions.
    void several() {
        std::string sql;
        const std::size_t count = 2 + random_.below(4);
        static const char* const controls[] = {"begin", "commit", "rollback", "savepoint a",
                                               "commit and chain"};
        for (std::size_t i = 0; i < count; ++i) {
            sql += random_.one_in(5) ? controls[random_.below(5)] : any_sql();
            sql += random_.one_in(6) ? " ;; " : "; ";
        }
        query(sql);
        if (random_.one_in(2)) query(random_.one_in(2) ? "commit" : "rollback");
    }

    // One group of the extended protocol: Parse, Bind, perhaps Describe, Execute. Names are never
    // used for two different texts.
    void group(const std::string& sql, int max_rows = 0) {
        const std::vector<Statement> statements = parse_sql(sql);
        const std::string statement = random_.one_in(3) ? "s" + number(++names_) : "";
        const std::string portal = random_.one_in(5) ? "p" + number(++names_) : "";
        begin_unit();
        send(protocol::Parse{statement, sql, {}});
        if (random_.one_in(4)) send(protocol::Describe{'S', statement});
        send(protocol::Bind{portal, statement, {}, {}, {}});
        if (random_.one_in(2)) send(protocol::Describe{'P', portal});
        send(protocol::Execute{portal, max_rows}, statements);
        if (random_.one_in(8)) send(protocol::Flush{});
        // In the middle of a COPY it would be the end.
        const bool copies = !statements.empty() && statements.front().verb == Verb::copy_in;
        if (!statement.empty() && random_.one_in(copies ? 30 : 3)) {
            send(protocol::Close{'S', statement});
        }
    }
    void sync() {
        begin_unit();
        send(protocol::Sync{});
    }

    // One prepared statement, bound and executed many times before one Sync, as JDBC's batches do.
    void batch() {
        const bool insert = random_.one_in(2);
        const std::string sql = insert
                                    ? "insert into t3 select generate_series($1, $2)" + returning()
                                    : "update t1 set a = 1 where id <= $1";
        const std::string name = random_.one_in(2) ? "b" + number(++names_) : "";
        begin_unit();
        constexpr protocol::Int32 int4_oid = 23;
        protocol::Parse parse{name, sql, {int4_oid}};
        if (insert) parse.parameter_types.push_back(int4_oid);
        send(parse);
        if (random_.one_in(2)) send(protocol::Describe{'S', name});
        const std::size_t count = 1 + random_.below(taste_.wild ? 20 : 4);
        for (std::size_t i = 0; i < count; ++i) {
            const std::size_t first = insert ? next_id_ : random_.below(2);
            const std::size_t last = first + (random_.one_in(3) ? rows() : 0);
            if (insert) next_id_ = last + 1;
            const std::string low = number(first);
            const std::string high = number(last);
            protocol::Bind bind{"", name, {}, {std::string_view(low)}, {}};
            if (insert) bind.parameters.emplace_back(std::string_view(high));
            send(bind);
            send(protocol::Execute{"", 0}, parse_sql(sql));
        }
        sync();
    }

    void in_block(bool extended, const std::string& sql) {
        if (!extended) return query(sql);
        group(sql);
        if (!random_.one_in(3)) sync();
    }

    void block() {
        const bool extended = random_.one_in(3);
        in_block(extended, random_.one_in(4) ? "start transaction" : "begin");
        const std::size_t count = 1 + random_.below(6);
        for (std::size_t i = 0; i < count; ++i) {
            switch (random_.below(9)) {
                case 0: in_block(extended, "savepoint a"); break;
                case 1: in_block(extended, "rollback to savepoint a"); break;
                case 2: in_block(extended, "release a"); break;
                case 3:
                    in_block(extended,
                             taste_.opaque && random_.one_in(2)
                                 ? "declare c cursor for select purge(" + number(rows()) + ")"
                                 : "declare c cursor for select id from t1 limit 9");
                    in_block(extended, "fetch 3 from c");
                    if (random_.one_in(2)) in_block(extended, "close c");
                    break;
                case 4:
                    if (random_.one_in(4)) {
                        in_block(extended, random_.one_in(3) ? "set transaction read write"
                                                             : "set transaction read only");
                        break;
                    }
                    in_block(extended, random_.one_in(2) ? "set constraints all immediate"
                                                         : "set constraints all deferred");
                    break;
                default: in_block(random_.one_in(5) ? !extended : extended, any_sql()); break;
            }
            maybe_wait();
        }
        end_block(extended);
        if (extended) sync();
    }

    void end_block(bool extended) {
        switch (random_.below(8)) {
            case 0: in_block(extended, "rollback"); break;
            case 1:
                in_block(extended, "commit and chain");
                in_block(extended, any_sql());
                in_block(extended, "commit");
                break;
            case 2: {
                const std::string name = "'g" + number(++names_) + "'";
                in_block(extended, "prepare transaction " + name);
                if (extended) sync();
                in_block(extended,
                         (random_.one_in(2) ? "commit prepared " : "rollback prepared ") + name);
                break;
            }
            case 3: in_block(extended, "end"); break;
            default: in_block(extended, "commit"); break;
        }
    }

    void copy_rows(bool only_while_copying) {
        const std::size_t count = rows();
        std::string data;
        for (std::size_t i = 0; i < count; ++i) data += number(next_id_++) + "\n";
        if (taste_.failures && random_.one_in(8)) data += "nonsense\n";
        while (!data.empty()) {
            const std::size_t size = 1 + random_.below(data.size());
            send(protocol::CopyData{std::string_view(data).substr(0, size)}, {},
                 only_while_copying);
            data.erase(0, size);
        }
        if (random_.one_in(8)) {
            send(protocol::CopyFail{"changed my mind"}, {}, only_while_copying);
        } else {
            send(protocol::CopyDone{}, {}, only_while_copying);
        }
    }

    void copy_simple() {
        if (random_.one_in(3)) return query("copy t1 (id) to stdout");
        const std::string copy = "copy " + table() + " (id) from stdin";
        const bool with_more = random_.one_in(4);
        query(with_more ? copy + "; " + write_sql() : copy);
        const bool waits = random_.one_in(2);
        if (waits) add(Step::Kind::wait_copy);
        copy_rows(waits);
    }

    void copy_extended() {
        group(random_.one_in(3) ? "copy t2 (id) to stdout" : "copy t3 (id) from stdin");
        // As libpq does: a Sync at once, which the COPY ignores, and another at the end. (With
        // cancels about, nobody could say which of the two counts.)
        const bool early_sync = !taste_.cancels && random_.one_in(2);
        if (early_sync) {
            send(protocol::Sync{});
        } else if (random_.one_in(2)) {
            send(protocol::Flush{});
        }
        if (early_sync) add(Step::Kind::wait_copy);
        copy_rows(early_sync);
        // Where the COPY never began the early Sync was answered, and one more is answered too.
        send(protocol::Sync{});
    }

    void rows_in_portions() {
        const bool in_transaction = random_.one_in(2);
        if (in_transaction) query("begin");
        const std::string sql = random_.one_in(2) ? "select id from t1 limit 8" : write_sql();
        const std::vector<Statement> statements = parse_sql(sql);
        begin_unit();
        send(protocol::Parse{"", sql, {}});
        send(protocol::Bind{"", "", {}, {}, {}});
        send(protocol::Execute{"", 3}, statements);
        const bool again = statements.front().returns_rows();
        if (again && random_.one_in(2)) send(protocol::Flush{});
        if (again) send(protocol::Execute{"", 3}, statements);
        if (again && random_.one_in(2)) send(protocol::Execute{"", 0}, statements);
        sync();
        if (in_transaction) query(random_.one_in(4) ? "rollback" : "commit");
    }

    void odd() {
        switch (random_.below(6)) {
            case 0: query(""); break;
            case 1: query(";;"); break;
            case 2: query("selec 1"); break;
            case 3:
                begin_unit();
                send(protocol::Parse{"", "", {}});
                send(protocol::Bind{"", "", {}, {}, {}});
                send(protocol::Execute{"", 0});
                sync();
                break;
            case 4:
                begin_unit();
                send(protocol::Execute{"nowhere", 0}, parse_sql("select 1"));
                group(any_sql());
                sync();
                break;
            default: query("vacuum t1"); break;
        }
    }

    void call() {
        const std::string argument = number(rows());
        protocol::FunctionCall call;
        call.function_oid = random_.one_in(4) ? 1 : ModelServer::purge_function_oid;
        call.arguments = {std::string_view(argument)};
        begin_unit();
        Step step;
        step.bytes = protocol::encoded(call);
        put(std::move(step));
    }

    // Several groups before one Sync, a simple Query among them now and then. (Not where
    // something is deferred: the guard ends the group's transaction before the Query.)
    void pipeline() {
        const std::size_t count = 2 + random_.below(4);
        for (std::size_t i = 0; i < count; ++i) {
            if (!taste_.failures && !taste_.opaque && random_.one_in(10)) {
                query(any_sql());
            } else {
                group(any_sql(), random_.one_in(5) ? 2 : 0);
            }
        }
        sync();
    }

    Random& random_;
    const Taste& taste_;
    Script script_;
    std::size_t next_id_ = 1000;
    std::size_t names_ = 0;
    int unit_ = 0;
    bool unflushed_ = false;
};

}  // namespace

Script make_script(Random& random, const Taste& taste) { return Author(random, taste).write(); }

bool flushes_before_waiting(const Script& script) {
    bool unflushed = false;
    for (const Step& step : script) {
        note_flush(step.tag(), unflushed);
        if (step.kind == Step::Kind::wait && unflushed) return false;
    }
    return true;
}

std::string to_text(const Script& script) {
    std::string out;
    for (std::size_t i = 0; i < script.size(); ++i) {
        const Step& step = script[i];
        out += std::to_string(i) + ". ";
        switch (step.kind) {
            case Step::Kind::send:
                out += protocol::dump(protocol::Side::frontend, step.bytes);
                if (step.only_while_copying) out += "   (if the COPY began)";
                break;
            case Step::Kind::wait: out += "-- waits for every reply"; break;
            case Step::Kind::wait_copy: out += "-- waits until the COPY has begun or failed"; break;
            case Step::Kind::cancel: out += "-- asks for a cancel"; break;
            case Step::Kind::terminate: out += "-- Terminate, and closes"; break;
            case Step::Kind::half_close: out += "-- sends no more, reads on"; break;
            case Step::Kind::vanish: out += "-- vanishes"; break;
        }
        out += '\n';
    }
    return out;
}

std::vector<std::string> texts_of(const Script& script) {
    std::vector<std::string> texts;
    for (const Step& step : script) {
        if (step.kind != Step::Kind::send) continue;
        const std::string_view body = std::string_view(step.bytes).substr(protocol::head_size);
        if (step.tag() == 'Q') {
            const auto query = protocol::decode<protocol::Query>(body);
            if (query) texts.emplace_back(query->query);
        } else if (step.tag() == 'P') {
            const auto parse = protocol::decode<protocol::Parse>(body);
            if (parse) texts.emplace_back(parse->query);
        }
    }
    return texts;
}

}  // namespace pgchaperone::sim
