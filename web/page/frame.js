// What stands around what one looks at: the line of status, the count, who is logged in, the title.

import { now } from "./api.js";
import { byId } from "./dom.js";
import { state } from "./state.js";
import { clock, sentence } from "./text.js";

const endsSoonMs = 5 * 60_000;

export function announce(text) {
    byId("announce").textContent = text;
}

function statusText() {
    if (state.trouble) {
        const from = state.loadedAt ? ` What you see is from ${clock(state.loadedAt)}.` : "";
        return {
            kind: "offline",
            text: `${sentence(state.trouble.message)} ${sentence(state.trouble.hint)}${from}`,
        };
    }
    if (state.missed) return { kind: "missed", text: `${state.missed.id}: ${state.missed.text}` };
    const left = state.session ? Date.parse(state.session.ends) - now() : Infinity;
    if (left < endsSoonMs)
        return {
            kind: "ends",
            text: `Your session ends at ${clock(new Date(state.session.ends))}. What you type stays.`,
        };
    if (state.mode === "polling") return { kind: "polling", text: "Looks for changes every 15 seconds." };
    return { kind: state.mode, text: state.mode === "live" ? "Live" : "" };
}

export function showStatus() {
    const { kind, text } = state.session
        ? statusText()
        : { kind: "", text: state.trouble ? sentence(state.trouble.message) : "" };
    const line = byId("status");
    if (line.textContent !== text) line.textContent = text;
    line.dataset.kind = kind;
    document.body.classList.toggle("stale", kind === "offline");
}

export function showFrame() {
    const inside = state.session !== null;
    for (const id of ["places", "me"]) byId(id).hidden = !inside;
    byId("environment").hidden = !inside || !state.session.environment;
    byId("environment").textContent = inside ? `guards ${state.session.environment}` : "";
    byId("role").textContent = inside ? state.session.role : "";
    const pending = inside
        ? (state.list?.tickets ?? []).filter((ticket) => ticket.state === "pending").length
        : 0;
    byId("count").textContent = pending > 0 ? String(pending) : "";
    document.title = pending > 0 ? `(${pending}) pgchaperone` : "pgchaperone";
    const here = state.place.name === "ticket" ? state.from : state.place.name;
    for (const link of byId("places").children) {
        if (link.dataset.place === here) link.setAttribute("aria-current", "page");
        else link.removeAttribute("aria-current");
    }
    document.body.dataset.view = inside ? state.place.name : "login";
    showStatus();
}
