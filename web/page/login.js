// The form to log in with: as the whole page, and over it when a session has ended. The password is
// sent and forgotten.

import { login, Problem, upstreams } from "./api.js";
import { el } from "./dom.js";
import { said, sentence } from "./text.js";

const field = (name, label, attributes) =>
    el(
        "p",
        { class: "field" },
        el("label", { for: `login-${name}` }, label),
        el("input", { id: `login-${name}`, name, required: true, ...attributes }),
    );

// Too many have tried: the button counts down.
function hold(button, seconds) {
    const until = Date.now() + seconds * 1000;
    button.disabled = true;
    const show = () => {
        const left = Math.ceil((until - Date.now()) / 1000);
        button.textContent = left > 0 ? `Again in ${left} s` : "Log in";
        if (left > 0) return;
        button.disabled = false;
        clearInterval(timer);
    };
    const timer = setInterval(show, 500);
    show();
}

function say(place, error) {
    const when =
        error.status === 429 && error.retryAfterS > 0
            ? `Again at ${new Date(Date.now() + error.retryAfterS * 1000).toLocaleTimeString()}.`
            : "";
    const hint = error.status === 0 ? "" : sentence(error.hint);
    place.replaceChildren(
        said(
            [sentence(error.message), sentence(error.detail), hint, when].filter(Boolean).join(" "),
            "said free",
        ),
    );
}

// Which server knows one's role: hidden where there is but one.
function serverField(chosen) {
    const select = el("select", { id: "login-upstream", name: "upstream" });
    const place = el(
        "p",
        { class: "field", hidden: true, data: { part: "login-upstream" } },
        el("label", { for: "login-upstream" }, "Server"),
        select,
    );
    const fill = (names) => {
        select.replaceChildren(
            ...names.map((name) => el("option", { value: name }, name || "(the first)")),
        );
        select.value = names.includes(chosen) ? chosen : (names[0] ?? "");
        place.hidden = names.length < 2;
    };
    // Whoever has but one needs no answer, and who logs in hears of what is wrong.
    upstreams().then(fill, () => {});
    return place;
}

// `then(session)` is called once somebody is logged in. `before`: the session that it was, for what
// the form begins with.
export function loginForm(before, then) {
    const problem = el("p", { class: "problem", role: "alert", data: { part: "login-problem" } });
    const button = el(
        "button",
        { type: "submit", class: "act sure approve", data: { do: "login" } },
        "Log in",
    );
    const send = async (event) => {
        event.preventDefault();
        const { role, password, upstream } = form.elements;
        button.disabled = true;
        problem.replaceChildren();
        try {
            const session = await login(role.value, password.value, upstream.value);
            password.value = "";
            then(session);
        } catch (error) {
            if (!(error instanceof Problem)) throw error;
            say(problem, error);
            password.value = "";
            password.focus();
            if (error.retryAfterS > 0) return hold(button, error.retryAfterS);
        }
        button.disabled = false;
    };
    const form = el(
        "form",
        { class: "login", data: { part: "login" }, onsubmit: send },
        serverField(before.upstream ?? ""),
        field("role", "PostgreSQL role", {
            autocomplete: "username",
            autocapitalize: "none",
            autocorrect: "off",
            spellcheck: "false",
            maxlength: "63",
            value: before.role ?? "",
        }),
        field("password", "Its password", {
            type: "password",
            autocomplete: "current-password",
            maxlength: "1000",
        }),
        problem,
        button,
    );
    return form;
}

export const loginView = (then) =>
    el(
        "div",
        { class: "door" },
        el("img", { src: "/icon.svg", width: "64", height: "64", alt: "" }),
        el("h1", {}, "pgchaperone"),
        el(
            "p",
            { class: "soft" },
            "What waits for a second person. Log in as in any SQL client; the server checks it.",
        ),
        loginForm({}, then),
    );
