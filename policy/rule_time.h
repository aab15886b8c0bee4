#pragma once
// Time windows: days of the week and hours in a time zone. No clock: the moment is given.

#include "policy/rule_pattern.h"

#include <chrono>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace pgchaperone::policy {

class TimeWindow {
public:
    using Time = std::chrono::system_clock::time_point;

    // Each span is `[days] [hours]`, such as "Mon-Fri 08:00-18:00", "Sat,Sun" or "22:00-06:00".
    // Hours that end before they begin run into the next day. `zone` is a name of the IANA
    // database; "UTC" needs none.
    static Parsed<TimeWindow> parse(const std::vector<std::string>& spans, std::string_view zone);

    bool contains(Time moment) const;

    // The same, with the time from which and until which the answer is known to be so.
    struct Answer {
        bool inside = false;
        Time from = Time::max();
        Time until = Time::min();
    };
    Answer at(Time moment) const;

    const std::string& text() const { return text_; }  // for people
    const std::vector<std::string>& spans() const { return given_; }
    const std::string& zone() const { return zone_name_; }
    bool operator==(const TimeWindow& other) const { return text_ == other.text_; }

    // What the clock on the wall of the zone shows: "Tuesday 17:45 Europe/Berlin".
    std::string local_time(Time moment) const;

private:
    struct Span {
        unsigned days = 0;        // bit 0: Sunday
        int from_minute = 0;      // of the day
        int until_minute = 1440;  // up to 2880 where it runs into the next day
    };
    struct Zone;  // hides the time zone library

    std::string text_;
    std::vector<std::string> given_;
    std::string zone_name_;
    std::vector<Span> spans_;
    std::shared_ptr<const Zone> zone_;  // null: UTC
};

// Reads a moment as people write it: 2026-03-01T22:15, "2026-03-01 22:15", with seconds and with Z
// or an offset (+01:00) if wanted; without either it is UTC.
Parsed<std::chrono::system_clock::time_point> parse_time(std::string_view text);

}  // namespace pgchaperone::policy
