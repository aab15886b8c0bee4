#pragma once
// A hook: who is to be told of what happens to tickets, and how. Values, as the configuration has
// read and checked them. Knows no configuration file, no network and no clock.

#include "approval/happened.h"

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace pgchaperone::webhook {

// How a message's body is made. `json`: the documented object; `slack`: what incoming webhooks of
// Slack and Mattermost take; `text`: the hook's own template.
enum class Format : std::uint8_t { json, slack, text };
std::span<const std::string_view> format_names();  // in their order

using Event = approval::Happened::Kind;
std::span<const std::string_view> event_names();  // likewise
std::string_view event_name(Event event);

inline constexpr std::string_view json_content = "application/json";
inline constexpr std::string_view plain_content = "text/plain";

struct Hook {
    std::string name;
    std::string url;
    Format format = Format::json;
    std::string text;  // the template of Format::text
    std::string content_type{json_content};
    std::vector<Event> events{Event::opened, Event::decided, Event::expired, Event::glass};
    // Keys of the signature, the newest first: every one of them signs. None: nothing is signed.
    std::vector<std::string> keys;
    // Files that the keys come from, for the warning that others can read them.
    std::vector<std::filesystem::path> key_files;
    std::vector<std::pair<std::string, std::string>> headers;
    bool statement = false;    // the statement goes out, too
    std::filesystem::path ca;  // authorities that may sign the receiver's certificate; empty: the
                               // system's
    std::chrono::milliseconds timeout{10'000};
    std::chrono::milliseconds retry_for{3'600'000};  // since the message was made; 0: one attempt

    bool wants(Event event) const;
    bool operator==(const Hook&) const = default;
};

// What only the host knows of a message.
struct Envelope {
    std::string id;  // names the message; the same whenever and wherever it is sent
    approval::Time time;
    std::string replica;
    std::string page_url;  // of the page on tickets; empty: there is none
};

}  // namespace pgchaperone::webhook
