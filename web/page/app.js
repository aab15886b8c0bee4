// The page: who is logged in, what is looked at, and what is asked of the guard when. It shows what
// the API says and decides nothing by itself.
//
// What must stay true: what is confirmed is what was shown as it was armed; a failed question shows
// in the line of status; what somebody has typed is lost by nothing but their own decision.

import * as api from "./api.js";
import { arm, confirmed, newModel, send, take } from "./decision.js";
import { byId, el, keepingFocus } from "./dom.js";
import { effectLine } from "./effects.js";
import { announce, showFrame, showStatus } from "./frame.js";
import { listenToKeys, moveFocus, showKeys } from "./keys.js";
import { historyView, missingView, waitingView } from "./list.js";
import { listen } from "./live.js";
import { loginForm, loginView } from "./login.js";
import { historyStep, placeOf, state } from "./state.js";
import { sentence } from "./text.js";
import { decideView, ticketView } from "./ticket.js";
import { startClocks } from "./times.js";

const loadEveryMs = 1000;
const retryMs = 10_000;
const staleMs = 15_000;

// --- Sessions.

function enter(session) {
    const same = state.session && api.samePerson(state.session, session);
    if (state.session && !same) forget();
    state.session = session;
    state.over = false;
    state.trouble = null;
    byId("over").close();
    state.stop?.();
    state.stop = listen({
        changed: (id) => loadSoon(id),
        over: (why) => sessionOver(why),
        mode: (mode) => {
            state.mode = mode;
            showStatus();
        },
    });
    show();
    load();
}

// All that was one person's.
function forget() {
    Object.assign(state, { list: null, history: null, open: null, missed: null, loadedAt: null });
    for (const kept of [state.cards, state.known, state.comments]) kept.clear();
}

function askToLogIn() {
    state.session = null;
    state.over = false;
    byId("over").close();
    forget();
    state.stop?.();
    state.stop = null;
    byId("main").replaceChildren(loginView(enter));
    showFrame();
    byId("login-role").focus();
}

function sessionOver(why) {
    if (!state.session || state.over || state.leaving) return;
    state.over = true;
    state.stop?.();
    state.stop = null;
    if (state.open?.armed) {
        state.open.armed = "";
        showDecision();
    }
    const dialog = byId("over");
    dialog.replaceChildren(
        el("h2", { id: "over-title" }, "Your session is over"),
        el(
            "p",
            { data: { part: "over-why" } },
            `${why ? `${sentence(why)} ` : ""}Log in again. What you have typed is still there.`,
        ),
        loginForm(state.session, enter),
    );
    dialog.showModal();
    byId("login-password").focus();
}

async function logout() {
    // The stream may tell of it before the answer comes.
    state.leaving = true;
    try {
        await api.logout();
    } catch (error) {
        if (error.status !== 401) return trouble(error);
    } finally {
        state.leaving = false;
    }
    askToLogIn();
}

// Another tab may have logged in meanwhile.
async function stillOver() {
    try {
        enter(await api.session());
    } catch {
        // The form stays where it is.
    }
}

// --- Asking.

function trouble(error) {
    if (error.status === 401)
        return sessionOver(error.message === "you are not logged in" ? "" : error.message);
    if (!(error instanceof api.Problem)) console.error(error);
    state.trouble =
        error instanceof api.Problem
            ? error
            : { message: "something in this page went wrong", hint: "Load it anew." };
    showStatus();
}

// Several changes that come close together are asked for once. What has happened to another ticket
// than the open one asks for the list alone.
function loadSoon(id) {
    if (!id || state.place.name !== "ticket" || id === state.place.id) state.wholly = true;
    if (state.timer) return;
    const since = state.loadedAt ? Date.now() - state.loadedAt : loadEveryMs;
    state.timer = setTimeout(loadWhatChanged, Math.max(100, loadEveryMs - since));
}

function load() {
    state.wholly = true;
    return loadWhatChanged();
}

async function loadWhatChanged() {
    clearTimeout(state.timer);
    state.timer = 0;
    if (state.loading) {
        state.again = true;
        return;
    }
    state.loading = true;
    do {
        state.again = false;
        await loadOnce();
    } while (state.again && state.session && !state.over);
    state.loading = false;
    if (state.trouble && state.session && !state.over && !state.timer)
        state.timer = setTimeout(load, retryMs);
}

