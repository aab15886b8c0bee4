#include "proxy/session/inlet.h"

#include <boost/assert.hpp>
#include <openssl/crypto.h>

#include <algorithm>
#include <utility>

namespace pgchaperone::session {

namespace {
constexpr std::size_t held_kept_bytes = 1024;
}

void Inlet::give(std::string_view bytes) {
    if (chunk_.empty()) {
        chunk_ = bytes;
        return;
    }
    // The host gives more although the last chunk is not used up: only possible after settle(),
    // with an empty chunk, or in tests that skip it.
    settle();
    chunk_ = bytes;
}

std::optional<std::string_view> Inlet::peek(std::size_t count) {
    const std::size_t held = held_.size() - held_position_;
    if (held == 0) {
        if (chunk_.size() < count) {
            wanted_ = count;
            return std::nullopt;
        }
        return chunk_.substr(0, count);
    }
    if (held < count) {
        if (held + chunk_.size() < count) {
            wanted_ = count;
            return std::nullopt;
        }
        // The run may point into held_, which is about to move.
        if (!run_.empty()) insert({});
        const std::size_t missing = count - held;
        held_.erase(0, std::exchange(held_position_, 0));
        held_.append(chunk_.substr(0, missing));
        chunk_.remove_prefix(missing);
    }
    return std::string_view(held_).substr(held_position_, count);
}

std::string_view Inlet::front_piece() const {
    if (held_position_ < held_.size()) return std::string_view(held_).substr(held_position_);
    return chunk_;
}

void Inlet::consume(std::size_t count) {
    const std::size_t held = held_.size() - held_position_;
    const std::size_t from_held = std::min(held, count);
    held_position_ += from_held;
    chunk_.remove_prefix(count - from_held);
}

void Inlet::forward(std::size_t count) {
    BOOST_ASSERT(count <= available());
    while (count > 0) {
        const std::string_view piece = front_piece().substr(0, count);
        if (!run_.empty() && run_.data() + run_.size() == piece.data()) {
            run_ = {run_.data(), run_.size() + piece.size()};
        } else {
            flush_run();
            run_ = piece;
        }
        consume(piece.size());
        count -= piece.size();
    }
}

void Inlet::discard(std::size_t count) {
    BOOST_ASSERT(count <= available());
    consume(count);
}

void Inlet::discard_wiped(std::size_t count) {
    const std::size_t copied = std::min(count, held_.size() - held_position_);
    OPENSSL_cleanse(held_.data() + held_position_, copied);
    discard(count);
}

void Inlet::discard_all() {
    held_position_ = held_.size();
    chunk_ = {};
}

void Inlet::flush_run() {
    if (run_.empty()) return;
    outputs_.push_back({{}, std::exchange(run_, {})});
}

void Inlet::insert(std::string bytes) {
    flush_run();
    // Views into held_ are copied here: held_ may move before they are taken.
    const char* const begin = held_.data();
    const char* const end = begin + held_.size();
    for (std::size_t i = taken_; i < outputs_.size(); ++i) {
        Bytes& output = outputs_[i];
        if (output.owned.empty() && output.view.data() >= begin && output.view.data() < end) {
            output.owned.assign(output.view);
        }
    }
    if (!bytes.empty()) outputs_.push_back({std::move(bytes), {}});
}

std::optional<Bytes> Inlet::take_output() {
    if (taken_ < outputs_.size()) return std::move(outputs_[taken_++]);
    outputs_.clear();
    taken_ = 0;
    if (run_.empty()) return std::nullopt;
    return Bytes{{}, std::exchange(run_, {})};
}

void Inlet::settle() {
    BOOST_ASSERT(!has_output());
    held_.erase(0, std::exchange(held_position_, 0));
    if (!chunk_.empty()) {
        if (held_.capacity() < wanted_) held_.reserve(wanted_);
        held_.append(chunk_);
        chunk_ = {};
    } else if (held_.empty() && held_.capacity() > held_kept_bytes) {
        std::string().swap(held_);
    }
    wanted_ = 0;
}

}  // namespace pgchaperone::session
