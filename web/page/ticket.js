// One ticket in full, with the place where it is decided. Makes elements; what a button does is told
// to it. Nothing is sent by a single press: the first one arms, the second, of another button or by
// Enter, confirms, and says in words what will happen.

import { el } from "./dom.js";
import { effectOf, totalsOf, wouldText } from "./effects.js";
import { badge, headline } from "./list.js";
import { grouped, moment, said, sentence } from "./text.js";
import { time } from "./times.js";

const sure = { approve: "✓ Approve", deny: "✕ Deny", withdraw: "↩ Withdraw" };

function hero(ticket, effect) {
    const open = ticket.state === "pending" || ticket.state === "approved";
    const since = open
        ? [
              time("waits", ticket.opened),
              time("left", ticket.expires),
              ticket.waiting && ticket.held_until ? time("held", ticket.held_until) : null,
          ]
        : [el("span", {}, `ended ${moment(ticket.ended ?? ticket.expires)}`)];
    return el(
        "header",
        { class: "hero" },
        el(
            "p",
            { class: "eyebrow" },
            el("b", { class: "id" }, ticket.id),
            el("b", {}, said(ticket.command)),
            ticket.state === "pending" ? null : badge(ticket),
            since,
        ),
        el(
            "h1",
            { tabindex: "-1", data: { focus: "headline", part: "headline" } },
            headline(effect),
            el("span", { class: "would" }, wouldText(effect, ticket.state)),
            effect.beside ? el("span", { class: "beside" }, effect.beside) : null,
        ),
        el("p", { class: "known", data: { part: "known" } }, sentence(open ? effect.known : effect.briefly)),
        effect.also.length > 0
            ? el(
                  "ul",
                  { class: "also" },
                  effect.also.map((text) => el("li", {}, said(text))),
              )
            : null,
        el(
            "p",
            { class: "asks" },
            el("b", {}, said(ticket.requester)),
            " asks, in database ",
            el("b", {}, said(ticket.database)),
            ". ",
            ticket.reason ? el("span", { class: "why" }, said(sentence(ticket.reason), "said free")) : null,
        ),
    );
}

function effectsTable(ticket) {
    const tables = ticket.effects.tables;
    if (tables.length === 0) return null;
    const kinds = ["deleted", "updated", "inserted"];
    const cells = (rows) =>
        kinds.map((kind) => el("td", { class: `count ${rows[kind] ? kind : "zero"}` }, grouped(rows[kind])));
    const total = totalsOf(tables);
    const about = ticket.effects.kind === "plan" ? "Rows, as the planner guesses" : "Rows by table";
    return el(
        "section",
        { data: { part: "effects" } },
        el("h2", {}, about),
        el(
            "div",
            { class: "scroll" },
            el(
                "table",
                { class: "effects" },
                el(
                    "thead",
                    {},
                    el(
                        "tr",
                        {},
                        el("th", { scope: "col" }, "Table"),
                        kinds.map((kind) => el("th", { scope: "col", class: "count" }, kind)),
                    ),
                ),
                el(
                    "tbody",
                    {},
                    tables.map((rows) =>
                        el("tr", {}, el("th", { scope: "row" }, said(rows.table)), cells(rows)),
                    ),
                ),
                tables.length > 1
                    ? el("tfoot", {}, el("tr", {}, el("th", { scope: "row" }, "all"), cells(total)))
                    : null,
            ),
        ),
    );
}

function parametersTable(parameters) {
    if (parameters.length === 0) return null;
    const value = (text) =>
        text === null ? el("i", { class: "null" }, "NULL") : el("span", {}, said(text, "said value"));
    return el(
        "section",
        { data: { part: "parameters" } },
        el("h2", {}, "Parameters"),
        el(
            "div",
            { class: "scroll" },
            el(
                "table",
                { class: "parameters" },
                el(
                    "tbody",
                    {},
                    parameters.map((text, i) =>
                        el("tr", {}, el("th", { scope: "row" }, `$${i + 1}`), el("td", {}, value(text))),
                    ),
                ),
            ),
        ),
    );
}

