// Times that run on the page, by the proxy's clock. One timer moves all of them, and only while
// somebody looks.

import { now } from "./api.js";
import { el } from "./dom.js";
import { ago, moment, running } from "./text.js";

const soonMs = 120_000;

const wordings = {
    ago: (ms) => ago(-ms),
    waits: (ms) => `waits ${running(-ms)}`,
    left: (ms) => (ms > 0 ? `${running(ms)} left` : "time is over"),
    held: (ms) => (ms > 0 ? `its client waits ${running(ms)} more` : "its client has given up"),
};

function set(element) {
    const ms = Date.parse(element.dateTime) - now();
    const text = wordings[element.dataset.time](ms);
    if (element.textContent !== text) element.textContent = text;
    element.classList.toggle("soon", element.dataset.time === "left" && ms < soonMs);
}

// `wording`: how it is said, see above.
export function time(wording, iso) {
    const element = el("time", { datetime: iso, title: moment(iso), data: { time: wording } });
    set(element);
    return element;
}

const tick = () => document.hidden || document.querySelectorAll("time[data-time]").forEach(set);

export function startClocks() {
    setInterval(tick, 1000);
    document.addEventListener("visibilitychange", tick);
}
