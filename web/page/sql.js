// PostgreSQL's text as tokens, by the rules of its scanner (scan.l), and where a long line may be
// broken for the eye. Only for showing: nothing is judged by it. Knows no page.
//
// What must stay true: the tokens are the text, in order and without a gap, whatever it is; and what
// the server takes for a comment or a string is one here, so that no word in it looks alive. What a
// backslash means in a plain string depends on standard_conforming_strings, which is not known here:
// it is taken to be on.

const words = (text) => new Set(text.trim().split(/\s+/));

const keywords = words(`
    abort add all alter always analyse analyze and any array as asc asymmetric authorization begin between both by call
    cascade case cast check close cluster collate column comment commit concurrently conflict constraint copy create
    cross current_catalog current_date current_role current_schema current_time current_timestamp current_user cursor
    database deallocate declare default deferrable deferred delete desc disable discard distinct do domain drop else
    enable end escape except exclude execute exists explain extension false fetch filter first following for foreign
    freeze from full function generated grant group grouping having if ilike immediate immutable in index inherit
    initially inner insert instead intersect into is isnull join key language last lateral leading leakproof left like
    limit listen load localtime localtimestamp lock materialized matched merge move natural no not nothing notify notnull
    nowait null nulls of offset on only or order outer over overlaps owner partition placing policy preceding prepare
    primary privileges procedure publication reassign recursive references refresh reindex release rename replace
    replica reset restrict returning returns revoke right role rollback row rows rule savepoint schema security select
    sequence server session session_user set setof share show similar skip some stable start stdin stdout strict
    subscription symmetric system table tablesample tablespace temp temporary then ties to trailing transaction trigger
    true truncate type unbounded union unique unlogged until update user using vacuum valid values variadic verbose view
    volatile when where window with within without work`);

