// The open ticket on its way to a decision: as it was shown, what is armed, what was typed, what came
// of it. Knows no element but the text area, which outlives every showing.
//
// What must stay true: what is sent names what was shown as it was armed (`seen`); where that has
// changed nothing is armed any more; a decision is sent once.

import { decide, Problem } from "./api.js";
import { el } from "./dom.js";
import { stateOf } from "./list.js";
import { statementView } from "./statement.js";
import { sentence } from "./text.js";

const secondPressMs = 350;
const open = (ticket) => ticket.state === "pending" || ticket.state === "approved";

// `typed(text)`: the comment is this now. `enter()`: it was said that this is all.
export function newModel(id, text, typed, enter) {
    const model = {
        id,
        ticket: null,
        statement: null, // its element
        armed: "", // approve, deny, withdraw
        armedAt: 0,
        busy: false,
        sent: 0, // so many decisions
        problem: "",
        notice: "",
        message: "",
        missing: null, // why there is no such ticket
    };
    const onkeydown = (event) => {
        if (event.key !== "Enter" || event.shiftKey || event.isComposing || !model.armed) return;
        event.preventDefault();
        if (!event.repeat) enter();
    };
    model.comment = el("textarea", {
        id: "comment",
        rows: "3",
        maxlength: "2000",
        autocomplete: "off",
        data: { focus: "comment" },
        oninput: () => typed(model.comment.value),
        onkeydown,
    });
    model.comment.value = text;
    return model;
}

function put(model, ticket) {
    const before = model.ticket;
    model.ticket = ticket;
    model.missing = null;
    if (before && before.statement === ticket.statement && before.statement_cut === ticket.statement_cut)
        return;
    model.statement = statementView(ticket.statement, ticket.statement_cut);
}

export function may(ticket, what) {
    if (!open(ticket)) return false;
    return { approve: ticket.may.approve, deny: ticket.may.decide, withdraw: ticket.may.withdraw }[what];
}

// What was said after one's own decision holds until others have decided something. That it was run is
// the sequel of an approval.
function outdated(before, ticket) {
    if (before.state === "approved" && ticket.state === "used") return false;
    return before.state !== ticket.state || before.votes.length !== ticket.votes.length;
}

// The ticket as it is now. Returns what is to be announced; null where nothing has changed.
export function take(model, ticket) {
    const before = model.ticket;
    if (before && JSON.stringify(before) === JSON.stringify({ ...ticket, message: before.message }))
        return null;
    if (before && before.seen !== ticket.seen) {
        model.armed = "";
        model.notice ||= "This ticket has changed since you opened it. Look again: this is how it is now.";
    }
    if (model.armed && !may(ticket, model.armed)) model.armed = "";
    if (before && outdated(before, ticket)) model.message = "";
    put(model, ticket);
    if (!before || before.state === ticket.state) return "";
    return `${ticket.id}: ${stateOf(ticket)[1]}. ${ticket.outcome ?? ""}`;
}

// The first press. Returns whether that may be done.
export function arm(model, what) {
    if (!model.ticket || model.busy || !may(model.ticket, what)) return false;
    Object.assign(model, { armed: what, armedAt: performance.now(), problem: "", notice: "" });
    return true;
}

// Whether this is the second press. One that comes at once is still the first, of a hand that pressed
// twice.
export const confirmed = (model) =>
    model.armed !== "" && !model.busy && performance.now() - model.armedAt >= secondPressMs;

// Sends what is armed. Returns whether it was done; else the model says why not, save for a session
// that is over, which is thrown.
export async function send(model, person) {
    const what = model.armed;
    const body = { comment: model.comment.value.trim(), seen: model.ticket.seen };
    model.busy = true;
    model.sent += 1;
    try {
        const ticket = await decide(model.id, what, body, person);
        model.message = ticket.message ?? "";
        model.comment.value = "";
        put(model, ticket);
        return true;
    } catch (error) {
        if (!(error instanceof Problem) || error.status === 401) throw error;
        refused(model, what, error);
        return false;
    } finally {
        model.busy = false;
        model.armed = "";
    }
}

function refused(model, what, error) {
    const why = [error.message, error.detail, error.hint].map(sentence).filter(Boolean).join(" ");
    if (error.status === 409)
        model.notice = `${why} Nothing has been done in your name; this is how the ticket is now.`;
    else if (error.status === 0)
        model.problem =
            `No answer came, so nobody knows whether your ${what} has arrived. ` +
            "Look at the ticket before you try again.";
    else model.problem = why;
}