function evidenceText(effects) {
    if (!effects.text) return null;
    const title = effects.kind === "plan" ? "EXPLAIN says" : "About the evidence";
    return el(
        "section",
        { data: { part: "plan" } },
        el("h2", {}, title),
        effects.kind === "plan"
            ? el(
                  "pre",
                  { class: "plan", dir: "ltr", tabindex: "0", role: "region", "aria-label": title },
                  said(effects.text, "said", "span"),
              )
            : el("p", {}, said(sentence(effects.text))),
    );
}

function votesList(ticket) {
    if (ticket.votes.length === 0) return null;
    return el(
        "ul",
        { class: "votes", data: { part: "votes" } },
        ticket.votes.map((vote) =>
            el(
                "li",
                {},
                el("b", {}, said(vote.role)),
                vote.approve ? " said yes" : " said no",
                ", ",
                time("ago", vote.at),
                vote.comment ? [": ", said(vote.comment, "said free")] : null,
            ),
        ),
    );
}

function facts(ticket) {
    const rows = [
        ["Asked by", said(ticket.requester)],
        ["Database", said(ticket.database)],
        ["From", said(ticket.client)],
        [
            "Calls itself",
            ticket.application
                ? [said(ticket.application), el("span", { class: "soft" }, " (a label, not an identity)")]
                : null,
        ],
        ["Rule", said(ticket.rule)],
        ["Reason", said(ticket.reason, "said free")],
        [
            "Glass broken",
            ticket.glass ? said(ticket.glass_reason || "no reason was given", "said free") : null,
        ],
        ["May decide", ticket.glass ? null : said(ticket.approvers)],
        [
            "Approvals",
            ticket.glass ? "nobody was asked" : `${ticket.approvals.given} of ${ticket.approvals.needed}`,
        ],
        ["Votes", votesList(ticket)],
        ["Comment", ticket.comment ? said(ticket.comment, "said free") : null],
        ["Asked at", moment(ticket.opened)],
        [ticket.ended ? "Ended at" : "Open until", moment(ticket.ended ?? ticket.expires)],
        ["Settings", ticket.settings ? said(ticket.settings, "said code") : null],
        ["Replica", ticket.replica ? said(ticket.replica) : null],
        ["Session", String(ticket.session)],
    ];
    return el(
        "section",
        { class: "facts", data: { part: "facts" } },
        el("h2", { class: "unseen" }, "About the request"),
        el(
            "dl",
            {},
            rows
                .filter(([, value]) => value !== null)
                .map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value))),
        ),
    );
}

function button(what, actions, more) {
    return el(
        "button",
        {
            type: "button",
            class: `act ${what}`,
            data: { do: what, focus: `do-${what}` },
            disabled: more?.disabled,
            onclick: () => actions.arm(what),
        },
        more?.text ?? sure[what],
    );
}

const confirmText = {
    approve: (effect) => `Approve: ${effect.sentence}`,
    deny: () => "Deny: it does not run",
    withdraw: () => "Withdraw: it does not run",
};
const enterText = { approve: "Enter approves.", deny: "Enter denies.", withdraw: "Enter withdraws." };

function confirmation(model, actions, effect) {
    const what = model.armed;
    const text = el("span", {});
    text.append(...said(confirmText[what](effect)).childNodes);
    return el(
        "div",
        { class: "confirm", data: { part: "confirm" } },
        el(
            "button",
            {
                type: "button",
                class: `act sure ${what} ${effect.level}`,
                disabled: model.busy,
                data: { do: "confirm", focus: "confirm" },
                onclick: () => actions.confirm(),
            },
            model.busy ? "Sending …" : text,
        ),
        el(
            "button",
            {
                type: "button",
                class: "act back",
                disabled: model.busy,
                data: { do: "not-yet", focus: "not-yet" },
                onclick: () => actions.disarm(),
            },
            "Not yet",
        ),
        el("p", { class: "soft hint" }, `${enterText[what]} Shift+Enter begins a new line. Esc: not yet.`),
    );
}

function choices(ticket, actions) {
    const out = [];
    if (ticket.may.approve) out.push(button("approve", actions));
    if (ticket.may.decide)
        out.push(button("deny", actions, ticket.may.approve ? {} : { text: "✕ Deny after all" }));
    if (ticket.may.withdraw) out.push(button("withdraw", actions));
    return el("div", { class: "buttons" }, out);
}

