// Strings for people to read. What a string holds that can't be seen, or that makes other letters
// change places, is spelled out ("<U+202E>"), as `pgchaperone show` does in a terminal. Knows
// neither SQL nor tickets.
//
// What must stay true: no character of a string is left out, and none looks like another of these.

import { el } from "./dom.js";

// Control characters besides tab and line feed, and a carriage return without one; spaces that are
// not U+0020; what has no width; what turns the direction; fillers and variation selectors, which
// may carry what nobody sees; lone surrogates, private use, tags and what is no character.
const hiddenSource =
    "\\r(?!\\n)|[\\u0000-\\u0008\\u000B\\u000C\\u000E-\\u001F\\u007F-\\u00A0\\u00AD\\u034F\\u061C\\u115F\\u1160" +
    "\\u1680\\u17B4\\u17B5\\u180B-\\u180F\\u2000-\\u200F\\u2028-\\u202F\\u205F-\\u206F\\u2800\\u3000\\u3164" +
    "\\uD800-\\uF8FF\\uFDD0-\\uFDEF\\uFE00-\\uFE0F\\uFEFF\\uFFA0\\uFFF0-\\uFFFC\\uFFFE\\uFFFF" +
    "\\u{E0000}-\\u{10FFFF}]|[\\u{1FFFE}\\u{1FFFF}\\u{2FFFE}\\u{2FFFF}\\u{3FFFE}\\u{3FFFF}]";
// A letter may wear two marks that show; what is over something else, or a third one, is spelled out,
// since it would cover what is around it. The first branch is what is skipped.
const marking = new RegExp(`\\p{L}(?:(?!${hiddenSource})\\p{M}){1,2}|(${hiddenSource}|\\p{M})`, "gu");

const plain = /^[\t\n\x20-\x7e]*$/;

// The hidden characters of a text as {from, to, mark}, equal ones in a row as one.
export function* hiddenIn(text) {
    if (plain.test(text)) return;
    let last = null;
    for (const match of text.matchAll(marking)) {
        if (match[1] === undefined) continue;
        const code = match[1].codePointAt(0);
        if (last && last.code === code && last.to === match.index) {
            last.to += match[1].length;
            last.count += 1;
            continue;
        }
        if (last) yield last;
        last = { code, from: match.index, to: match.index + match[1].length, count: 1 };
    }
    if (last) yield last;
}

export const codeName = (code) => `U+${code.toString(16).toUpperCase().padStart(4, "0")}`;

// "U+202E, U+200B (3 times)": which characters of this text can't be seen; "" where all can.
export function hiddenSummary(text) {
    const counts = new Map();
    for (const { code, count } of hiddenIn(text)) counts.set(code, (counts.get(code) ?? 0) + count);
    const said = [...counts]
        .slice(0, 8)
        .map(([code, count]) => codeName(code) + (count > 1 ? ` (${grouped(count)} times)` : ""));
    if (counts.size > said.length) said.push(`${counts.size - said.length} others`);
    return said.join(", ");
}

// Puts text behind what `parent` has. Returns how many marks that took.
export function appendMarked(parent, text) {
    let done = 0;
    let marks = 0;
    for (const { code, from, to, count } of hiddenIn(text)) {
        if (from > done) parent.append(text.slice(done, from));
        const times = count > 1 ? ` ×${grouped(count)}` : "";
        parent.append(el("span", { class: "mark" }, `<${codeName(code)}${times}>`));
        // It breaks the line for the server, so it does here.
        if (code === 0x0d) parent.append("\n");
        done = to;
        marks += 1;
    }
    if (done < text.length) parent.append(text.slice(done));
    return marks;
}

// Somebody's string as an element that keeps its direction to itself.
export function said(text, className = "said", tag = "bdi") {
    const element = el(tag, { class: className });
    appendMarked(element, String(text ?? ""));
    return element;
}

export const grouped = (number) => Number(number).toLocaleString("en-US");
export const plural = (count, one, many = `${one}s`) => `${grouped(count)} ${count === 1 ? one : many}`;

// "the ticket is decided already" as a sentence.
export function sentence(text) {
    const trimmed = String(text ?? "").trim();
    if (!trimmed) return "";
    const begun = trimmed[0].toUpperCase() + trimmed.slice(1);
    return /[.!?…]$/.test(begun) ? begun : `${begun}.`;
}

export function sizeText(bytes) {
    if (bytes < 1024) return plural(bytes, "byte");
    if (bytes < 1024 * 1024) return `${grouped(Math.round(bytes / 102.4) / 10)} KiB`;
    return `${grouped(Math.round(bytes / 104857.6) / 10)} MiB`;
}

export const bytesOf = (text) => new TextEncoder().encode(text).length;

export const linesOf = (text) => (text.replace(/[\r\n]+$/, "").match(/\r\n|\r|\n/g)?.length ?? 0) + 1;

// "0:42", "26:10", "2 h 05 min": a time that runs.
export function running(ms) {
    const s = Math.max(0, Math.floor(ms / 1000));
    const two = (n) => String(n).padStart(2, "0");
    if (s < 3600) return `${Math.floor(s / 60)}:${two(s % 60)}`;
    if (s < 2 * 86400) return `${Math.floor(s / 3600)} h ${two(Math.floor(s / 60) % 60)} min`;
    return plural(Math.floor(s / 86400), "day");
}

// "just now", "3 minutes ago".
export function ago(ms) {
    const s = Math.floor(ms / 1000);
    if (s < 60) return "just now";
    if (s < 2 * 3600) return `${plural(Math.floor(s / 60), "minute")} ago`;
    if (s < 2 * 86400) return `${plural(Math.floor(s / 3600), "hour")} ago`;
    return `${plural(Math.floor(s / 86400), "day")} ago`;
}

// The moment by the reader's own clock and calendar.
export function moment(iso) {
    const at = new Date(iso);
    if (Number.isNaN(at.getTime())) return String(iso);
    const two = (n) => String(n).padStart(2, "0");
    const time = `${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}`;
    return `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())} ${time}`;
}
export const clock = (date) => moment(date).slice(11);
