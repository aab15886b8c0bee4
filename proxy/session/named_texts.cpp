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

// What a name stands for that was kept without its text.
const policy::NamedTextPtr& not_kept() {
    static const policy::NamedTextPtr text = [] {
        auto out = std::make_shared<policy::NamedText>();
        out->facts.unparsable = {true,
                                 "it runs by name, and SQL has prepared or declared more in this "
                                 "session than pgchaperone keeps"};
        out->text = "(a text that was not kept: there were too many)";
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
        if (one.text == not_kept()) {
            --names_only_;
            continue;
        }
        --size_;
        bytes_ -= bytes_of(*one.text);
    }
    list.erase(std::remove_if(list.begin(), list.end(), condition), list.end());
    return list.empty() ? meanings_.erase(at) : std::next(at);
}

void NamedTexts::sent(policy::NamedTextPtr text, std::uint64_t sequence, Certainty certainty,
                      bool stays) {
    const std::uint64_t order = ++order_;
    if (waiting_.size() < waiting_max) waiting_.push_back({text->name, sequence, order, certainty});
    std::string name = text->name;
    const std::size_t bytes = bytes_of(*text);
    if (size_ < texts_max && bytes_ + bytes <= bytes_max) {
        ++size_;
        bytes_ += bytes;
    } else if (names_only_ < names_max && name.size() <= name_bytes_max) {
        ++names_only_;
        text = not_kept();
    } else {
        (stays ? lost_staying_ : lost_passing_) = sequence;
        return;
    }
    meanings_[std::move(name)].push_back({std::move(text), sequence, order, stays});
}

void NamedTexts::sent_end(std::string_view name, std::uint64_t sequence, Certainty certainty) {
    const std::uint64_t order = ++order_;
    if (waiting_.size() < waiting_max) {
        waiting_.push_back({std::string(name), sequence, order, certainty});
    }
}

std::vector<std::string> NamedTexts::settle(std::uint64_t sequence, bool ok) {
    std::vector<std::string> given;
    std::erase_if(waiting_, [&](const Waiting& one) {
        if (one.sequence > sequence) return false;
        // One that was passed over has been ignored by the server, and is kept as what it may be.
        if (one.sequence < sequence || one.certainty == Certainty::maybe) return true;
        if (ok) {
            const auto at = meanings_.find(one.name);
            if (at != meanings_.end()) {
                forget_if(at, [&](const Meaning& meaning) { return meaning.order < one.order; });
            }
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
