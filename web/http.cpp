#include "web/http.h"

#include "web/problem.h"

#include <boost/beast/core/buffers_to_string.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/serializer.hpp>
#include <boost/beast/http/string_body.hpp>

#include <algorithm>
#include <array>
#include <optional>
#include <utility>

namespace pgchaperone::web {

namespace beast = boost::beast;
namespace http = boost::beast::http;

namespace {

std::string small(std::string_view text) {
    std::string out(text);
    for (char& c : out) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
    return out;
}

constexpr std::string_view end_of_head = "\r\n\r\n";

int digit(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
}

// How many bytes the character has that begins here; 0: it is none, or a control character.
std::size_t character_bytes(std::string_view text) {
    const auto byte = [&](std::size_t i) {
        return i < text.size() ? static_cast<unsigned char>(text[i]) : 0u;
    };
    const unsigned first = byte(0);
    if (first < 0x80) return first < 0x20 || first == 0x7F ? 0 : 1;
    const std::size_t size = first >= 0xF0 ? 4 : first >= 0xE0 ? 3 : 2;
    if (first < 0xC2 || first > 0xF4) return 0;
    for (std::size_t i = 1; i < size; ++i) {
        if ((byte(i) & 0xC0) != 0x80) return 0;
    }
    const unsigned second = byte(1);
    const bool overlong = (first == 0xE0 && second < 0xA0) || (first == 0xF0 && second < 0x90);
    const bool surrogate = first == 0xED && second > 0x9F;
    const bool beyond = first == 0xF4 && second > 0x8F;
    return overlong || surrogate || beyond ? 0 : size;
}

Method method_of(http::verb verb) {
    switch (verb) {
        case http::verb::get: return Method::get;
        case http::verb::head: return Method::head;
        case http::verb::post: return Method::post;
        case http::verb::delete_: return Method::remove;
        default: return Method::other;
    }
}

}  // namespace

std::string_view Request::header(std::string_view name) const {
    const auto found = std::find_if(headers.begin(), headers.end(),
                                    [&](const auto& header) { return header.first == name; });
    return found == headers.end() ? std::string_view() : found->second;
}

std::string_view Request::cookie(std::string_view name) const {
    for (const auto& [key, value] : headers) {
        if (key != "cookie") continue;
        for (std::string_view rest = value; !rest.empty();) {
            const auto end = std::min(rest.find(';'), rest.size());
            std::string_view one = rest.substr(0, end);
            rest.remove_prefix(std::min(end + 1, rest.size()));
            while (one.starts_with(' ')) one.remove_prefix(1);
            if (one.starts_with(name) && one.substr(name.size()).starts_with('=')) {
                return one.substr(name.size() + 1);
            }
        }
    }
    return {};
}

std::optional<std::string> Request::parameter(std::string_view name) const {
    for (std::string_view rest = query; !rest.empty();) {
        const auto end = std::min(rest.find('&'), rest.size());
        const std::string_view one = rest.substr(0, end);
        rest.remove_prefix(std::min(end + 1, rest.size()));
        const auto equals = std::min(one.find('='), one.size());
        if (one.substr(0, equals) != name) continue;
        return decoded(one.substr(std::min(equals + 1, one.size())));
    }
    return std::nullopt;
}

std::optional<std::string> decoded(std::string_view text) {
    std::string out;
    for (std::size_t i = 0; i < text.size(); ++i) {
        if (text[i] != '%') {
            out += text[i];
            continue;
        }
        const int high = i + 2 < text.size() ? digit(text[i + 1]) : -1;
        const int low = i + 2 < text.size() ? digit(text[i + 2]) : -1;
        if (high < 0 || low < 0) return std::nullopt;
        out += static_cast<char>(high * 16 + low);
        i += 2;
    }
    for (std::size_t i = 0; i < out.size();) {
        const std::size_t size = character_bytes(std::string_view(out).substr(i));
        if (size == 0) return std::nullopt;
        i += size;
    }
    return out;
}

std::string bytes_of(const Response& response, bool head_only, bool keep_alive) {
    http::response<http::string_body> message;
    message.version(11);
    message.result(response.status);
    for (const auto& [name, value] : response.headers) message.insert(name, value);
    if (!response.content_type.empty()) {
        message.set(http::field::content_type, response.content_type);
    }
    if (response.stream) {
        // It has no length: its end is the connection's.
        message.keep_alive(false);
    } else {
        message.keep_alive(keep_alive);
        if (response.status != 204 && response.status != 304) {
            message.content_length(response.body.size());
        }
        if (!head_only) message.body() = response.body;
    }
    http::response_serializer<http::string_body> serializer(message);
    serializer.split(head_only || response.stream != nullptr);
    std::string out;
    boost::system::error_code error;
    while (!serializer.is_done()) {
        std::size_t bytes = 0;
        serializer.next(error, [&](boost::system::error_code&, const auto& buffers) {
            out += beast::buffers_to_string(buffers);
            bytes = beast::buffer_bytes(buffers);
        });
        if (error) break;
        serializer.consume(bytes);
        if (serializer.is_header_done() && (head_only || response.stream)) break;
    }
    return out;
}

struct RequestReader::Parser {
    Parser() {
        message.header_limit(head_bytes_max);
        message.body_limit(body_bytes_max);
    }
    http::request_parser<http::string_body> message;
};

RequestReader::RequestReader() : parser_(std::make_unique<Parser>()) {}
RequestReader::~RequestReader() = default;

void RequestReader::feed(std::string_view bytes) { unread_.append(bytes); }

bool RequestReader::begun() const { return !unread_.empty() || parser_->message.got_some(); }

void RequestReader::refuse(unsigned status, const char* why) {
    broken_ = problem(status, why);
    unread_.clear();
}

// How many bytes the head has, once all of it is there; 0: it is not, or was refused. Beast would
// take it in parts, and refuse it sooner or later by how it was cut; and it limits what it is given
// at once, and not the whole.
std::size_t RequestReader::whole_head() {
    if (unread_.front() < 'A' || unread_.front() > 'Z') {
        refuse(400, "this is no HTTP request that can be understood");
        return 0;
    }
    const auto end = unread_.find(end_of_head);
    const std::string_view head = std::string_view(unread_).substr(0, end);
    if (head.find("\r\n ") != std::string_view::npos ||
        head.find("\r\n\t") != std::string_view::npos) {
        refuse(400, "a header goes on in another line");
        return 0;
    }
    if (std::min(end, unread_.size()) > head_bytes_max - end_of_head.size()) {
        refuse(431, "the head of the request is too long");
        return 0;
    }
    return end == std::string::npos ? 0 : end + end_of_head.size();
}

std::optional<Request> RequestReader::next() {
    while (!broken_ && !unread_.empty()) {
        std::size_t readable = unread_.size();
        const bool in_head = !parser_->message.is_header_done();
        if (in_head && (readable = whole_head()) == 0) return std::nullopt;
        boost::system::error_code error;
        const std::size_t used = parser_->message.put(boost::asio::buffer(unread_.data(), readable),
                                                      error);
        if (error == http::error::need_more && !in_head) {
            unread_.erase(0, used);
            return std::nullopt;
        }
        if (error == http::error::body_limit) {
            refuse(413, "the body of the request is too long");
            return std::nullopt;
        }
        if (error == http::error::header_limit || error == http::error::buffer_overflow) {
            refuse(431, "the head of the request is too long");
            return std::nullopt;
        }
        if (error) {
            refuse(400, "this is no HTTP request that can be understood");
            return std::nullopt;
        }
        unread_.erase(0, used);
        // Browsers say how long a body is, once. What else there is, is more than once read one way
        // by a proxy and another way behind it.
        const auto& head = parser_->message.get();
        if (head.count(http::field::transfer_encoding) > 0) {
            refuse(411, "the request does not say how long its body is");
            return std::nullopt;
        }
        if (head.count(http::field::content_length) > 1) {
            refuse(400, "the request says twice how long its body is");
            return std::nullopt;
        }
        if (parser_->message.is_done()) {
            Request request = take();
            if (broken_) return std::nullopt;
            return request;
        }
        if (used == 0) return std::nullopt;
    }
    return std::nullopt;
}

Request RequestReader::take() {
    auto message = parser_->message.release();
    parser_ = std::make_unique<Parser>();
    Request request;
    request.method = method_of(message.method());
    request.keep_alive = message.keep_alive();
    for (const auto& field : message.base()) {
        request.headers.emplace_back(
            small({field.name_string().data(), field.name_string().size()}),
            std::string(field.value()));
    }
    request.body = std::move(message.body());
    const std::string_view target(message.target().data(), message.target().size());
    const std::size_t mark = std::min(target.find('?'), target.size());
    request.query = target.substr(std::min(mark + 1, target.size()));
    auto path = decoded(target.substr(0, mark));
    if (!path || !path->starts_with('/')) {
        refuse(400, "the address of the request is none of this server's");
    } else {
        request.path = std::move(*path);
    }
    const auto hosts = std::count_if(request.headers.begin(), request.headers.end(),
                                     [](const auto& header) { return header.first == "host"; });
    if (message.version() != 11 && message.version() != 10) {
        refuse(505, "only HTTP/1.1 is spoken here");
    } else if (hosts != 1 && message.version() == 11) {
        refuse(400, "the request names no host, or several");
    }
    return request;
}

}  // namespace pgchaperone::web
