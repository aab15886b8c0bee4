// Tells when tickets have changed: by server-sent events, of which all tabs of a browser share one
// stream, since a browser opens only six connections to one server. Where there is none to be had,
// by asking now and then while somebody looks. Knows no ticket.
//
// What must stay true: while a page says "live" it hears of every change, or is told to ask for all
// of them as soon as it can again.

const pollMs = 15_000;
const streamAgainMs = 60_000;
const patienceMs = 4_000;
const name = "pgchaperone-events";

// `changed(id)`: this ticket has, or, without an id, any may have. `over(why)`: the session is.
// `mode("live" | "polling")`. Returns what ends it.
export function listen({ changed, over, mode }) {
    const tabs = "BroadcastChannel" in window ? new BroadcastChannel(name) : null;
    const ending = new AbortController();
    const timers = { poll: 0, again: 0, patience: 0 };
    let source = null;
    let leads = false;
    let current = "";

    const tell = (message) => {
        if (leads) tabs?.postMessage(message);
        hear(message);
    };
    const hear = ({ kind, id, why, is }) => {
        if (ending.signal.aborted) return;
        if (kind === "changed") changed(id);
        else if (kind === "over") over(why);
        else if (kind === "mode") become(is);
        else if (kind === "who" && leads) tabs.postMessage({ kind: "mode", is: current });
    };
    const become = (is) => {
        if (!is || is === current) return;
        current = is;
        clearInterval(timers.poll);
        if (is === "polling") timers.poll = setInterval(() => document.hidden || changed(), pollMs);
        mode(is);
    };
    const fallBack = () => {
        tell({ kind: "mode", is: "polling" });
        tell({ kind: "changed" });
    };

    function open() {
        if (ending.signal.aborted || !("EventSource" in window)) return fallBack();
        source = new EventSource("/api/v1/events");
        timers.patience = setTimeout(fallBack, patienceMs);
        source.addEventListener("open", () => {
            clearTimeout(timers.patience);
            tell({ kind: "mode", is: "live" });
            tell({ kind: "changed" });
        });
        source.addEventListener("tickets", (event) =>
            tell({ kind: "changed", id: member(event.data, "ticket") }),
        );
        source.addEventListener("over", (event) => {
            source.close();
            tell({ kind: "over", why: member(event.data, "why") });
        });
        source.addEventListener("error", failed);
    }
    // Refused (503, 401): the browser gives up, and we try later. Lost: it tries by itself.
    function failed() {
        clearTimeout(timers.patience);
        if (source.readyState === EventSource.CLOSED) {
            fallBack();
            timers.again = setTimeout(open, streamAgainMs);
        } else timers.patience = setTimeout(fallBack, patienceMs);
    }

    tabs?.addEventListener("message", (event) => hear(event.data));
    if (tabs && navigator.locks) {
        navigator.locks
            .request(
                name,
                { signal: ending.signal },
                () =>
                    new Promise((resolve) => {
                        leads = true;
                        ending.signal.addEventListener("abort", resolve);
                        open();
                    }),
            )
            .catch(() => {});
        tabs.postMessage({ kind: "who" });
    } else open();

    return () => {
        ending.abort();
        source?.close();
        tabs?.close();
        clearInterval(timers.poll);
        clearTimeout(timers.again);
        clearTimeout(timers.patience);
    };
}

function member(json, key) {
    try {
        const value = JSON.parse(json)[key];
        return typeof value === "string" ? value : undefined;
    } catch {
        return undefined;
    }
}
