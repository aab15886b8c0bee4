#include "web/sessions.h"

#include "web/json_out.h"

#include <openssl/evp.h>

#include <algorithm>
#include <array>
#include <functional>
#include <stdexcept>
#include <utility>

namespace pgchaperone::web {

std::string sha256(std::string_view bytes) {
    std::array<unsigned char, EVP_MAX_MD_SIZE> hash{};
    unsigned size = 0;
    if (EVP_Digest(bytes.data(), bytes.size(), hash.data(), &size, EVP_sha256(), nullptr) != 1) {
        throw std::runtime_error("OpenSSL has no SHA-256");
    }
    constexpr std::string_view digits = "0123456789abcdef";
    std::string out;
    for (unsigned i = 0; i < size; ++i) {
        out += digits[hash[i] >> 4];
        out += digits[hash[i] & 15];
    }
    return out;
}

namespace {
bool same_login(const approval::Person& one, const approval::Person& other) {
    return approval::surely_same_person(one, other);
}
}  // namespace

std::size_t Session::open_streams() const {
    return static_cast<std::size_t>(
        std::count_if(streams.begin(), streams.end(), [](const std::weak_ptr<EventStream>& one) {
            const auto stream = one.lock();
            return stream && !stream->over();
        }));
}

bool Sessions::over(const Session& session, SessionTime now) const {
    return now >= session.ends ||
           (now >= session.used + terms_.idle && session.open_streams() == 0);
}

std::shared_ptr<Session> Sessions::open(std::string_view cookie, std::string token,
                                        std::string role, Admission admission, SessionTime now,
                                        approval::Time wall_now) {
    sweep(now);
    make_room(role, admission.known.person->upstream);
    auto session = std::make_shared<Session>();
    session->role = std::move(role);
    session->person = *std::move(admission.known.person);
    session->person_asked = now;
    session->token = std::move(token);
    session->used = now;
    session->ends = now + terms_.life;
    session->ends_at = wall_now + terms_.life;
    session->proof = std::move(admission.proof);
    for (const auto& [hash, other] : by_hash_) {
        if (other->role == session->role && same_login(other->person, session->person)) {
            other->proof = session->proof;
        }
    }
    by_hash_[sha256(cookie)] = session;
    return session;
}

// Where there are too many of one role, or of all, the one that was used longest ago goes.
void Sessions::make_room(const std::string& role, const std::string& upstream) {
    std::size_t of_role = 0;
    std::shared_ptr<Session> oldest, oldest_of_role;
    const auto older = [](const std::shared_ptr<Session>& one, std::shared_ptr<Session>& than) {
        if (!than || one->used < than->used) than = one;
    };
    for (const auto& [hash, session] : by_hash_) {
        older(session, oldest);
        if (session->role != role || session->person.upstream != upstream) continue;
        ++of_role;
        older(session, oldest_of_role);
    }
    if (of_role >= terms_.sessions_of_a_role_max) {
        end(oldest_of_role, "you have logged in too often elsewhere");
    } else if (by_hash_.size() >= terms_.sessions_max) {
        end(oldest, "too many people have logged in");
    }
}

std::shared_ptr<Session> Sessions::find(std::string_view cookie, SessionTime now) {
    if (cookie.empty()) return nullptr;
    const auto found = by_hash_.find(sha256(cookie));
    if (found == by_hash_.end()) return nullptr;
    const std::shared_ptr<Session> session = found->second;
    if (over(*session, now)) {
        end(session, "its time is over");
        return nullptr;
    }
    session->used = now;
    return session;
}

void Sessions::end(const std::shared_ptr<Session>& session, std::string_view why) {
    JsonOut data;
    data.open('{').text("why", why).close('}');
    const std::string text = std::move(data).take();
    for (const auto& one : std::exchange(session->streams, {})) {
        if (const auto stream = one.lock()) stream->end("over", text);
    }
    session->proof.reset();
    std::erase_if(by_hash_, [&](const auto& entry) { return entry.second == session; });
}

void Sessions::sweep(SessionTime now) {
    std::vector<std::shared_ptr<Session>> gone;
    for (const auto& [hash, session] : by_hash_) {
        if (over(*session, now)) {
            gone.push_back(session);
        } else if (session->open_streams() > 0) {
            session->used = now;  // an open page is a use
        }
    }
    for (const auto& session : gone) end(session, "its time is over");
}

std::shared_ptr<EventStream> Sessions::open_stream(Session& session) {
    std::erase_if(session.streams, [](const auto& one) { return one.expired(); });
    if (session.open_streams() >= terms_.streams_of_a_session_max ||
        open_streams() >= terms_.streams_max) {
        return nullptr;
    }
    auto stream = std::make_shared<EventStream>();
    session.streams.push_back(stream);
    return stream;
}

std::size_t Sessions::open_streams() const {
    std::size_t count = 0;
    for (const auto& [hash, session] : by_hash_) count += session->open_streams();
    return count;
}

void Sessions::for_each(const std::function<void(Session&)>& visit) {
    for (const auto& [hash, session] : by_hash_) visit(*session);
}

}  // namespace pgchaperone::web
