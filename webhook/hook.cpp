#include "webhook/hook.h"

#include <algorithm>
#include <array>

namespace pgchaperone::webhook {

std::span<const std::string_view> format_names() {
    static constexpr std::array<std::string_view, 3> names = {"json", "slack", "template"};
    return names;
}

std::span<const std::string_view> event_names() {
    static constexpr std::array<std::string_view, 8> names = {
        "opened", "voted", "decided", "expired", "withdrawn", "used", "glass", "finished"};
    static_assert(static_cast<std::size_t>(Event::finished) + 1 == names.size());
    return names;
}

std::string_view event_name(Event event) { return event_names()[static_cast<std::size_t>(event)]; }

bool Hook::wants(Event event) const {
    return std::find(events.begin(), events.end(), event) != events.end();
}

}  // namespace pgchaperone::webhook
