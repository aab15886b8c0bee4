#include "web/app.h"

#include "approval/visible_text.h"
#include "approval/words.h"
#include "web/assets.h"
#include "web/events.h"
#include "web/problem.h"
#include "web/ticket_view.h"

#include <boost/json.hpp>
#include <openssl/crypto.h>

#include <array>
#include <charconv>
#include <deque>
#include <map>
#include <optional>
#include <set>
#include <utility>
#include <vector>

namespace pgchaperone::web {

namespace json = boost::json;
using approval::Person;
using approval::Ticket;

namespace {

constexpr std::size_t tickets_max = 1000;
constexpr std::size_t history_by_default = 100;
constexpr std::size_t role_bytes_max = 63;  // the server cuts what is longer
constexpr std::size_t password_bytes_max = 1000;
constexpr std::size_t comment_bytes_max = 8000;  // 2,000 characters
constexpr std::size_t secret_bytes = 32;
// As many look-ups of people as the server may be bothered with at once.
constexpr std::size_t logins_at_once = 16;
// Who reads may be known from this long ago; who decides is asked for anew.
constexpr std::chrono::seconds person_fresh{10};
constexpr int retry_later_s = 15;

const Throttle::Terms throttle_of_addresses{.free = 20};
const Throttle::Terms throttle_of_guesses{.free = 5};  // of one address at one role
// From everywhere at one role. Who is guessed at is not kept out by it from where they have logged
// in before, and from elsewhere not for long.
const Throttle::Terms throttle_of_roles{.free = 50, .longest_wait = std::chrono::seconds(2)};
constexpr std::size_t places_known_max = 10'000;

// Nothing but what this server itself serves, and nobody may frame it.
constexpr const char* content_security_policy =
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "font-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'";

std::string hexadecimal(std::string_view bytes) {
    constexpr std::string_view digits = "0123456789abcdef";
    std::string out;
    for (const char byte : bytes) {
        const auto value = static_cast<unsigned char>(byte);
        out += digits[value >> 4];
        out += digits[value & 15];
    }
    return out;
}

bool same_secret(std::string_view one, std::string_view other) {
    return one.size() == other.size() && CRYPTO_memcmp(one.data(), other.data(), one.size()) == 0;
}

Response json_response(JsonOut&& out, unsigned status = 200) {
    Response response;
    response.status = status;
    response.content_type = "application/json";
    response.body = std::move(out).take();
    return response;
}

Response with_header(Response response, std::string name, std::string value) {
    response.headers.emplace_back(std::move(name), std::move(value));
    return response;
}

Response later(unsigned status, std::string_view title, std::chrono::seconds wait,
               std::string_view hint = {}) {
    return with_header(problem(status, title, {}, hint), "Retry-After",
                       std::to_string(wait.count()));
}

const char* what_of(approval::Happened::Kind kind) {
    using Kind = approval::Happened::Kind;
    switch (kind) {
        case Kind::opened: return "opened";
        case Kind::voted: return "voted";
        case Kind::decided: return "decided";
        case Kind::expired: return "expired";
        case Kind::withdrawn: return "withdrawn";
        case Kind::used: return "used";
        case Kind::glass: return "glass";
        case Kind::finished: return "finished";
    }
    return "";
}

// The members of a request's body: an object of texts, none but those named. Or why not.
using Members = std::map<std::string, std::string, std::less<>>;
std::optional<Members> members_of(const Request& request, std::initializer_list<const char*> names,
                                  std::string& wrong) {
    const std::string_view type = request.header("content-type");
    if (type.substr(0, type.find(';')) != "application/json") {
        wrong = "the body has to be application/json";
        return std::nullopt;
    }
    boost::system::error_code error;
    json::parse_options options;
    options.max_depth = 4;
    json::value value = json::parse(request.body, error, {}, options);
    const json::object* object = error ? nullptr : value.if_object();
    if (object == nullptr) {
        wrong = "the body is no JSON object";
        return std::nullopt;
    }
    Members members;
    for (auto& member : *object) {
        const std::string name(member.key());
        const json::string* text = member.value().if_string();
        const bool known = std::any_of(names.begin(), names.end(),
                                       [&](const char* one) { return name == one; });
        if (!known || text == nullptr) {
            wrong = known ? "\"" + name + "\" has to be a text" : "unknown member \"" + name + "\"";
            return std::nullopt;
        }
        if (text->find('\0') != json::string::npos) {
            wrong = "\"" + name + "\" holds a NUL";
            return std::nullopt;
        }
        members.emplace(name, std::string(*text));
    }
    return members;
}

void forget(std::string& secret) { OPENSSL_cleanse(secret.data(), secret.size()); }

}  // namespace

struct App::Impl {
    Impl(Sources sources_, AppOptions options_)
        : sources(std::move(sources_)), options(std::move(options_)), people(options.sessions) {}

