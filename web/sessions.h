#pragma once
// Who is logged in to the page. The cookie is known by its SHA-256 only, so that what is in memory
// opens nothing. Bounded; knows no clock, draws no random number.

#include "approval/ticket.h"
#include "web/events.h"
#include "web/http.h"
#include "web/login.h"

#include <chrono>
#include <cstddef>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace pgchaperone::web {

using SessionTime = std::chrono::steady_clock::time_point;

struct SessionTerms {
    std::chrono::milliseconds idle{3'600'000};   // after the last request, if no page is open
    std::chrono::milliseconds life{43'200'000};  // after the login
    std::size_t sessions_max = 200;
    std::size_t sessions_of_a_role_max = 20;
    std::size_t streams_max = 200;
    std::size_t streams_of_a_session_max = 10;
};

struct Session {
    std::string role;  // as logged in with
    approval::Person person;
    // By a clock that is never set back: no session is prolonged by that.
    SessionTime person_asked;  // when the server was
    SessionTime used, ends;
    approval::Time ends_at;  // for people
    std::string token;       // against requests that another site makes in their name
    std::shared_ptr<Proof> proof;
    // Lists that are being read for this session, and who waits for them: pages that ask again
    // meanwhile get the same.
    std::map<std::string, std::vector<std::function<void(const Response&)>>> lists;
    std::vector<std::weak_ptr<EventStream>> streams;

    std::size_t open_streams() const;
};

class Sessions {
public:
    explicit Sessions(SessionTerms terms) : terms_(terms) {}

    // A new one. Where there are too many, the one that was used longest ago is over. `cookie`:
    // what the browser will show; `token`: see Session. Both random. All sessions of a role share
    // the newest proof, so that a person takes one connection of the server's.
    std::shared_ptr<Session> open(std::string_view cookie, std::string token, std::string role,
                                  Admission admission, SessionTime now, approval::Time wall_now);
    // The session of this cookie, which counts as used now; null: there is none (any more).
    std::shared_ptr<Session> find(std::string_view cookie, SessionTime now);
    // It is over; its pages are told why.
    void end(const std::shared_ptr<Session>& session, std::string_view why);
    // Ends those whose time is over.
    void sweep(SessionTime now);

    // A stream for a page of this session; null: too many are open.
    std::shared_ptr<EventStream> open_stream(Session& session);
    std::size_t open_streams() const;
    void for_each(const std::function<void(Session&)>& visit);
    std::size_t size() const { return by_hash_.size(); }

private:
    bool over(const Session& session, SessionTime now) const;
    void make_room(const std::string& role, const std::string& upstream);
    SessionTerms terms_;
    std::map<std::string, std::shared_ptr<Session>> by_hash_;
};

std::string sha256(std::string_view bytes);  // in hexadecimal

}  // namespace pgchaperone::web
