// The form to log in with: as the whole page, and over it when a session has ended. The password is
// sent and forgotten.

import { login, Problem } from "./api.js";
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

// `then(session)` is called once somebody is logged in. `role`: as whom, by default.
export function loginForm(role, then) {
    const problem = el("p", { class: "problem", role: "alert", data: { part: "login-problem" } });
    const button = el(
        "button",
        { type: "submit", class: "act sure approve", data: { do: "login" } },
        "Log in",
    );
    const send = async (event) => {
        event.preventDefault();
        const [name, password] = [form.elements.role.value, form.elements.password.value];
        button.disabled = true;
        problem.replaceChildren();
        try {
            const session = await login(name, password);
            form.elements.password.value = "";
            then(session);
        } catch (error) {
            if (!(error instanceof Problem)) throw error;
            say(problem, error);
            form.elements.password.value = "";
            form.elements.password.focus();
            if (error.retryAfterS > 0) return hold(button, error.retryAfterS);
        }
        button.disabled = false;
    };
    const form = el(
        "form",
        { class: "login", data: { part: "login" }, onsubmit: send },
        field("role", "PostgreSQL role", {
            autocomplete: "username",
            autocapitalize: "none",
            autocorrect: "off",
            spellcheck: "false",
            maxlength: "63",
            value: role,
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
        loginForm("", then),
    );