// Never throws: what fails shows.
async function loadOnce() {
    if (!state.session || state.over) return;
    const { place, wholly, session } = state;
    state.wholly = false;
    // What was asked for one person is not shown to the next.
    const mine = (then) => (answer) => state.session === session && then(answer);
    const missing = mine((error) => gotNoTicket(place.id, error));
    const asked = [api.tickets().then(mine(gotList))];
    if (place.name === "history") asked.push(api.history(state.historyLimit).then(mine(gotHistory)));
    if (place.name === "ticket" && wholly)
        asked.push(api.ticket(place.id).then(mine(gotTicket(state.open?.sent ?? 0)), missing));
    const failed = (await Promise.allSettled(asked)).find((one) => one.status === "rejected");
    if (state.session !== session) return;
    if (failed) return trouble(failed.reason);
    state.trouble = null;
    state.loadedAt = new Date();
    showFrame();
}

const same = (one, other) => JSON.stringify(one) === JSON.stringify(other);

function gotList(list) {
    const first = state.list === null;
    const fresh = list.tickets.filter((ticket) => ticket.state === "pending" && !state.known.has(ticket.id));
    for (const ticket of fresh) state.known.add(ticket.id);
    if (!first && fresh.length > 0)
        announce(
            fresh
                .map((ticket) => `${ticket.id} waits. ${effectLine(ticket)}, asked by ${ticket.requester}.`)
                .join(" "),
        );
    const changed = first || !same(state.list.tickets, list.tickets) || state.list.more !== list.more;
    state.list = list;
    if (changed && state.place.name === "list") show();
}

function gotHistory(history) {
    const changed =
        !state.history ||
        !same(state.history.tickets, history.tickets) ||
        state.history.more !== history.more;
    state.history = history;
    if (changed && state.place.name === "history") show();
}

// `sent`: how many decisions had been sent when it was asked for. An answer from before the latest is
// older than what that one was answered; another is on its way.
const gotTicket = (sent) => (ticket) => {
    if (state.place.name !== "ticket" || ticket.id !== state.place.id) return;
    const open = openModel(ticket.id);
    if (open.busy || open.sent !== sent) return;
    const news = take(open, ticket);
    if (news === null) return;
    if (news) announce(news);
    show();
};

function gotNoTicket(id, error) {
    if (error.status !== 404) throw error;
    if (state.place.id !== id) return;
    openModel(id).missing = error;
    show();
}

// --- The open ticket.

function openModel(id) {
    if (state.open?.id === id) return state.open;
    const typed = (text) => state.comments.set(id, text);
    state.open = newModel(id, state.comments.get(id) ?? "", typed, () => actions.confirm());
    if (state.missed?.id === id) {
        state.open.problem = state.missed.text;
        state.missed = null;
    }
    return state.open;
}

const actions = {
    arm(what) {
        if (!state.open || !arm(state.open, what)) return;
        showDecision();
        // A finger that is to type brings up a keyboard that covers the buttons.
        const finger = matchMedia("(pointer: coarse)").matches;
        (finger ? document.querySelector("[data-do=confirm]") : state.open.comment).focus();
    },
    disarm() {
        const what = state.open.armed;
        state.open.armed = "";
        showDecision();
        document.querySelector(`[data-do=${what}]`)?.focus();
    },
    async confirm() {
        const { open } = state;
        if (!confirmed(open)) return;
        const sending = send(open, state.session);
        showDecision();
        try {
            if (await sending) state.comments.delete(open.id);
        } catch (error) {
            trouble(error);
        }
        decided(open);
        load();
    },
};

function decided(open) {
    const text = sentence(open.message) || open.notice || open.problem;
    if (state.open === open && state.session) {
        show();
        document.querySelector("[data-part=message]")?.focus();
    } else if (open.notice || open.problem) {
        state.missed = { id: open.id, text };
        showStatus();
    }
    announce(text);
}

// --- Showing.

function showDecision() {
    const place = document.querySelector("[data-part=decide]");
    if (place) keepingFocus(() => place.replaceWith(decideView(state.open, actions)));
}

function viewOf(place) {
    if (place.name === "history")
        return state.history && historyView(state.history, state.historyLimit, showMore);
    if (place.name === "list") return state.list && waitingView(state.list, state.cards);
    const open = openModel(place.id);
    if (open.missing) return missingView(open.missing);
    const back =
        state.from === "history" ? { href: "#history", text: "History" } : { href: "#", text: "What waits" };
    return open.ticket && ticketView(open, open.statement, actions, back);
}

