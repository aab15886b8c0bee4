// A statement as people see it: coloured, with what is hidden in it spelled out, and, where it is one
// long line, broken before its clauses. However long it is and whatever it holds, the page stays
// usable: only the beginning is coloured, and of the rest some is shown at a time.
//
// What must stay true: what is shown is all of the statement up to a place that says how much is
// missing, and a line break that is not the statement's own can be switched off.

import { breaksOf, tokensOf } from "./sql.js";
import { el } from "./dom.js";
import { appendMarked, bytesOf, hiddenSummary, linesOf, plural, sizeText } from "./text.js";

const colouredMax = 64 * 1024;
const spansMax = 20_000;
const chunkMax = 32 * 1024;
const chunksAtOnce = 8;
const longLine = 72;
const glimpseMax = 400;

const coloured = new Set(["comment", "string", "quoted", "parameter", "keyword", "number"]);
const foreignLetter = /[^\u0000-\u007f]+/g;

// Not within a character.
function cutAt(text, at) {
    if (at >= text.length) return text.length;
    const unit = text.charCodeAt(at);
    return unit >= 0xdc00 && unit <= 0xdfff ? at - 1 : at;
}

// A letter that is not ASCII in a word that else is may look like another one: it is underlined.
function appendName(parent, text) {
    if (!/[A-Za-z]/.test(text)) return 1 + appendMarked(parent, text);
    let done = 0;
    let spans = 0;
    for (const match of text.matchAll(foreignLetter)) {
        parent.append(text.slice(done, match.index));
        const odd = el("span", { class: "odd", title: "not an ASCII letter" });
        spans += 1 + appendMarked(odd, match[0]);
        parent.append(odd);
        done = match.index + match[0].length;
    }
    parent.append(text.slice(done));
    return spans;
}

function appendToken(parent, text, token) {
    const piece = text.slice(token.from, token.to);
    const named = token.kind === "name" || token.kind === "quoted";
    const foreign = named && /[^\u0000-\u007f]/.test(piece);
    if (!coloured.has(token.kind) && !foreign) return appendMarked(parent, piece);
    const span = el("span", { class: `sql-${token.kind}` });
    parent.append(span);
    return 1 + (foreign ? appendName(span, piece) : appendMarked(span, piece));
}

// Colours `text` from its start. Returns how much of it that was: all, unless it is made of very many
// small things.
function appendSql(parent, text, broken) {
    const tokens = tokensOf(text);
    const breaks = broken ? breaksOf(text, tokens) : new Map();
    let spans = 0;
    for (const [index, token] of tokens.entries()) {
        if (spans > spansMax) return token.from;
        if (token.kind === "space" && breaks.has(index + 1)) continue;
        if (breaks.has(index)) parent.append(`\n${" ".repeat(breaks.get(index))}`);
        spans += appendToken(parent, text, token);
    }
    return text.length;
}

// Where the next piece ends: behind a line if one ends in it, else anywhere.
function chunkEnd(text, from) {
    const end = cutAt(text, from + chunkMax);
    if (end === text.length) return end;
    const line = text.lastIndexOf("\n", end - 1);
    return line > from ? line + 1 : end;
}

// Shows what comes behind `from`, some at a time. Lines of a chunk that goes on say so, since where
// a chunk ends is no line break of the statement's.
function restOf(text, from, pre) {
    let done = from;
    const left = () => sizeText(bytesOf(text.slice(done)));
    const button = el("button", { type: "button", class: "plain rest", data: { do: "rest" } });
    const label = () => {
        button.textContent = `Show more of the statement: ${left()} are not shown`;
    };
    button.addEventListener("click", () => {
        let marks = 0;
        for (let i = 0; i < chunksAtOnce && done < text.length && marks < spansMax; ++i) {
            const end = chunkEnd(text, done);
            const piece = text.slice(done, end);
            const chunk = el("span", {
                class: end < text.length && !piece.endsWith("\n") ? "chunk goes-on" : "chunk",
            });
            marks += appendMarked(chunk, piece.replace(/\n$/, ""));
            pre.append(chunk);
            done = end;
        }
        if (done < text.length) label();
        else button.remove();
    });
    label();
    return button;
}

function fill(pre, text, broken) {
    pre.replaceChildren();
    const beginning = text.slice(0, cutAt(text, colouredMax));
    const shown = appendSql(pre, beginning, broken);
    return shown < text.length ? restOf(text, shown, pre) : null;
}

function warnings(text, cut) {
    const out = [];
    if (cut)
        out.push(
            el(
                "p",
                { class: "warning loud", role: "alert", data: { warning: "cut" } },
                el("strong", {}, "This is not all of it."),
                " The statement is longer than what is kept of it, so nobody has seen its end. It may say anything.",
            ),
        );
    const hidden = hiddenSummary(text);
    if (hidden)
        out.push(
            el(
                "p",
                { class: "warning", data: { warning: "hidden" } },
                el("strong", {}, "This statement holds hidden characters: "),
                hidden,
                ". They are spelled out where they stand.",
            ),
        );
    return out;
}

// The whole of a statement, with what is to be known about it.
export function statementView(text, cut) {
    const oneLine = text.length > longLine && text.length <= colouredMax && linesOf(text) === 1;
    const readable = oneLine && breaksOf(text, tokensOf(text)).size > 0;
    let broken = readable;
    const pre = el("pre", { class: "sql", dir: "ltr", translate: "no", data: { part: "sql" } });
    const more = el("div", {});
    const show = () => more.replaceChildren(...[fill(pre, text, broken)].filter(Boolean));
    const bytes = sizeText(bytesOf(text));
    const size = cut ? `only the first ${bytes} of it` : `${plural(linesOf(text), "line")}, ${bytes}`;
    const toggle =
        readable &&
        el(
            "button",
            {
                type: "button",
                class: "plain",
                data: { do: "as-sent" },
                "aria-pressed": "false",
                onclick: () => {
                    broken = !broken;
                    toggle.setAttribute("aria-pressed", String(!broken));
                    show();
                },
            },
            "As sent",
        );
    show();
    return el(
        "section",
        { class: "statement", data: { part: "statement" } },
        el(
            "div",
            { class: "bar" },
            el("h2", {}, "Statement"),
            el(
                "p",
                { class: "soft", data: { part: "size" } },
                size,
                readable ? "; the line breaks are ours" : "",
            ),
            toggle || null,
        ),
        warnings(text, cut),
        pre,
        more,
    );
}

// Its first lines, for a list.
export function glimpse(text) {
    const begun = text.replace(/^\s+/, "");
    const beginning = begun.slice(0, cutAt(begun, glimpseMax)).split("\n").slice(0, 4).join("\n");
    const pre = el("pre", { class: "sql glimpse", dir: "ltr", translate: "no" });
    appendSql(pre, beginning, beginning.length > longLine && linesOf(beginning) === 1);
    if (beginning.length < begun.length) pre.append(" …");
    return pre;
}
