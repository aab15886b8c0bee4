// The keys of the page: which there are, and what was pressed. Nothing is taken from who types, and
// nothing from the browser (Ctrl, Alt, Meta).

import { byId, el } from "./dom.js";

const table = [
    ["j ↓  /  k ↑", "the next, the one before"],
    ["Enter", "open it"],
    ["a", "approve: asks for a second press"],
    ["d", "deny: likewise"],
    ["Enter", "the second press"],
    ["Esc", "not yet; back"],
    ["h", "history"],
    ["l", "what waits"],
    ["?", "these keys"],
];

export function showKeys() {
    const dialog = byId("keys");
    if (dialog.open) return dialog.close();
    dialog.replaceChildren(
        el("h2", { id: "keys-title" }, "Keys"),
        el(
            "dl",
            { class: "keys" },
            table.map(([key, does]) => el("div", {}, el("dt", {}, el("kbd", {}, key)), el("dd", {}, does))),
        ),
        el("form", { method: "dialog" }, el("button", { class: "act back" }, "Close")),
    );
    dialog.showModal();
}

const typing = (target) =>
    target instanceof HTMLInputElement || target instanceof HTMLTextAreaElement || target.isContentEditable;

// The place of the focus in a list moves by `step`.
export function moveFocus(step) {
    const links = [...document.querySelectorAll("#main a.open")];
    if (links.length === 0) return;
    const at = links.indexOf(document.activeElement);
    const next =
        at < 0 ? (step > 0 ? 0 : links.length - 1) : Math.min(links.length - 1, Math.max(0, at + step));
    links[next].focus();
    links[next].closest("[data-ticket]").scrollIntoView({ block: "nearest" });
}

// `does`: functions by key; one that gives false has left the key to the browser.
export function listenToKeys(does) {
    document.addEventListener("keydown", (event) => {
        if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing || event.defaultPrevented)
            return;
        if (document.querySelector("dialog[open]")) {
            if (event.key === "?" && byId("keys").open) byId("keys").close();
            return;
        }
        if (typing(event.target) && event.key !== "Escape") return;
        const name = event.key.length === 1 ? event.key.toLowerCase() : event.key;
        if (does[name] && does[name](event) !== false) event.preventDefault();
    });
}