function show() {
    if (!state.session) return;
    let view;
    // What is made anew takes the text area with it, so that is part of the change.
    keepingFocus(() => {
        view =
            viewOf(state.place) ||
            el("p", { class: "nothing soft", data: { part: "loading" } }, "One moment …");
        byId("main").replaceChildren(view);
    });
    showFrame();
    arrive(view);
}

// Once per place: the focus goes to where one has come, or back to where one was.
function arrive(view) {
    if (state.arrived || view.dataset.part === "loading") return;
    state.arrived = true;
    if (state.place.name === "ticket") {
        scrollTo(0, 0);
        byId("main").querySelector("h1")?.focus({ preventScroll: true });
        return;
    }
    const left = state.left ? document.querySelector(`[data-focus="open-${CSS.escape(state.left)}"]`) : null;
    left?.focus();
}

function showMore() {
    state.historyLimit = Math.min(1000, state.historyLimit + historyStep);
    load();
}

function go() {
    const before = state.place;
    state.place = placeOf(location.hash);
    if (before.name !== "ticket") state.from = state.place.name === "ticket" ? before.name : state.place.name;
    else if (state.place.name !== "ticket") state.from = state.place.name;
    state.left = before.id;
    state.arrived = false;
    if (state.open && state.open.id !== state.place.id) state.open = null;
    if (!state.session) return;
    show();
    load();
}

// The ticket beside the open one, in the list that it was opened from.
function besides(step) {
    const tickets = (state.from === "history" ? state.history : state.list)?.tickets ?? [];
    const at = tickets.findIndex((ticket) => ticket.id === state.place.id);
    const next = tickets[at + step];
    if (at >= 0 && next) location.hash = next.id;
}

const move = (step) => () => (state.place.name === "ticket" ? besides(step) : moveFocus(step));
// The arrows scroll what is one long page.
const arrow = (step) => () => (state.place.name === "ticket" ? false : moveFocus(step));

function armByKey(what) {
    return (event) => {
        if (!state.open?.ticket || event.repeat) return false;
        if (state.open.armed === what) return actions.confirm();
        actions.arm(what);
    };
}

function escape(event) {
    if (state.place.name === "ticket" && state.open?.armed) return state.open.busy || actions.disarm();
    if (event.target instanceof HTMLTextAreaElement) return event.target.blur();
    if (state.place.name === "ticket") location.hash = state.from === "history" ? "history" : "";
    else if (state.place.name === "history") location.hash = "";
    else return false;
}

function onSight() {
    if (document.hidden) return;
    if (state.over) return stillOver();
    if (state.session && (!state.loadedAt || Date.now() - state.loadedAt > staleMs)) load();
}

async function begin() {
    try {
        const session = await api.session();
        state.trouble = null;
        enter(session);
    } catch (error) {
        if (error.status === 401) {
            state.trouble = null;
            return askToLogIn();
        }
        state.trouble = error;
        byId("main").replaceChildren(
            el(
                "div",
                { class: "nothing" },
                el("p", { class: "big" }, sentence(error.message)),
                el("p", { class: "soft" }, "It is asked again by itself."),
            ),
        );
        showStatus();
        setTimeout(begin, retryMs);
    }
}

state.place = placeOf(location.hash);
addEventListener("hashchange", go);
addEventListener("online", () => state.session && load());
document.addEventListener("visibilitychange", onSight);
addEventListener("pageshow", (event) => event.persisted && onSight());
addEventListener("error", (event) => trouble(event.error ?? event));
addEventListener("unhandledrejection", (event) => trouble(event.reason ?? event));
byId("over").addEventListener("cancel", (event) => event.preventDefault());
byId("over").addEventListener("close", () => state.over && byId("over").showModal());
byId("help").addEventListener("click", showKeys);
byId("logout").addEventListener("click", logout);
byId("skip").addEventListener("click", () => byId("main").focus());
listenToKeys({
    j: move(1),
    k: move(-1),
    ArrowDown: arrow(1),
    ArrowUp: arrow(-1),
    a: armByKey("approve"),
    d: armByKey("deny"),
    h: () => {
        location.hash = "history";
    },
    l: () => {
        location.hash = "";
    },
    "?": showKeys,
    Escape: escape,
});
startClocks();
setInterval(() => document.hidden || showStatus(), 30_000);
begin();