    struct Call {
        Request request;
        std::string id;  // of the ticket in the path
        std::shared_ptr<Session> session;
        Then then;
    };
    using Shared = std::shared_ptr<Call>;
    struct Route {
        Method method;
        std::string_view path;
        bool needs_session;
        bool changes;  // needs the token
        void (Impl::*handler)(const Shared& call);
    };
    static const std::vector<Route>& routes();

    void handle(Request request, Then then);
    void dispatch(const Route& route, const Shared& call);
    bool asset(const Request& request, const Then& then) const;
    void finish(const Then& then, Response response) const;
    Then finishing(Then then) const;
    // One line, whatever names and servers say.
    void log(const std::string& text) const { sources.log("web: " + approval::visible_line(text)); }
    std::optional<Response> foreign(const Request& request) const;
    std::string own_origin(const Request& request) const;
    std::string cookie_name() const { return options.tls ? "__Host-pgchaperone" : "pgchaperone"; }
    std::string cookie_text(const std::string& value) const;

    const AppOptions::Upstream* upstream_named(std::string_view name) const;
    void upstreams(const Shared& call);
    void login(const Shared& call);
    void admitted(const Shared& call, const std::string& role, Admission admission);
    void who(const Shared& call);
    void logout(const Shared& call);
    void tickets(const Shared& call);
    void history(const Shared& call);
    void ticket(const Shared& call);
    void approve(const Shared& call) { vote(call, true); }
    void deny(const Shared& call) { vote(call, false); }
    void vote(const Shared& call, bool yes);
    void withdraw(const Shared& call);
    void events(const Shared& call);

    // Goes on with who it is by the server's word of no longer ago; else answers.
    void with_person(const Shared& call, std::chrono::seconds age, std::function<void()> go_on);
    // A callback of the desk's, carried to this thread.
    template <class T>
    approval::Desk::Then<T> here(std::function<void(approval::Result<T>)> then) const {
        return [post = sources.post, then = std::move(then)](approval::Result<T> result) {
            post([then, result = std::make_shared<approval::Result<T>>(std::move(result))] {
                then(std::move(*result));
            });
        };
    }
    // Reads a list for this session, or joins who reads it already.
    using Read = std::function<void(std::function<void(approval::Result<std::vector<Ticket>>)>)>;
    void read_list(const Shared& call, const std::string& which, std::size_t limit,
                   const Read& read);
    // Goes on once it is on record that this is about to be said.
    void on_record(const Shared& call, const char* what, const std::string& comment,
                   std::function<void()> go_on);
    std::optional<std::chrono::seconds> throttled(const std::string& network,
                                                  const std::string& role);
    bool knows_place(const std::string& place) const { return known_places.contains(place); }
    void remember_place(const std::string& place);
    bool is_own_host(std::string_view host) const;
    Response list(const std::vector<Ticket>& all, std::size_t limit, const Person& person) const;
    Response session_response(const Session& session) const;

