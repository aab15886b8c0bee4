// What a ticket would do, in words: from the evidence of the API to what stands biggest on the page.
// Knows no element. A number is never said without how it is known.

import { grouped, plural } from "./text.js";

const knowledge = {
    trial: "counted in a run that was rolled back; the approved run may do no more than this",
    counted:
        "counted in a run that went over its limit and was rolled back; the approved run may do no more than this",
    plan: "the planner's estimate, of the table that is named; triggers and cascades are not in it, and it limits nothing",
    none: "nothing was tried, and nothing limits the run",
};
const briefly = {
    trial: "counted in a run that was rolled back",
    counted: "counted in a run that was rolled back",
    plan: "the planner's estimate",
    none: "nothing was tried",
};

const destroying = /^(DELETE|TRUNCATE|DROP)\b/i;

export function totalsOf(tables) {
    const sum = { inserted: 0, updated: 0, deleted: 0 };
    for (const rows of tables) for (const key of Object.keys(sum)) sum[key] += rows[key];
    return { ...sum, all: sum.inserted + sum.updated + sum.deleted };
}

const verbs = ["deleted", "updated", "inserted"];

// "public.orders and 2 other tables", of those that lose (or change, or gain) rows.
function whereText(tables, verb) {
    const hit = tables.filter((rows) => rows[verb] > 0).sort((one, other) => other[verb] - one[verb]);
    const named = (hit[0] ?? tables[0]).table;
    return hit.length > 1 ? `${named} and ${plural(hit.length - 1, "other table")}` : named;
}

function furthermore(evidence) {
    const out = [];
    const list = (names) => names.join(", ");
    if (evidence.exclusive_locks.length > 0)
        out.push(
            `Locks ${list(evidence.exclusive_locks)} for itself alone, as TRUNCATE, DROP and ALTER do: ` +
                "what these remove is not counted.",
        );
    if (evidence.catalog_changes.length > 0)
        out.push(`Changes the structure of the database (${list(evidence.catalog_changes)}).`);
    if (evidence.foreign_writes.length > 0)
        out.push(`Writes to ${list(evidence.foreign_writes)}, elsewhere, where a trial is not rolled back.`);
    return out;
}

// What is lost stands for all; what is only changed or added comes beside it.
function ofRows(tables, about) {
    const totals = totalsOf(tables);
    const verb = verbs.find((one) => totals[one] > 0) ?? "changed";
    const count = totals[verb] ?? 0;
    const others = verbs
        .filter((one) => one !== verb && totals[one] > 0)
        .map((one) => `${grouped(totals[one])} ${one}`);
    const number = grouped(count);
    const words = `${count === 1 ? "row" : "rows"} of ${whereText(tables, verb)}`;
    const beside = others.length > 0 ? `also ${others.join(", ")}` : "";
    return {
        number,
        about,
        words,
        verb,
        beside,
        would: `would be ${verb}`,
        sentence: `${about ? "about " : ""}${number} ${words} will be ${verb}${beside ? `; ${beside}` : ""}`,
    };
}

// {number, about, words, verb, would, beside, level, known, briefly, also, sentence}. `level`: lost,
// changed, unknown or idle. `number` is "" where rows are not what it is about.
export function effectOf(ticket) {
    const evidence = ticket.effects;
    const totals = totalsOf(evidence.tables);
    const effect = {
        number: "",
        about: false,
        words: "",
        verb: "",
        would: "",
        beside: "",
        level: "changed",
        known: knowledge[evidence.kind],
        briefly: briefly[evidence.kind],
        also: furthermore(evidence),
    };
    if (totals.deleted > 0 || destroying.test(ticket.command)) effect.level = "lost";
    if (evidence.tables.length > 0) {
        if (totals.all === 0 && effect.also.length === 0) effect.level = "idle";
        return Object.assign(effect, ofRows(evidence.tables, evidence.kind === "plan"));
    }
    if (evidence.summary) {
        const bound = evidence.kind === "trial" || evidence.kind === "counted";
        if (effect.also.length === 0 && bound) effect.level = "idle";
        effect.words = evidence.summary[0].toUpperCase() + evidence.summary.slice(1);
        effect.would = `by ${ticket.command}`;
        effect.sentence = `${ticket.command} will run: ${evidence.summary}`;
        return effect;
    }
    if (effect.level !== "lost") effect.level = "unknown";
    effect.words = "Not known";
    effect.would = `what ${ticket.command} would change`;
    effect.sentence = `${ticket.command} will run, and nobody knows what it changes`;
    return effect;
}

// The same of a ticket that has run or never will.
export function wouldText(effect, state) {
    if (state === "pending" || state === "approved") return effect.would;
    return effect.would.replace(/^would be/, state === "used" ? "to be" : "would have been");
}

// A line of text that says the same, for who has the page read to them.
export function effectLine(ticket) {
    const effect = effectOf(ticket);
    if (!effect.number) return `${ticket.command}: ${effect.words}`;
    return `${ticket.command}: ${effect.about ? "about " : ""}${effect.number} ${effect.words} ${effect.would}`;
}
