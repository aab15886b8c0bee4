#pragma once
// A log that is written for a test, on a disk that fails on command.

#include "files.h"

#include "audit/disk.h"
#include "audit/verify.h"
#include "audit/writer.h"
#include "support/catch.h"

#include <boost/json.hpp>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

namespace pgchaperone::test {

using namespace pgchaperone::audit;

// Fails on command, and can be made to hang.
class FaultyDisk : public Disk {
public:
    std::atomic<int> write_error = 0;
    std::atomic<int> sync_error = 0;
    std::atomic<int> truncate_error = 0;
    std::atomic<int> rename_error = 0;
    std::atomic<std::size_t> write_at_most = SIZE_MAX;  // a short write, then the error
    std::atomic<int> syncs = 0;
    std::atomic<bool> hangs = false;  // somebody waits for it

    ssize_t write(int file, const char* bytes, std::size_t size) override {
        wait_while_held();
        if (write_error != 0 && written_before_error_) {
            written_before_error_ = false;
            errno = write_error;
            return -1;
        }
        const std::size_t limit = write_at_most;
        if (write_error != 0 && limit == SIZE_MAX) {
            errno = write_error;
            return -1;
        }
        written_before_error_ = write_error != 0;
        return Disk::write(file, bytes, std::min(size, limit));
    }
    int fdatasync(int file) override {
        ++syncs;
        if (sync_error != 0) {
            errno = sync_error;
            return -1;
        }
        return Disk::fdatasync(file);
    }
    int ftruncate(int file, off_t size) override {
        if (truncate_error != 0) {
            errno = truncate_error;
            return -1;
        }
        return Disk::ftruncate(file, size);
    }
    int rename(const char* from, const char* to) override {
        if (rename_error != 0) {
            errno = rename_error;
            return -1;
        }
        return Disk::rename(from, to);
    }
    void hold() {
        const std::lock_guard lock(mutex_);
        held_ = true;
    }
    void release() {
        const std::lock_guard lock(mutex_);
        held_ = false;
        changed_.notify_all();
    }

private:
    void wait_while_held() {
        std::unique_lock lock(mutex_);
        hangs = held_;
        changed_.wait(lock, [this] { return !held_; });
        hangs = false;
    }
    bool written_before_error_ = false;
    std::mutex mutex_;
    std::condition_variable changed_;
    bool held_ = false;
};

// A writer with its completions and notices collected.
struct Log {
    std::mutex mutex;
    std::condition_variable arrived;
    std::map<std::uint64_t, std::string> completed;  // token, problem
    std::vector<std::uint64_t> order;
    int reported_twice = 0;
    std::chrono::system_clock::time_point time;  // of the records
    std::vector<std::string> notices;
    std::unique_ptr<Writer> writer;

    WriterOptions options(const std::filesystem::path& file, Disk* disk) {
        WriterOptions made;
        made.file = file;
        made.disk = disk;
        made.on_completion = [this](std::span<const Completion> completions) {
            const std::lock_guard lock(mutex);
            for (const Completion& one : completions) {
                // Catch's own checks are for one thread.
                reported_twice += completed.emplace(one.token, one.problem).second ? 0 : 1;
                order.push_back(one.token);
            }
            arrived.notify_all();
        };
        made.on_notice = [this](std::string_view text) {
            const std::lock_guard lock(mutex);
            notices.emplace_back(text);
            arrived.notify_all();
        };
        return made;
    }
    explicit Log(const std::filesystem::path& file, Disk* disk = nullptr)
        : writer(Writer::open(options(file, disk)).value()) {}
    Log(const std::function<WriterOptions(WriterOptions)>& change,
        const std::filesystem::path& file, Disk* disk = nullptr)
        : writer(Writer::open(change(options(file, disk))).value()) {}

    Submitted submit(std::uint64_t token, const std::string& statement = "DELETE FROM t") {
        Record record;
        record.statement = statement;
        record.session = token;
        record.time = time;
        return writer->submit(std::move(record), token);
    }
    std::string outcome(std::uint64_t token) {
        std::unique_lock lock(mutex);
        REQUIRE(arrived.wait_for(lock, std::chrono::seconds(20),
                                 [&] { return completed.contains(token); }));
        return completed[token];
    }
    // Submits and waits: the problem, or nothing.
    std::string store(std::uint64_t token, const std::string& statement = "DELETE FROM t") {
        REQUIRE(submit(token, statement) == Submitted::accepted);
        return outcome(token);
    }
    // That it comes, so many times.
    bool has_notices(const std::string& part, std::ptrdiff_t times) {
        const auto is_one = [&](const std::string& one) {
            return one.find(part) != std::string::npos;
        };
        std::unique_lock lock(mutex);
        return arrived.wait_for(lock, std::chrono::seconds(20), [&] {
            return std::count_if(notices.begin(), notices.end(), is_one) >= times;
        });
    }
    bool has_notice(const std::string& part) { return has_notices(part, 1); }
    std::string all_notices() {
        const std::lock_guard lock(mutex);
        std::string text;
        for (const std::string& one : notices) text += one + "\n";
        return text;
    }
};

inline boost::json::object object_of(const std::string& line) {
    return boost::json::parse(line).as_object();
}

inline std::string event_of(const std::string& line) {
    return std::string(object_of(line).at("event").as_string().c_str());
}

inline void check_intact(const std::filesystem::path& file, std::uint64_t lines) {
    const Verification result = verify(file);
    INFO(result.line << ": " << result.problem);
    CHECK(result.outcome == Verification::Outcome::intact);
    CHECK(result.lines == lines);
}

}  // namespace pgchaperone::test
