#include "audit/log_walk.h"

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

LogWalk::LogWalk(std::filesystem::path log) : log_(std::move(log)), files_(list_log(log_)) {
    for (const ListedFile& file : files_) {
        if (file.first) end_ = std::max(end_.value_or(0), file.first->seq);
    }
}

void LogWalk::list() {
    files_ = list_log(log_);
    at_ = 0;
}

const ListedFile* LogWalk::first_unread(std::optional<std::uint64_t> last_seq) const {
    // Mostly it is the next one.
    if (at_ > 0 && at_ < files_.size() && follows(files_[at_], last_seq) &&
        files_[at_].first->seq <= end_.value_or(0) && !read_.contains(identity(files_[at_]))) {
        return &files_[at_];
    }
    std::map<std::string, std::size_t> listed;
    for (const ListedFile& file : files_) {
        if (file.first && !(end_ && file.first->seq <= *end_)) continue;
        const std::string name = identity(file);
        const auto read = read_.find(name);
        if (++listed[name] > (read == read_.end() ? 0 : read->second)) return &file;
    }
    return nullptr;
}

bool LogWalk::follows(const ListedFile& file, std::optional<std::uint64_t> last_seq) const {
    return read_.empty() || (last_seq && file.first && file.first->seq == *last_seq + 1);
}

// What was listed may have been renamed since, and another file have its name, or one have come in
// between. So what does not fit is looked at anew before it is believed.
LineReader* LogWalk::next(std::optional<std::uint64_t> last_seq) {
    if (!std::exchange(begun_, true) && files_.empty()) {
        path_ = log_;
        return &reader_.emplace(path_);
    }
    bool listed_now = false;
    for (;;) {
        const ListedFile* const file = first_unread(last_seq);
        const bool surprising = file == nullptr ? gone_ : !follows(*file, last_seq);
        if (surprising && !listed_now) {
            list();
            listed_now = true;
            gone_ = false;
            continue;
        }
        if (file == nullptr) return nullptr;
        if (open(*file)) return &*reader_;
        list();
        gone_ = true;
        listed_now = false;
    }
}

// False where the file is not the one that was listed.
bool LogWalk::open(const ListedFile& file) {
    path_ = file.path;
    reader_.emplace(path_);
    const auto line = reader_->peek();
    const auto place = line ? read_place(*line) : std::nullopt;
    if (reader_->missing() || identity({path_, place}) != identity(file)) return false;
    ++read_[identity(file)];
    at_ = static_cast<std::size_t>(&file - files_.data()) + 1;
    return true;
}

}  // namespace pgchaperone::audit