const patterns = {
    space: /[ \t\n\r\f\v]+/y,
    lineComment: /--[^\n\r]*/y,
    escapeString: /[eE]'[^'\\]*(?:(?:''|\\[\s\S])[^'\\]*)*(?:'|\\?$)/y,
    string: /(?:[bBxXnN]|[uU]&)?'[^']*(?:''[^']*)*(?:'|$)/y,
    quoted: /(?:[uU]&)?"[^"]*(?:""[^"]*)*(?:"|$)/y,
    dollar: /\$(?:[A-Za-z_\u0080-\uffff][A-Za-z0-9_\u0080-\uffff]*)?\$/y,
    parameter: /\$[0-9]+/y,
    radixNumber: /0(?:[xX][0-9a-fA-F_]+|[oO][0-7_]+|[bB][01_]+)/y,
    number: /(?:[0-9][0-9_]*(?:\.(?!\.)[0-9_]*)?|\.[0-9][0-9_]*)(?:[eE][+-]?[0-9]+)?/y,
    word: /[A-Za-z_\u0080-\uffff][A-Za-z0-9_$\u0080-\uffff]*/y,
    operator: /(?:(?!--|\/\*)[-+*/<>=~!@#%^&|`?:])+/y,
};

function matched(pattern, text, at) {
    pattern.lastIndex = at;
    return pattern.test(text) ? pattern.lastIndex : -1;
}

// Comments nest. One that does not end goes to the end.
function blockCommentEnd(text, at) {
    const edge = /\/\*|\*\//g;
    edge.lastIndex = at + 2;
    for (let depth = 1, hit; (hit = edge.exec(text)) !== null;) {
        depth += hit[0] === "/*" ? 1 : -1;
        if (depth === 0) return edge.lastIndex;
    }
    return text.length;
}

function dollarEnd(text, at) {
    const opened = matched(patterns.dollar, text, at);
    if (opened < 0) return -1;
    const tag = text.slice(at, opened);
    const closes = text.indexOf(tag, opened);
    return closes < 0 ? text.length : closes + tag.length;
}

// The first that fits is it: E'' before a word that begins with e.
const order = [...words("space escapeString string quoted parameter word radixNumber number operator")];
const kinds = { escapeString: "string", radixNumber: "number" };

function tokenAt(text, at) {
    const taken = (kind, end) => ({ kind, from: at, to: end });
    if ("(),;[]".includes(text[at])) return taken("other", at + 1);
    const two = text.slice(at, at + 2);
    if (two === "--") return taken("comment", matched(patterns.lineComment, text, at));
    if (two === "/*") return taken("comment", blockCommentEnd(text, at));
    for (const kind of order) {
        const end = matched(patterns[kind], text, at);
        if (end > at) return taken(kinds[kind] ?? kind, end);
    }
    const end = text[at] === "$" ? dollarEnd(text, at) : -1;
    return end > at ? taken("string", end) : taken("other", at + 1);
}

// {kind, from, to}: space, comment, string, quoted, parameter, keyword, name, number, operator, other.
export function tokensOf(text) {
    const tokens = [];
    for (let at = 0; at < text.length;) {
        const token = tokenAt(text, at);
        if (token.kind === "word") {
            token.word = text.slice(token.from, token.to).toLowerCase();
            token.kind = keywords.has(token.word) ? "keyword" : "name";
        }
        tokens.push(token);
        at = token.to;
    }
    return tokens;
}

const readable = words("select insert update delete merge with explain table values");
const joins = words("left right full inner cross natural");
const plainClauses = words("where having limit offset union except intersect returning window fetch");

// Whether the line may be broken before the word at `i` of `line` (the tokens that are neither space
// nor comment), and how: "clause", "condition", or not.
function breakBefore(line, i, place) {
    const word = line[i].word;
    const before = line[i - 1]?.word;
    const after = line[i + 1]?.word;
    if (plainClauses.has(word)) return "clause";
    if (word === "from") return before === "delete" || before === "distinct" ? null : "clause";
    if (readable.has(word) && line[i - 1].text === ")") return "clause";
    if (word === "select") return line[i - 1].text === "(" ? null : "clause";
    if (word === "group" || word === "order") return after === "by" ? "clause" : null;
    if (joins.has(word)) return after === "join" || after === "outer" ? "clause" : null;
    if (word === "join") return joins.has(before) || before === "outer" ? null : "clause";
    if (word === "set" || word === "values") return before === "default" ? null : "clause";
    if (word === "on") return after === "conflict" ? "clause" : null;
    if (word === "using") return place.first === "delete" || place.first === "merge" ? "clause" : null;
    if (word === "when") return place.first === "merge" ? "clause" : null;
    if (word === "and" || word === "or") return place.between ? null : "condition";
    return null;
}

// What is known of one open parenthesis, or of the statement itself, by its first word.
const opening = (first) => ({ query: readable.has(first), first, cases: 0, between: false });

// Deep nesting is not to push the text out of sight.
const step = (depth) => 4 * Math.min(depth, 8);

// Where the line breaks for the eye: the indices of the tokens before which it does, with how far the
// new line is indented. For a text without line breaks of its own; other texts are left alone.
export function breaksOf(text, tokens) {
    const breaks = new Map();
    const line = [];
    tokens.forEach((token, index) => {
        if (token.kind === "space" || token.kind === "comment") return;
        line.push({
            ...token,
            index,
            text: token.word ?? (token.to - token.from === 1 ? text[token.from] : ""),
        });
    });
    // In parentheses that hold a query its clauses are broken too, and stand further in.
    let stack = [opening(line[0]?.word)];
    let depth = 0;
    line.forEach((token, i) => {
        const place = stack[stack.length - 1];
        if (token.text === "(") {
            const inner = opening(line[i + 1]?.word);
            stack.push(inner);
            if (!inner.query) return;
            depth += 1;
            breaks.set(line[i + 1].index, step(depth));
        } else if (token.text === ")") {
            if (stack.length > 1 && stack.pop().query) depth -= 1;
        } else if (token.text === ";") {
            stack = [opening(line[i + 1]?.word)];
            depth = 0;
            if (i + 1 < line.length) breaks.set(line[i + 1].index, 0);
        } else if (token.word === "case") place.cases += 1;
        else if (token.word === "end") place.cases = Math.max(0, place.cases - 1);
        else if (place.query && place.cases === 0 && token.word && i > 0) {
            const kind = breakBefore(line, i, place);
            if (kind && !breaks.has(token.index))
                breaks.set(token.index, step(depth) + (kind === "condition" ? 2 : 0));
            if (token.word === "between") place.between = true;
            else if (token.word === "and") place.between = false;
        }
    });
    return breaks;
}
