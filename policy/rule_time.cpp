#include "policy/rule_time.h"

#include <date/date.h>
#include <date/tz.h>

#include <algorithm>
#include <array>
#include <optional>
#include <sstream>

namespace pgchaperone::policy {
namespace {

constexpr std::array<std::string_view, 7> day_names = {"sunday",   "monday", "tuesday", "wednesday",
                                                       "thursday", "friday", "saturday"};

std::string lower_case(std::string_view text) {
    std::string out(text);
    for (char& c : out) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
    return out;
}

// "Mon", "monday": the day's number from Sunday.
std::optional<unsigned> day_number(std::string_view text) {
    const std::string word = lower_case(text);
    if (word.size() < 3) return std::nullopt;
    for (unsigned i = 0; i < day_names.size(); ++i) {
        if (word == day_names[i] || word == day_names[i].substr(0, 3)) return i;
    }
    return std::nullopt;
}

std::vector<std::string_view> split(std::string_view text, char separator) {
    std::vector<std::string_view> out;
    for (;;) {
        const auto at = text.find(separator);
        out.push_back(text.substr(0, at));
        if (at == std::string_view::npos) return out;
        text.remove_prefix(at + 1);
    }
}

std::optional<unsigned> days_of(std::string_view text, std::string& problem) {
    unsigned days = 0;
    for (const auto item : split(text, ',')) {
        const auto ends = split(item, '-');
        const auto first = day_number(ends.front());
        const auto last = day_number(ends.back());
        if (ends.size() > 2 || !first || !last) {
            problem = "\"" + std::string(item) +
                      "\" is not a day or a range of days; write Mon, Mon-Fri or Sat,Sun";
            return std::nullopt;
        }
        for (unsigned day = *first;; day = (day + 1) % 7) {
            days |= 1U << day;
            if (day == *last) break;
        }
    }
    return days;
}

std::optional<int> minute_of(std::string_view text) {
    const auto digit = [&](std::size_t i) { return text[i] >= '0' && text[i] <= '9'; };
    if (text.size() != 5 || text[2] != ':' || !digit(0) || !digit(1) || !digit(3) || !digit(4))
        return std::nullopt;
    const int hour = (text[0] - '0') * 10 + (text[1] - '0');
    const int minute = (text[3] - '0') * 10 + (text[4] - '0');
    if (minute > 59 || hour > 24 || (hour == 24 && minute != 0)) return std::nullopt;
    return hour * 60 + minute;
}

}  // namespace

struct TimeWindow::Zone {
    const date::time_zone* zone;
};

Parsed<TimeWindow> TimeWindow::parse(const std::vector<std::string>& spans, std::string_view zone) {
    TimeWindow window;
    window.given_ = spans;
    window.zone_name_ = zone.empty() ? "UTC" : std::string(zone);
    if (spans.empty())
        return PatternError{
            "a time window needs at least one span, such as \"Mon-Fri 08:00-18:00\""};
    for (const std::string& text : spans) {
        if (!window.text_.empty()) window.text_ += "; ";
        window.text_ += text;
        std::istringstream words(text);
        std::string word;
        unsigned days = 0x7f;
        bool any = false, hours = false;
        while (words >> word) {
            any = true;
            const bool is_hours = word.front() >= '0' && word.front() <= '9';
            if (!is_hours) {
                std::string problem;
                const auto parsed = days_of(word, problem);
                if (!parsed) return PatternError{problem};
                if (hours)
                    return PatternError{"in \"" + text + "\" the days must stand before the hours"};
                days = *parsed;
                continue;
            }
            for (const auto item : split(word, ',')) {
                const auto ends = split(item, '-');
                const auto from = minute_of(ends.front());
                auto until = minute_of(ends.back());
                if (ends.size() != 2 || !from || !until || *from == 1440) {
                    return PatternError{
                        "\"" + std::string(item) +
                        "\" is not a span of hours; write 08:00-18:00 or 22:00-06:00"};
                }
                if (*from == *until) {
                    return PatternError{"\"" + std::string(item) +
                                        "\" is empty; leave the hours out, or write 00:00-24:00, "
                                        "for the whole day"};
                }
                window.spans_.push_back({days, *from, *until < *from ? *until + 1440 : *until});
                hours = true;
            }
        }
        if (!any)
            return PatternError{
                "an empty span; write days and hours, such as \"Mon-Fri 08:00-18:00\""};
        if (!hours) window.spans_.push_back({days, 0, 1440});
    }
    if (!zone.empty() && lower_case(zone) != "utc") {
        try {
            window.zone_ = std::make_shared<const Zone>(Zone{date::locate_zone(std::string(zone))});
            window.text_ += " " + std::string(zone);
        } catch (const std::exception&) {
            return PatternError{
                "there is no time zone \"" + std::string(zone) +
                "\" on this machine; write UTC or a name such as Europe/Berlin (and see that the "
                "package tzdata is installed)"};
        }
    } else {
        window.text_ += " UTC";
    }
    return window;
}

TimeWindow::Answer TimeWindow::at(Time moment) const {
    using namespace std::chrono;
    const auto now = floor<seconds>(moment);
    seconds offset{0};
    auto zone_until = now + hours(24);
    if (zone_) {
        const auto info = zone_->zone->get_info(date::sys_seconds(now));
        offset = info.offset;
        zone_until = std::min(zone_until, info.end);
    }
    const auto local = now.time_since_epoch() + offset;
    const auto day = floor<date::days>(local);
    const long minute = static_cast<long>(floor<minutes>(local - day).count());
    const unsigned weekday = date::weekday{date::sys_days(day)}.c_encoding();
    const unsigned yesterday = (weekday + 6) % 7;

    Answer answer;
    long next = 1440;  // the minute of this day at which the answer can change
    for (const Span& span : spans_) {
        const auto edge = [&](long at) {
            if (at > minute) next = std::min(next, at);
        };
        if (span.days & (1U << weekday)) {
            answer.inside = answer.inside ||
                            (minute >= span.from_minute && minute < span.until_minute);
            edge(span.from_minute);
            edge(span.until_minute);
        }
        if (span.until_minute > 1440 && (span.days & (1U << yesterday))) {
            answer.inside = answer.inside || minute < span.until_minute - 1440;
            edge(span.until_minute - 1440);
        }
    }
    const auto edge = sys_seconds(seconds(day) + minutes(next) - offset);
    answer.from = moment;
    answer.until = std::min<Time>(edge, zone_until);
    return answer;
}

bool TimeWindow::contains(Time moment) const { return at(moment).inside; }

std::string TimeWindow::local_time(Time moment) const {
    using namespace std::chrono;
    const auto now = floor<seconds>(moment);
    const auto offset = zone_ ? zone_->zone->get_info(date::sys_seconds(now)).offset : seconds(0);
    const auto local = date::local_seconds(now.time_since_epoch() + offset);
    std::ostringstream out;
    out << date::format("%A %F %H:%M ", floor<minutes>(local))
        << (zone_ ? zone_->zone->name() : "UTC");
    return out.str();
}

Parsed<std::chrono::system_clock::time_point> parse_time(std::string_view text) {
    const PatternError wrong{
        "\"" + std::string(text) +
        "\" is not a time; write 2026-03-01T22:15 (UTC), with Z or an offset such as +01:00 "
        "if you like"};
    std::string copy(text);
    if (copy.size() > 10 && copy[10] == ' ') copy[10] = 'T';
    if (!copy.empty() && (copy.back() == 'Z' || copy.back() == 'z')) copy.back() = 'Z';
    for (const char* format : {"%FT%H:%M:%S%Ez", "%FT%H:%M%Ez", "%FT%H:%M:%SZ", "%FT%H:%MZ",
                               "%FT%H:%M:%S", "%FT%H:%M", "%F"}) {
        std::istringstream in(copy);
        date::sys_time<std::chrono::milliseconds> time;
        in >> date::parse(format, time);
        if (!in.fail() && (in.peek() == std::char_traits<char>::eof())) return time;
    }
    return wrong;
}

}  // namespace pgchaperone::policy
