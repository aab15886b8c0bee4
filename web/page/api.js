// The API (/api/openapi.yaml) as functions that give what it says or throw a Problem. Holds the
// session's token and the proxy's clock, and nothing else.

const patienceMs = 30_000;

export class Problem extends Error {
    constructor(status, body, retryAfterS) {
        super(body.title || `the guard answered ${status}`);
        this.status = status; // 0: there was no answer
        this.detail = body.detail ?? "";
        this.hint = body.hint ?? "";
        this.retryAfterS = retryAfterS;
    }
}

const held = { token: "", skewMs: 0 };

// The proxy's clock, by which times are counted: a phone's may be wrong.
export const now = () => Date.now() + held.skewMs;

const silent = () =>
    new Problem(0, { title: "the guard does not answer", hint: "It is asked again by itself." });

async function bodyOf(response) {
    if (response.status === 204) return null;
    const type = response.headers.get("Content-Type") ?? "";
    if (!/json/.test(type)) return {};
    try {
        return await response.json();
    } catch {
        throw silent();
    }
}

async function ask(method, path, body) {
    const headers = { Accept: "application/json" };
    if (body !== undefined) headers["Content-Type"] = "application/json";
    if (method !== "GET" && held.token) headers["X-CSRF-Token"] = held.token;
    const patience = new AbortController();
    const timer = setTimeout(() => patience.abort(), patienceMs);
    try {
        const response = await fetch(path, {
            method,
            headers,
            body: body === undefined ? undefined : JSON.stringify(body),
            credentials: "same-origin",
            cache: "no-store",
            redirect: "error",
            signal: patience.signal,
        });
        const answer = await bodyOf(response);
        if (!response.ok)
            throw new Problem(
                response.status,
                answer ?? {},
                Number(response.headers.get("Retry-After")) || 0,
            );
        return answer;
    } catch (error) {
        throw error instanceof Problem ? error : silent();
    } finally {
        clearTimeout(timer);
    }
}

function withSession(session) {
    held.token = session.token;
    return session;
}

function withClock(list) {
    const at = Date.parse(list.now);
    if (!Number.isNaN(at)) held.skewMs = at - Date.now();
    return list;
}

const root = "/api/v1";
const of = (id) => `${root}/tickets/${encodeURIComponent(id)}`;

// Names of the servers that one can log in to; none where there is only one.
export const upstreams = async () => (await ask("GET", `${root}/upstreams`)).upstreams;
export const login = async (role, password, upstream) =>
    withSession(await ask("POST", `${root}/session`, { role, password, upstream }));
// Whether both are sessions of the same person: a role of another server is somebody else.
export const samePerson = (one, other) =>
    one.role === other.role && (one.upstream ?? "") === (other.upstream ?? "");
export const session = async () => withSession(await ask("GET", `${root}/session`));
export const tickets = async () => withClock(await ask("GET", `${root}/tickets`));
export const history = async (limit) => withClock(await ask("GET", `${root}/history?limit=${limit}`));
export const ticket = (id) => ask("GET", of(id));
export const logout = () => ask("DELETE", `${root}/session`);

// `what`: approve, deny or withdraw. Another tab may have logged in anew meanwhile, as the same
// person: then the token is another, and it is tried once more. As somebody else: `person` is
// thrown, so that nobody decides in a name that they do not see.
export async function decide(id, what, body, person) {
    const token = held.token;
    try {
        return await ask("POST", `${of(id)}/${what}`, body);
    } catch (error) {
        if (!(error instanceof Problem) || error.status !== 403) throw error;
        const now = await session();
        if (!samePerson(now, person)) throw new Problem(401, { title: `you are logged in as ${now.role} by now` });
        if (held.token === token) throw error;
        return ask("POST", `${of(id)}/${what}`, body);
    }
}
