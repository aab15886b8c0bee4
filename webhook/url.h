#pragma once
// The address of a receiver, read as the library reads it that will connect there. Pure: nothing is
// looked up. No text given here holds more of the URL than its host: the rest may be a secret.

#include <optional>
#include <string>

namespace pgchaperone::webhook {

struct Url {
    std::string host;  // "hooks.slack.com", "127.0.0.1:8080": all of it that may be told
    bool tls = false;
    bool loopback = false;  // this machine's own
};
// Nothing, and in `problem` what is wrong: it is no URL, or not of the kind that a hook takes (http
// or https, a host, no user or password).
std::optional<Url> url_of(const std::string& text, std::string& problem);
// All of it that may be told: https://hooks.slack.com
std::string origin_of(const std::string& text);

}  // namespace pgchaperone::webhook