// Why there are fewer buttons than somebody may look for.
function standing(ticket) {
    const { may, own } = ticket;
    if (own && may.approve)
        return "You asked for this yourself; its rule lets you be one of those who decide.";
    if (own) return "You asked for this; somebody else has to decide.";
    return may.approve ? "" : sentence(may.why_not);
}

function result(ticket, message) {
    const closing = {
        denied: "It does not run.",
        expired: "Its time was over before anybody decided. It does not run.",
        withdrawn: "It was taken back. It does not run.",
    }[ticket.state];
    const run =
        ticket.state !== "used"
            ? null
            : ticket.outcome
              ? [
                    el("p", { class: "outcome", data: { part: "outcome" } }, said(ticket.outcome)),
                    el("p", { class: "soft" }, "That is what its run came to."),
                ]
              : el("p", {}, "It runs, or nobody knows how it ended: how it ended shows here.");
    const by =
        ticket.decided_by && ticket.state !== "withdrawn" && ticket.state !== "expired"
            ? el(
                  "p",
                  {},
                  ticket.state === "denied" ? "Denied by " : "Approved by ",
                  el("b", {}, said(ticket.decided_by)),
                  ticket.comment ? [": ", said(ticket.comment, "said free")] : ".",
              )
            : ticket.comment
              ? el("p", {}, said(sentence(ticket.comment), "said free"))
              : null;
    const glass = ticket.glass
        ? el(
              "p",
              {},
              "Nobody was asked: the glass was broken. ",
              said(sentence(ticket.glass_reason), "said free"),
          )
        : null;
    return [
        message
            ? el(
                  "p",
                  { class: "message", tabindex: "-1", data: { part: "message" } },
                  said(sentence(message), "said free"),
              )
            : null,
        glass,
        by,
        run,
        closing && !message ? el("p", {}, closing) : null,
    ];
}

// model: { ticket, armed, busy, problem, notice, message, comment (the text area) }
export function decideView(model, actions) {
    const { ticket } = model;
    const effect = effectOf(ticket);
    const open = ticket.state === "pending" || ticket.state === "approved";
    const may = open && (ticket.may.decide || ticket.may.withdraw);
    const why = open ? standing(ticket) : "";
    const writing = may
        ? el(
              "div",
              { class: "writing" },
              el(
                  "label",
                  { for: "comment" },
                  "Comment ",
                  el("span", { class: "soft" }, "for who asked, and on record"),
              ),
              model.comment,
          )
        : null;
    return el(
        "section",
        {
            class: `decide${model.armed ? " armed" : ""}${may ? " may" : ""}`,
            "aria-label": "Decision",
            data: { part: "decide" },
        },
        model.notice
            ? el(
                  "p",
                  { class: "warning", role: "alert", data: { part: "notice" } },
                  said(model.notice, "said free"),
              )
            : null,
        model.problem
            ? el(
                  "p",
                  { class: "problem", role: "alert", data: { part: "problem" } },
                  said(model.problem, "said free"),
              )
            : null,
        el("div", { class: "result" }, result(ticket, model.message)),
        why ? el("p", { class: "standing", data: { part: "why-not" } }, said(why, "said free")) : null,
        writing,
        may ? (model.armed ? confirmation(model, actions, effect) : choices(ticket, actions)) : null,
    );
}

// All of it but what changes as one decides, which is decideView(). `statement`: an element.
export function ticketView(model, statement, actions, back) {
    const { ticket } = model;
    const effect = effectOf(ticket);
    return el(
        "article",
        {
            class: `ticket ${effect.level}`,
            data: { ticket: ticket.id, state: ticket.state, level: effect.level },
        },
        el(
            "p",
            { class: "way" },
            el("a", { href: back.href, data: { do: "back", focus: "back" } }, `← ${back.text}`),
        ),
        hero(ticket, effect),
        el(
            "div",
            { class: "evidence" },
            effectsTable(ticket),
            statement,
            parametersTable(ticket.parameters),
            evidenceText(ticket.effects),
        ),
        el("div", { class: "side" }, decideView(model, actions), facts(ticket)),
    );
}
