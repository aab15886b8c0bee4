// What waits, and what has ended, as lists. Makes elements of tickets as the API gives them; asks
// nothing and keeps nothing.

import { el } from "./dom.js";
import { effectOf, wouldText } from "./effects.js";
import { glimpse } from "./statement.js";
import { moment, plural, said, sentence } from "./text.js";
import { time } from "./times.js";

const states = {
    pending: ["…", "waits"],
    approved: ["✓", "approved, not run yet"],
    denied: ["✕", "denied"],
    expired: ["–", "expired"],
    withdrawn: ["↩", "withdrawn"],
    used: ["✓", "has run"],
};

export function stateOf(ticket) {
    if (ticket.glass) return ["!", "glass broken"];
    if (ticket.state !== "used") return states[ticket.state] ?? ["?", ticket.state];
    if (!ticket.outcome) return ["▸", "runs, or nobody knows how it ended"];
    return /^failed/i.test(ticket.outcome) ? ["!", "has run and failed"] : states.used;
}

export function badge(ticket) {
    const [sign, words] = stateOf(ticket);
    const kind = ticket.glass ? "glass" : ticket.state;
    return el(
        "span",
        { class: `badge state-${kind}` },
        el("span", { class: "sign", "aria-hidden": "true" }, sign),
        words,
    );
}

// The headline: the number as large as it goes, or words where there is none.
export function headline(effect, ...inner) {
    const words = said(effect.words, "words", "span");
    if (!effect.number) return el("span", { class: "headline wordy" }, words, ...inner);
    const length = effect.number.length;
    const size = length > 13 ? "number longest" : length > 9 ? "number long" : "number";
    return el(
        "span",
        { class: "headline" },
        effect.about ? el("span", { class: "about" }, "about") : null,
        el("span", { class: size }, effect.number),
        " ",
        words,
        ...inner,
    );
}

export const approvalsText = ({ given, needed }) => `${given} of ${needed} approvals`;

function card(ticket) {
    const effect = effectOf(ticket);
    const own = ticket.own ? el("span", { class: "badge own" }, "you asked") : null;
    const votes =
        ticket.approvals.needed > 1 || ticket.state === "approved"
            ? el("span", { class: "badge" }, approvalsText(ticket.approvals))
            : null;
    return el(
        "li",
        {
            class: `card ${effect.level}`,
            data: { ticket: ticket.id, state: ticket.state, level: effect.level },
        },
        el(
            "h2",
            {},
            el(
                "a",
                { href: `#${ticket.id}`, class: "open", data: { focus: `open-${ticket.id}` } },
                headline(effect),
                el("span", { class: "would" }, effect.would),
                effect.beside ? el("span", { class: "beside" }, effect.beside) : null,
            ),
        ),
        el("p", { class: "known" }, effect.briefly),
        el(
            "div",
            { class: "what" },
            el(
                "p",
                { class: "asks" },
                el("b", { class: "id" }, ticket.id),
                " ",
                el("b", {}, said(ticket.command)),
                " by ",
                el("b", {}, said(ticket.requester)),
                " in ",
                said(ticket.database),
            ),
            glimpse(ticket.statement),
            el(
                "p",
                { class: "times" },
                ticket.state === "pending" ? time("waits", ticket.opened) : badge(ticket),
                time("left", ticket.expires),
                ticket.waiting && ticket.held_until ? time("held", ticket.held_until) : null,
                votes,
                own,
            ),
        ),
        effect.also.length > 0
            ? el(
                  "ul",
                  { class: "also" },
                  effect.also.map((text) => el("li", {}, said(text))),
              )
            : null,
    );
}

// `made`: the cards that were made before, by ticket. One whose ticket has not changed is used again,
// since there may be a thousand.
function cards(tickets, made) {
    return el(
        "ol",
        { class: "cards" },
        tickets.map((ticket) => {
            const as = JSON.stringify(ticket);
            const before = made.get(ticket.id);
            if (before?.as === as) return before.element;
            const element = card(ticket);
            made.set(ticket.id, { as, element });
            return element;
        }),
    );
}

