#include "proxy/session/named_texts.h"

#include <algorithm>
#include <utility>

namespace pgchaperone::session {

namespace {

constexpr std::size_t name_bytes_max = 63;  // NAMEDATALEN - 1
// As many messages as may be on their way; one more is only kept for longer.
constexpr std::size_t waiting_max = 4096;

std::size_t bytes_of(const policy::NamedText& text) {
    constexpr std::size_t bytes_per_item = 64;
    return sizeof(text) + text.text.size() + policy::weight_of(text.facts) * bytes_per_item;
}

// What may be behind any name when something was not kept.
const policy::NamedTextPtr& not_kept() {
    static const policy::NamedTextPtr text = [] {
        auto out = std::make_shared<policy::NamedText>();
        out->facts.unparsable = {true,
                                 "it runs by name, and this session has given more names "
                                 "than pgchaperone keeps: DISCARD ALL forgets them"};
        out->text = "(perhaps another text: more names were given than are kept)";
        out->whole = false;
        return out;
    }();
    return text;
}

}  // namespace

bool certain_name(std::string_view name) {
    return name.size() < name_bytes_max && std::all_of(name.begin(), name.end(), [](char c) {
               return static_cast<unsigned char>(c) < 0x80;
           });
}

template <class Condition>
NamedTexts::Meanings::iterator NamedTexts::forget_if(Meanings::iterator at, Condition condition) {
    std::vector<Meaning>& list = at->second;
    for (const Meaning& one : list) {
        if (!condition(one)) continue;
        --size_;
        bytes_ -= bytes_of(*one.text);
    }
    list.erase(std::remove_if(list.begin(), list.end(), condition), list.end());
    return list.empty() ? meanings_.erase(at) : std::next(at);
}

void NamedTexts::sent(policy::NamedTextPtr text, std::uint64_t sequence, Certainty certainty,
                      bool stays) {
    if (waiting_.size() < waiting_max) waiting_.push_back({text->name, sequence, certainty});
    const std::size_t bytes = bytes_of(*text);
    if (size_ >= texts_max || bytes_ + bytes > bytes_max) {
        (stays ? lost_staying_ : lost_passing_) = sequence;
        return;
    }
    ++size_;
    bytes_ += bytes;
    std::string name = text->name;
    meanings_[std::move(name)].push_back({std::move(text), sequence, stays});
}

void NamedTexts::sent_end(std::string_view name, std::uint64_t sequence) {
    if (waiting_.size() < waiting_max) {
        waiting_.push_back({std::string(name), sequence, Certainty::alone});
    }
}

std::vector<std::string> NamedTexts::settle(std::uint64_t sequence, bool ok) {
    std::vector<std::string> given;
    std::erase_if(waiting_, [&](const Waiting& one) {
        if (one.sequence > sequence) return false;
        // One that was passed over has been ignored by the server, and is kept as what it may be.
        if (one.sequence < sequence || one.certainty == Certainty::maybe) return true;
        if (ok) {
            forget(one.name, sequence);
            given.push_back(one.name);
        } else if (one.certainty == Certainty::alone) {
            const auto at = meanings_.find(one.name);
            if (at != meanings_.end()) {
                forget_if(at, [&](const Meaning& meaning) { return meaning.sequence == sequence; });
            }
        }
        return true;
    });
    return given;
}

void NamedTexts::forget(std::string_view name, std::uint64_t sequence) {
    const auto at = meanings_.find(name);
    if (at == meanings_.end()) return;
    forget_if(at, [&](const Meaning& meaning) { return meaning.sequence < sequence; });
}

void NamedTexts::forget_all(std::uint64_t sequence) {
    for (auto at = meanings_.begin(); at != meanings_.end();) {
        at = forget_if(at, [&](const Meaning& one) { return one.sequence < sequence; });
    }
    if (lost_staying_ < sequence) lost_staying_.reset();
    if (lost_passing_ < sequence) lost_passing_.reset();
}

void NamedTexts::transaction_ended(std::uint64_t sequence) {
    for (auto at = meanings_.begin(); at != meanings_.end();) {
        at = forget_if(at,
                       [&](const Meaning& one) { return !one.stays && one.sequence <= sequence; });
    }
    if (lost_passing_ <= sequence) lost_passing_.reset();
}

std::vector<policy::NamedTextPtr> NamedTexts::find(std::string_view name) const {
    std::vector<policy::NamedTextPtr> out;
    const auto add = [&](const std::vector<Meaning>& list) {
        for (const Meaning& one : list) out.push_back(one.text);
    };
    if (certain_name(name)) {
        const auto at = meanings_.find(name);
        if (at != meanings_.end()) add(at->second);
    } else {
        for (const auto& [other, list] : meanings_) {
            if (!certain_name(other)) add(list);
        }
    }
    if (lost()) out.push_back(not_kept());
    return out;
}

}  // namespace pgchaperone::session
