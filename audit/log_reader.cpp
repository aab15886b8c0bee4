#include "audit/log_reader.h"

#include <algorithm>
#include <utility>

namespace pgchaperone::audit {
namespace {

// Stays the same when the file gets another name.
std::string identity(const ListedFile& file) {
    if (!file.first) return file.path.string();
    return std::to_string(file.first->seq) + ':' + file.first->prev;
}

}  // namespace

LogReader::LogReader(std::filesystem::path log) : log_(std::move(log)), files_(list_log(log_)) {
    for (const ListedFile& file : files_) {
        if (file.first) end_ = std::max(end_.value_or(0), file.first->seq);
    }
    if (files_.empty()) problem_ = log_.string() + ": " + LineReader(log_).problem();
}

std::optional<std::string_view> LogReader::next() {
    while (problem_.empty() && (reader_ || open_next())) {
        auto line = first_line_ ? std::exchange(first_line_, std::nullopt) : reader_->next();
        if (line) {
            last_line_ = *line;
            return line;
        }
        close();
    }
    return std::nullopt;
}

void LogReader::close() {
    const LineReader::State state = reader_->state();
    if (state == LineReader::State::unreadable || state == LineReader::State::damaged)
        problem_ = path_.string() + ": " + reader_->problem();
    reader_.reset();
    const auto place = read_place(last_line_);
    last_seq_ = place ? std::optional(place->seq) : std::nullopt;
}

const ListedFile* LogReader::first_unread() const {
    const auto file = std::find_if(files_.begin(), files_.end(), [&](const ListedFile& one) {
        return (!one.first || one.first->seq <= *end_) && !read_.contains(identity(one));
    });
    return file == files_.end() ? nullptr : &*file;
}

bool LogReader::follows(const ListedFile& file) const {
    return read_.empty() || (last_seq_ && file.first && file.first->seq == *last_seq_ + 1);
}

// What was listed may have been renamed since, and another file have its name, or a file have come
// in between. So what does not fit is looked at anew before it is believed.
bool LogReader::open_next() {
    bool listed_now = false;
    for (;;) {
        const ListedFile* const file = first_unread();
        const bool surprising = file == nullptr ? gone_ : !follows(*file);
        if (surprising && !listed_now) {
            files_ = list_log(log_);
            listed_now = true;
            gone_ = false;
            continue;
        }
        if (file == nullptr) return false;
        if (open(*file)) return true;
        gone_ = true;
        listed_now = false;
        files_ = list_log(log_);
    }
}

// False where the file is not the one that was listed.
bool LogReader::open(const ListedFile& file) {
    path_ = file.path;
    reader_.emplace(path_);
    first_line_ = reader_->next();
    const auto place = first_line_ ? read_place(*first_line_) : std::nullopt;
    if (reader_->missing() || identity({path_, place}) != identity(file)) {
        reader_.reset();
        first_line_.reset();
        return false;
    }
    read_.insert(identity(file));
    return true;
}

}  // namespace pgchaperone::audit
