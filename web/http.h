#pragma once
// HTTP/1.1 as values: what a browser asks, what it is answered, and how one becomes bytes and the
// other comes out of bytes. Boost.Beast does the reading. Knows no socket, no clock and no page.
//
// Everything is bounded: a head of 16 KiB, a body of 64 KiB, one request at a time.

#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace pgchaperone::web {

inline constexpr std::size_t head_bytes_max = 16 * 1024;
inline constexpr std::size_t body_bytes_max = 64 * 1024;

enum class Method : std::uint8_t { get, head, post, remove, other };

struct Request {
    Method method = Method::get;
    std::string path;   // "/api/v1/tickets/B1": decoded, valid UTF-8, without controls
    std::string query;  // what stands behind the question mark, as sent
    std::vector<std::pair<std::string, std::string>> headers;  // names in small letters
    std::string body;
    bool keep_alive = true;
    std::string peer;  // by the host: who asks, as far as it can be known: "192.0.2.7"

    // The first of this name (in small letters); empty where there is none.
    std::string_view header(std::string_view name) const;
    // The cookie of this name; empty where there is none.
    std::string_view cookie(std::string_view name) const;
    // The value of `name=` in the query, decoded; nothing where there is none.
    std::optional<std::string> parameter(std::string_view name) const;
};

// Server-sent events that one page waits for. Used on one thread.
class EventStream;

struct Response {
    unsigned status = 200;
    std::vector<std::pair<std::string, std::string>> headers;  // besides those that all have
    std::string content_type;                                  // empty: there is no body
    std::string body;
    // The body goes on for as long as the page is open.
    std::shared_ptr<EventStream> stream;
};

// The whole of an answer, or only its head where the request was HEAD or a stream follows.
std::string bytes_of(const Response& response, bool head_only, bool keep_alive);

// "text" percent-decoded; nothing where that is wrong, or where what comes out is not UTF-8 or
// holds a control character.
std::optional<std::string> decoded(std::string_view text);

// Reads requests out of what a connection brings, however it is cut.
class RequestReader {
public:
    RequestReader();
    ~RequestReader();
    RequestReader(const RequestReader&) = delete;
    RequestReader& operator=(const RequestReader&) = delete;

    // Takes what came. Ask next() afterwards.
    void feed(std::string_view bytes);
    // The next whole request; nothing: more bytes are needed, or the connection is beyond
    // understanding: see broken().
    std::optional<Request> next();
    // The answer to what was no request. Nothing may be read after it.
    const std::optional<Response>& broken() const { return broken_; }
    // Whether part of a request has come.
    bool begun() const;

private:
    struct Parser;
    std::size_t whole_head();
    void refuse(unsigned status, const char* why);
    Request take();
    std::unique_ptr<Parser> parser_;
    std::string unread_;
    std::optional<Response> broken_;
};

}  // namespace pgchaperone::web