export function waitingView({ tickets, more }, made) {
    const here = new Set(tickets.map((ticket) => ticket.id));
    for (const id of made.keys()) if (!here.has(id)) made.delete(id);
    const pending = tickets.filter((ticket) => ticket.state === "pending");
    const others = tickets.filter((ticket) => ticket.state !== "pending");
    const parts = [
        el(
            "h1",
            { class: "unseen" },
            pending.length > 0 ? `${plural(pending.length, "ticket")} waiting` : "Nothing waits",
        ),
    ];
    if (pending.length > 0) parts.push(cards(pending, made));
    else
        parts.push(
            el(
                "div",
                { class: "nothing", data: { part: "nothing" } },
                el("p", { class: "big" }, "Nothing waits."),
                el(
                    "p",
                    { class: "soft" },
                    "What is held for approval shows here by itself, as soon as somebody asks.",
                ),
            ),
        );
    if (others.length > 0)
        parts.push(el("h2", { class: "divider" }, "Approved, not run yet"), cards(others, made));
    if (more) parts.push(el("p", { class: "warning" }, `There are more than these ${tickets.length}.`));
    return el("div", { class: "list", data: { part: "list" } }, parts);
}

function pastRow(ticket) {
    const effect = effectOf(ticket);
    const who = ticket.state === "withdrawn" ? null : ticket.decided_by;
    const why = ticket.glass ? ticket.glass_reason : ticket.comment;
    return el(
        "li",
        { class: `past ${effect.level}`, data: { ticket: ticket.id, state: ticket.state } },
        el(
            "p",
            { class: "state" },
            badge(ticket),
            el("time", { datetime: ticket.ended, class: "soft" }, moment(ticket.ended ?? ticket.opened)),
        ),
        el(
            "p",
            { class: "did" },
            el(
                "a",
                { href: `#${ticket.id}`, class: "open", data: { focus: `open-${ticket.id}` } },
                headline(effect),
                el("span", { class: "verb" }, ` ${wouldText(effect, ticket.state)}`),
            ),
            el(
                "span",
                { class: "asks soft" },
                el("b", { class: "id" }, ticket.id),
                " ",
                said(ticket.command),
                " by ",
                said(ticket.requester),
                " in ",
                said(ticket.database),
            ),
        ),
        el(
            "p",
            { class: "who" },
            who ? [el("b", {}, said(who)), why ? ": " : ""] : null,
            why ? said(why, "said free") : null,
            !who && !why ? el("span", { class: "soft" }, "nobody decided") : null,
        ),
        el("p", { class: "outcome" }, ticket.outcome ? said(ticket.outcome) : null),
    );
}

export function historyView({ tickets, more }, limit, showMore) {
    const title = el("h1", {}, "History");
    if (tickets.length === 0)
        return el(
            "div",
            { class: "list", data: { part: "history" } },
            title,
            el("p", { class: "soft", data: { part: "nothing" } }, "Nothing has ended yet."),
        );
    const foot =
        more && limit < 1000
            ? el(
                  "button",
                  { type: "button", class: "plain", data: { do: "more", focus: "more" }, onclick: showMore },
                  "Show more",
              )
            : more
              ? el("p", { class: "soft" }, "These are the latest 1,000. The audit log has all.")
              : null;
    return el(
        "div",
        { class: "list", data: { part: "history" } },
        title,
        el("ol", { class: "pasts" }, tickets.map(pastRow)),
        foot,
    );
}

export const missingView = (problem) =>
    el(
        "div",
        { class: "nothing", data: { part: "missing" } },
        el("p", { class: "big" }, sentence(problem.message)),
        problem.hint ? el("p", { class: "soft" }, sentence(problem.hint)) : null,
        el("p", {}, el("a", { href: "#" }, "To what waits")),
    );
