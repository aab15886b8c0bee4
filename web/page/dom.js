// Makes elements. Everything on the page that came from elsewhere goes through here or through
// text.js, and both only ever make text of it: there is no way from a string to markup.

// el("p", { class: "x", data: { ticket: "B1" }, onclick: f }, "text", anotherElement)
// Attributes that are false, null or undefined are left out; true is the empty one.
export function el(name, attributes, ...children) {
    const element = document.createElement(name);
    for (const [key, value] of Object.entries(attributes ?? {})) {
        if (value === false || value === null || value === undefined) continue;
        if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
        else if (key === "data") Object.assign(element.dataset, value);
        else element.setAttribute(key, value === true ? "" : value);
    }
    element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined));
    return element;
}

export const byId = (id) => document.getElementById(id);

// Does something to the page and leaves the focus, and the place in a text, where they were: what
// has the focus is found again by its data-focus.
export function keepingFocus(change) {
    const before = document.activeElement;
    const name = before?.dataset?.focus;
    const place = before instanceof HTMLTextAreaElement ? [before.selectionStart, before.selectionEnd] : null;
    change();
    if (!name || (before.isConnected && document.activeElement === before)) return;
    const after = document.querySelector(`[data-focus="${CSS.escape(name)}"]`);
    after?.focus({ preventScroll: true });
    if (place && after instanceof HTMLTextAreaElement) after.setSelectionRange(...place);
}
