// What the page knows at the moment, in one object, and nothing beside it; and how a place is written
// in the address: # is what waits, #history, #B1 a ticket.

export const historyStep = 50;

export const state = {
    session: null,
    over: false, // the session is, and the page lies under the form to log in
    leaving: false, // somebody is logging out
    place: { name: "list", id: "" },
    from: "list", // where a ticket was opened from
    list: null,
    cards: new Map(), // of the list, as they were made
    known: new Set(), // the tickets that were told of already
    history: null,
    historyLimit: historyStep,
    open: null, // the model of the open ticket, see decision.js
    missed: null, // a decision that failed after one had left its ticket: { id, text }
    comments: new Map(), // by ticket, as typed
    mode: "",
    trouble: null, // the last question that failed
    loadedAt: null,
    loading: false,
    again: false, // something was asked for meanwhile
    wholly: false, // the open ticket is asked for too
    timer: 0,
    stop: null, // ends listening
    arrived: false, // the focus has gone to where one is
    left: "", // the ticket that one comes from
};

export function placeOf(hash) {
    if (hash === "#history") return { name: "history", id: "" };
    if (/^#[A-Za-z][0-9]{1,18}$/.test(hash)) return { name: "ticket", id: hash.slice(1).toUpperCase() };
    return { name: "list", id: "" };
}