    Sources sources;
    AppOptions options;
    Sessions people;
    Throttle addresses{throttle_of_addresses};
    Throttle guesses{throttle_of_guesses};
    Throttle roles{throttle_of_roles};
    // From where somebody has logged in: role and network. The one that was remembered first is
    // forgotten first.
    std::set<std::string, std::less<>> known_places;
    std::deque<std::string> known_order;
    std::size_t logins = 0;  // under way
};

const std::vector<App::Impl::Route>& App::Impl::routes() {
    static const std::vector<Route> table{
        {Method::get, "/api/v1/upstreams", false, false, &Impl::upstreams},
        {Method::post, "/api/v1/session", false, false, &Impl::login},
        {Method::get, "/api/v1/session", true, false, &Impl::who},
        {Method::remove, "/api/v1/session", true, true, &Impl::logout},
        {Method::get, "/api/v1/tickets", true, false, &Impl::tickets},
        {Method::get, "/api/v1/history", true, false, &Impl::history},
        {Method::get, "/api/v1/tickets/{id}", true, false, &Impl::ticket},
        {Method::post, "/api/v1/tickets/{id}/approve", true, true, &Impl::approve},
        {Method::post, "/api/v1/tickets/{id}/deny", true, true, &Impl::deny},
        {Method::post, "/api/v1/tickets/{id}/withdraw", true, true, &Impl::withdraw},
        {Method::get, "/api/v1/events", true, false, &Impl::events},
    };
    return table;
}

namespace {

constexpr std::string_view id_place = "{id}";

// Whether the path is the route's, and which ticket it names.
bool matches(std::string_view pattern, std::string_view path, std::string& id) {
    const auto place = pattern.find(id_place);
    if (place == std::string_view::npos) return pattern == path;
    const std::string_view before = pattern.substr(0, place);
    const std::string_view behind = pattern.substr(place + id_place.size());
    if (!path.starts_with(before) || !path.ends_with(behind)) return false;
    if (path.size() <= before.size() + behind.size()) return false;
    id = path.substr(before.size(), path.size() - before.size() - behind.size());
    return id.find('/') == std::string::npos;
}

std::string_view method_name(Method method) {
    switch (method) {
        case Method::get: return "GET";
        case Method::head: return "HEAD";
        case Method::post: return "POST";
        case Method::remove: return "DELETE";
        case Method::other: return "";
    }
    return "";
}

}  // namespace

// Every answer leaves through here.
void App::Impl::finish(const Then& then, Response response) const {
    auto& headers = response.headers;
    const auto add = [&](const char* name, const char* value) {
        headers.emplace_back(name, value);
    };
    add("Content-Security-Policy", content_security_policy);
    add("X-Content-Type-Options", "nosniff");
    add("X-Frame-Options", "DENY");
    add("Referrer-Policy", "no-referrer");
    add("Cross-Origin-Opener-Policy", "same-origin");
    add("Cross-Origin-Resource-Policy", "same-origin");
    const bool says = std::any_of(headers.begin(), headers.end(),
                                  [](const auto& one) { return one.first == "Cache-Control"; });
    if (!says) add("Cache-Control", "no-store");
    if (options.tls) add("Strict-Transport-Security", "max-age=31536000");
    then(std::move(response));
}

App::Then App::Impl::finishing(Then then) const {
    return [this, then = std::move(then)](Response response) { finish(then, std::move(response)); };
}

bool App::Impl::asset(const Request& request, const Then& then) const {
    if (request.method != Method::get && request.method != Method::head) return false;
    const Asset* found = find_asset(request.path);
    if (found == nullptr) return false;
    Response response;
    // They change with the program only, and browsers ask whether they have.
    const std::string tag = '"' + sha256(found->text).substr(0, 16) + '"';
    response.headers = {{"Cache-Control", "no-cache"}, {"ETag", tag}};
    if (request.header("if-none-match") == tag) {
        response.status = 304;
    } else {
        response.content_type = std::string(found->content_type);
        if (!response.content_type.starts_with("image/"))
            response.content_type += "; charset=utf-8";
        response.body = found->text;
    }
    then(std::move(response));
    return true;
}

std::string App::Impl::own_origin(const Request& request) const {
    if (!options.url.empty()) return options.url;
    return (options.tls ? "https://" : "http://") + std::string(request.header("host"));
}

// Requests that another site lets a browser make. Programs that are no browsers name no origin.
std::optional<Response> App::Impl::foreign(const Request& request) const {
    const std::string_view origin = request.header("origin");
    const std::string_view site = request.header("sec-fetch-site");
    const bool other_origin = !origin.empty() && origin != own_origin(request);
    const bool other_site = !site.empty() && site != "same-origin" && site != "none";
    if (!other_origin && !other_site) return std::nullopt;
    return problem(
        403, "this request comes from another site",
        other_origin
            ? "Its origin is " + std::string(origin) + ", and this is " + own_origin(request) + "."
            : std::string(),
        "Open the page itself. If there is a proxy in front of it, web.url has to be what "
        "people type.");
}

void App::Impl::handle(Request request, Then then) {
    then = finishing(std::move(then));
    if (asset(request, then)) return;
    auto call = std::make_shared<Call>();
    call->then = std::move(then);
    const Method method = request.method == Method::head ? Method::get : request.method;
    std::string allowed;
    for (const Route& route : routes()) {
        if (!matches(route.path, request.path, call->id)) continue;
        if (route.method == method) {
            call->request = std::move(request);
            return dispatch(route, call);
        }
        allowed += (allowed.empty() ? "" : ", ") + std::string(method_name(route.method));
    }
    if (allowed.empty() && find_asset(request.path) != nullptr) allowed = "GET";
    if (!allowed.empty()) {
        return call->then(with_header(problem(405, "this can't be done here"), "Allow", allowed));
    }
    call->then(problem(404, "there is nothing here", {}, "The page is at /."));
}

void App::Impl::dispatch(const Route& route, const Shared& call) {
    const Request& request = call->request;
    if (!is_own_host(request.header("host"))) {
        return call->then(problem(421, "this page is not known by that name", {},
                                  "Set web.url to what people type."));
    }
    if (route.method != Method::get) {
        if (auto refusal = foreign(request)) return call->then(*std::move(refusal));
    }
    if (!route.needs_session) return (this->*route.handler)(call);
    call->session = people.find(request.cookie(cookie_name()), sources.steady_now());
    if (!call->session) {
        return call->then(problem(401, "you are not logged in", {}, "Log in (again)."));
    }
    if (route.changes && !same_secret(request.header("x-csrf-token"), call->session->token)) {
        return call->then(problem(403, "the session's token is missing or wrong", {},
                                  "Send what GET /api/v1/session says as X-CSRF-Token."));
    }
    (this->*route.handler)(call);
}

// Logging in and out

std::string App::Impl::cookie_text(const std::string& value) const {
    std::string out = cookie_name() + "=" + value + "; Path=/; HttpOnly; Secure; SameSite=Strict";
    if (value.empty()) out += "; Max-Age=0";
    return out;
}

Response App::Impl::session_response(const Session& session) const {
    JsonOut out;
    out.open('{').text("role", session.person.role).text("token", session.token);
    const std::string& upstream = session.person.upstream;
    out.text_if("upstream", upstream).time("ends", session.ends_at);
    const AppOptions::Upstream* const there = upstream_named(upstream);
    out.text("environment",
             (upstream.empty() ? "" : upstream + ", ") + (there ? there->address : ""));
    out.close('}');
    return json_response(std::move(out));
}

const AppOptions::Upstream* App::Impl::upstream_named(std::string_view name) const {
    const auto found = std::find_if(options.upstreams.begin(), options.upstreams.end(),
                                    [&](const auto& one) { return one.name == name; });
    return found == options.upstreams.end() ? nullptr : &*found;
}

// Their names only, for who is about to log in to one of them. Of a single one there is nothing to
// choose.
void App::Impl::upstreams(const Shared& call) {
    JsonOut out;
    out.open('{').name("upstreams").open('[');
    for (const AppOptions::Upstream& one : options.upstreams) {
        if (options.upstreams.size() > 1) out.text(one.name);
    }
    out.close(']').close('}');
    call->then(json_response(std::move(out)));
}

void App::Impl::login(const Shared& call) {
    std::string wrong;
    auto members = members_of(call->request, {"role", "password", "upstream"}, wrong);
    forget(call->request.body);
    if (!members) return call->then(problem(400, wrong));
    const std::string role = (*members)["role"];
    std::string password = std::exchange((*members)["password"], {});
    if (role.empty() || role.size() > role_bytes_max || password.empty() ||
        password.size() > password_bytes_max) {
        forget(password);
        return call->then(problem(400, "a role and its password are needed",
                                  "A role has at most 63 bytes, a password 1,000."));
    }
    const std::string upstream = (*members)["upstream"];
    if (upstream_named(upstream) == nullptr) {
        forget(password);
        return call->then(problem(400, "there is no server of that name", {},
                                  "GET /api/v1/upstreams lists those that are guarded."));
    }
    const std::string network = network_of(call->request.peer);
    if (logins >= logins_at_once) {
        forget(password);
        return call->then(later(503, "too many are logging in", std::chrono::seconds(1)));
    }
    if (const auto wait = throttled(network, role)) {
        forget(password);
        return call->then(later(429, "too many attempts to log in", *wait,
                                "Wait for " + approval::span_text(*wait) + "."));
    }
    ++logins;
    sources.admit(role, std::move(password), upstream, [this, call, role](Admission admission) {
        admitted(call, role, std::move(admission));
    });
}

namespace {
std::string place_of(std::string_view network, std::string_view role) {
    return std::string(network) + ' ' + std::string(role);
}
}  // namespace

// What is counted where the attempt may be made; what was refused counts nowhere.
std::optional<std::chrono::seconds> App::Impl::throttled(const std::string& network,
                                                         const std::string& role) {
    const auto now = sources.steady_now();
    const std::string place = place_of(network, role);
    if (const auto wait = guesses.attempt(place, now)) return wait;
    if (const auto wait = addresses.attempt(network, now)) {
        guesses.give_back(place);
        return wait;
    }
    if (knows_place(place)) return std::nullopt;
    const auto wait = roles.attempt(role, now);
    if (wait) {
        guesses.give_back(place);
        addresses.give_back(network);
    }
    return wait;
}

void App::Impl::remember_place(const std::string& place) {
    if (!known_places.insert(place).second) return;
    known_order.push_back(place);
    if (known_order.size() <= places_known_max) return;
    known_places.erase(known_order.front());
    known_order.pop_front();
}

void App::Impl::admitted(const Shared& call, const std::string& role, Admission admission) {
    --logins;
    const std::string network = network_of(call->request.peer);
    const std::string place = place_of(network, role);
    const Known& known = admission.known;
    const bool admitted = admission.proof && known.person;
    if (admitted || !known.guessed) {
        addresses.give_back(network);
        guesses.give_back(place);
        if (!knows_place(place)) roles.give_back(role);
    }
    if (!admitted) {
        log("login refused: role=" + role + " client=" + call->request.peer + ": " + known.trouble);
        if (known.refused) {
            return call->then(problem(401, "the server did not let you in", known.trouble,
                                      "Log in with your PostgreSQL role and its password."));
        }
        return call->then(problem(503, "the server could not be asked who you are", known.trouble,
                                  "Try again in a moment."));
    }
    guesses.forget(place);
    remember_place(place);
    // Whoever was logged in here before is not any more.
    if (const auto before = people.find(call->request.cookie(cookie_name()),
                                        sources.steady_now())) {
        people.end(before, "somebody has logged in anew");
    }
    const std::string cookie = hexadecimal(sources.secret(secret_bytes));
    const auto session = people.open(cookie, hexadecimal(sources.secret(secret_bytes)), role,
                                     std::move(admission), sources.steady_now(), sources.now());
    log("logged in: role=" + session->person.role + " client=" + call->request.peer);
    call->then(with_header(session_response(*session), "Set-Cookie", cookie_text(cookie)));
}

void App::Impl::who(const Shared& call) { call->then(session_response(*call->session)); }

void App::Impl::logout(const Shared& call) {
    people.end(call->session, "you have logged out");
    Response response;
    response.status = 204;
    call->then(with_header(std::move(response), "Set-Cookie", cookie_text({})));
}

void App::Impl::with_person(const Shared& call, std::chrono::seconds age,
                            std::function<void()> go_on) {
    const std::shared_ptr<Session> session = call->session;
    const bool ask = age.count() == 0 || sources.steady_now() - session->person_asked >= age;
    if (!ask) return go_on();
    // A session may end while its server is asked.
    const std::shared_ptr<Proof> proof = session->proof;
    if (!proof) return call->then(problem(401, "your session is over", {}, "Log in again."));
    proof->ask([this, call, session, proof, go_on = std::move(go_on)](Known known) {
        if (!session->proof) {
            return call->then(problem(401, "your session is over", {}, "Log in again."));
        }
        if (!known.person && known.may_ask_again) {
            return call->then(problem(503, "the server could not be asked who you are",
                                      known.trouble, "Try again in a moment."));
        }
        if (!known.person) {
            log("session over: role=" + session->person.role + ": " + known.trouble);
            people.end(session, known.trouble);
            return call->then(problem(401, "your session is over", known.trouble, "Log in again."));
        }
        session->person = *std::move(known.person);
        session->person_asked = sources.steady_now();
        go_on();
    });
}

// One of the machine's own names, or what the configuration calls it: a site that makes its name
// stand for this machine's address asks under its own.
bool App::Impl::is_own_host(std::string_view host) const {
    if (!options.url.empty()) {
        // A proxy in front may keep the name or give its own; origins are compared with the url.
        return true;
    }
    const auto colon = host.rfind(':');
    const auto bracket = host.rfind(']');
    if (colon != std::string_view::npos && (bracket == std::string_view::npos || colon > bracket)) {
        host = host.substr(0, colon);
    }
    const bool address = !host.empty() &&
                         host.find_first_not_of("0123456789.") == std::string_view::npos;
    return address || host.starts_with('[') || host == "localhost" || host == options.listen_host;
}

void App::Impl::on_record(const Shared& call, const char* what, const std::string& comment,
                          std::function<void()> go_on) {
    const Person& person = call->session->person;
    Saying saying{person.role, person.upstream, call->request.peer, what, call->id, comment};
    sources.record(std::move(saying),
                   [post = sources.post, call, go_on = std::move(go_on)](std::string problem_text) {
                       post([call, go_on, problem_text] {
                           if (problem_text.empty()) return go_on();
                           call->then(problem(503, "it could not be recorded, so it is not done",
                                              problem_text, "Tell who runs pgchaperone."));
                       });
                   });
}

// Tickets

Response App::Impl::list(const std::vector<Ticket>& all, std::size_t limit,
                         const Person& person) const {
    const approval::Time now = sources.now();
    JsonOut out;
    out.open('{').time("now", now).name("tickets").open('[');
    for (std::size_t i = 0; i < std::min(all.size(), limit); ++i) {
        put_ticket(out, all[i], person, now, Extent::brief);
    }
    out.close(']').flag("more", all.size() > limit).close('}');
    return json_response(std::move(out));
}

// A page that asks anew at every event does not make the store read the same anew at each.
void App::Impl::read_list(const Shared& call, const std::string& which, std::size_t limit,
                          const Read& read) {
    const std::shared_ptr<Session> session = call->session;
    auto& waiting = session->lists[which];
    waiting.push_back(call->then);
    if (waiting.size() > 1) return;
    read(here<std::vector<Ticket>>([this, session, which,
                                    limit](approval::Result<std::vector<Ticket>> all) {
        const auto asked = std::exchange(session->lists[which], {});
        session->lists.erase(which);
        const Response response = all ? list(*all, limit, session->person) : problem(all.error());
        for (const auto& then : asked) then(response);
    }));
}

void App::Impl::tickets(const Shared& call) {
    with_person(call, person_fresh, [this, call] {
        read_list(call, "open", tickets_max, [this, call](auto then) {
            sources.desk.open_tickets(call->session->person, tickets_max + 1, std::move(then));
        });
    });
}

void App::Impl::history(const Shared& call) {
    std::size_t limit = history_by_default;
    if (const auto asked = call->request.parameter("limit")) {
        const char* const end = asked->data() + asked->size();
        const auto [stop, error] = std::from_chars(asked->data(), end, limit);
        if (error != std::errc() || stop != end || limit < 1 || limit > tickets_max) {
            return call->then(problem(400, "limit is a number from 1 to 1000"));
        }
    }
    with_person(call, person_fresh, [this, call, limit] {
        read_list(call, std::to_string(limit), limit, [this, call, limit](auto then) {
            sources.desk.history(call->session->person, limit + 1, std::move(then));
        });
    });
}

void App::Impl::ticket(const Shared& call) {
    with_person(call, person_fresh, [this, call] {
        sources.desk.find(call->id, call->session->person,
                          here<Ticket>([this, call](approval::Result<Ticket> ticket) {
                              if (!ticket) return call->then(problem(ticket.error()));
                              JsonOut out;
                              put_ticket(out, *ticket, call->session->person, sources.now(),
                                         Extent::full);
                              call->then(json_response(std::move(out)));
                          }));
    });
}

namespace {

std::optional<approval::Failure> not_as_seen(const Ticket& ticket, const std::string& seen) {
    if (seen.empty() || seen == seen_of(ticket)) return std::nullopt;
    return approval::Failure{approval::Problem::changed_since,
                             "ticket " + ticket.id + " has changed since you looked at it",
                             "Look at it again: it was asked for anew."};
}

}  // namespace

void App::Impl::vote(const Shared& call, bool yes) {
    std::string wrong;
    const auto members = members_of(call->request, {"comment", "seen"}, wrong);
    if (!members) return call->then(problem(400, wrong));
    const auto value = [&](const char* name) {
        const auto found = members->find(name);
        return found == members->end() ? std::string() : found->second;
    };
    const std::string comment = value("comment"), seen = value("seen");
    if (comment.size() > comment_bytes_max) {
        return call->then(
            problem(400, "the comment is too long", "2,000 characters are the limit."));
    }
    const auto vote = [this, call, yes, comment, seen] {
        sources.desk.vote(call->id, call->session->person, yes, comment,
                          here<Ticket>([this, call](approval::Result<Ticket> ticket) {
                              if (!ticket) return call->then(problem(ticket.error()));
                              JsonOut out;
                              put_ticket(out, *ticket, call->session->person, sources.now(),
                                         Extent::full,
                                         approval::voted_text(*ticket, sources.now()));
                              call->then(json_response(std::move(out)));
                          }),
                          [seen](const Ticket& ticket) { return not_as_seen(ticket, seen); });
    };
    with_person(call, std::chrono::seconds(0), [this, call, yes, comment, vote] {
        on_record(call, yes ? "approve" : "deny", comment, vote);
    });
}

void App::Impl::withdraw(const Shared& call) {
    std::string wrong;
    const auto members = members_of(call->request, {"comment", "seen"}, wrong);
    if (!members) return call->then(problem(400, wrong));
    const auto found = members->find("comment");
    const std::string comment = found == members->end() ? std::string() : found->second;
    if (comment.size() > comment_bytes_max) {
        return call->then(
            problem(400, "the comment is too long", "2,000 characters are the limit."));
    }
    const auto withdraw = [this, call, comment] {
        sources.desk.withdraw(call->id, call->session->person, comment,
                              here<Ticket>([this, call](approval::Result<Ticket> ticket) {
                                  if (!ticket) return call->then(problem(ticket.error()));
                                  JsonOut out;
                                  put_ticket(out, *ticket, call->session->person, sources.now(),
                                             Extent::full,
                                             "withdrawn: nobody can approve it any more");
                                  call->then(json_response(std::move(out)));
                              }));
    };
    with_person(call, std::chrono::seconds(0), [this, call, comment, withdraw] {
        on_record(call, "withdraw", comment, withdraw);
    });
}

void App::Impl::events(const Shared& call) {
    // A HEAD would open a stream that nobody reads.
    if (call->request.method == Method::head) return call->then(problem(405, "GET is needed here"));
    with_person(call, person_fresh, [this, call] {
        auto stream = people.open_stream(*call->session);
        if (!stream) {
            return call->then(later(503, "too many pages are open",
                                    std::chrono::seconds(retry_later_s),
                                    "Ask /api/v1/tickets now and then, or close other pages."));
        }
        Response response;
        response.content_type = "text/event-stream";
        // Proxies in front must not keep it back.
        response.headers.emplace_back("X-Accel-Buffering", "no");
        response.stream = std::move(stream);
        call->then(std::move(response));
    });
}

App::App(Sources sources, AppOptions options)
    : impl_(std::make_unique<Impl>(std::move(sources), std::move(options))) {}
App::~App() = default;

void App::handle(Request request, Then then) { impl_->handle(std::move(request), std::move(then)); }

void App::happened(const approval::Happened& happened) {
    JsonOut out;
    out.open('{')
        .text("ticket", happened.ticket.id)
        .text("what", what_of(happened.kind))
        .close('}');
    const std::string data = std::move(out).take();
    impl_->people.for_each([&](Session& session) {
        if (session.streams.empty() || !approval::may_see(happened.ticket, session.person)) return;
        for (const auto& one : session.streams) {
            if (const auto stream = one.lock()) stream->push("tickets", data);
        }
    });
}

void App::tick() { impl_->people.sweep(impl_->sources.steady_now()); }

void App::end_all() {
    impl_->people.for_each([&](Session& session) {
        for (const auto& one : std::exchange(session.streams, {})) {
            if (const auto stream = one.lock())
                stream->end("over", R"({"why":"pgchaperone stops"})");
        }
    });
}

std::size_t App::sessions() const { return impl_->people.size(); }
std::size_t App::streams() const { return impl_->people.open_streams(); }

std::vector<std::string> App::routes() {
    std::vector<std::string> out;
    for (const Impl::Route& route : Impl::routes()) {
        out.push_back(std::string(method_name(route.method)) + " " + std::string(route.path));
    }
    out.emplace_back("GET /api/openapi.yaml");
    return out;
}

}  // namespace pgchaperone::web
