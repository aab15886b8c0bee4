#pragma once
// The audit log as a file of JSON Lines, written by a thread of its own. Any thread submits
// records; the writer writes what has come together, flushes it to the disk once, and then says so
// for each. Knows no session and no policy.
//
// Invariants:
// - a record that was reported as stored is on the disk, whole;
// - a record that was reported as refused left nothing behind in the file, not even half a line;
// - `seq` rises by one from line to line and `prev` is the SHA-256 of the line before, also across
//   restarts and rotation, whoever does it: audit/verify.h sees a gap or an edit;
// - one process writes a file, or several that take turns: while one takes over from another. Of
//   these one is in charge, which rotates the file and sees to old ones.
//
// While the disk refuses it tries by itself now and then, so that it is known when that is over
// also where nobody dares to ask for a record any more. A disk that hangs holds the writer's thread
// with it; a second thread, which never touches the disk, looks at how long records wait.

#include "audit/chain.h"
#include "audit/event.h"
#include "audit/log_file.h"
#include "audit/record.h"
#include "audit/signature.h"
#include "audit/turn.h"
#include "metrics/histogram.h"

#include <boost/system/result.hpp>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace pgchaperone::audit {

// What became of a submission.
struct Completion {
    std::uint64_t token = 0;  // as given to submit()
    // Empty: on the disk. Else why not: "cannot write audit.jsonl: No space left on device".
    std::string problem;
    bool stored() const noexcept { return problem.empty(); }
};

struct WriterOptions {
    std::filesystem::path file;
    // Called on the writer's thread, once for each batch. Must not block and must not call the
    // writer's destructor.
    std::function<void(std::span<const Completion>)> on_completion;
    // Sentences for the operator: trouble begins, trouble is over, a torn line was set aside.
    // Called on threads of the writer, at the same time even, and by open() on the caller's. May be
    // empty.
    std::function<void(std::string_view)> on_notice;
    // The last line there is, told outside the log when a file is opened, left or closed: who
    // rewrites the log does not reach what was told. Called as on_notice is. May be empty.
    std::function<void(const ChainPoint&)> on_stand;
    // Whole lines that are on the disk now, of records and of the log's own events. Called on the
    // writer's thread, and by open(); must not block. May be empty.
    std::function<void(std::string_view)> on_lines;
    // Longer statements are cut; their length and SHA-256 are then told.
    std::size_t statement_limit_bytes = 64 * 1024;
    // Written by open(), ahead of all records; where the disk refuses them, ahead of the first that
    // it takes.
    std::vector<Event> at_start;
    // Written by close(), behind all records.
    std::vector<Event> at_end;
    // What may wait for the disk. A record that does not fit is not taken (but one always is when
    // nothing waits).
    std::size_t queue_limit_records = 65'536;
    std::size_t queue_limit_bytes = 64 * 1024 * 1024;
    // Where a record waits for longer, the writer does not keep up, and says so; 0: never.
    std::chrono::milliseconds patience{0};
    // The file becomes an old one when it is so large, or when a multiple of the time has passed
    // since 1970 (1d: at midnight UTC); 0: never. What is in the file counts, not when it was made.
    std::uint64_t rotate_bytes = 0;
    std::chrono::milliseconds rotate_every{0};
    // What becomes of old files: audit/packer.h.
    bool compress_old = false;
    std::size_t keep_old = 0;
    // Signs checkpoints: after so many lines, a minute after the first line that none speaks for,
    // at rotation and at close. Null: none.
    std::shared_ptr<const Key> checkpoint_key;
    std::uint64_t checkpoint_every = 1000;
    // For notices: what comes of a record that is refused.
    std::string_view when_refused = "statements that need a record can't run until this is mended";
    // What Writer::share() of another process gave: the log is written with it in turn, and this
    // one is not in charge before it is told so. Null: nobody else writes it.
    std::shared_ptr<Turn> turn;
    // How long another one may take with its turn.
    std::chrono::milliseconds turn_patience{5'000};
    // How long close_in_time() waits for the disk.
    std::chrono::milliseconds farewell{5'000};
    // For the time of the writer's own lines and of rotation. Empty: the system's clock.
    std::function<std::chrono::system_clock::time_point()> clock;
    // Not owned; null: the real one.
    Disk* disk = nullptr;
};

enum class Submitted : std::uint8_t {
    accepted,  // there will be a completion
    full,      // too much waits already: not taken, no completion
    closed,    // close() was called: not taken, no completion
};

class Writer {
public:
    // Opens (or makes, mode 0600) the file, takes its lock, continues its chain and starts the
    // thread.
    static boost::system::result<std::unique_ptr<Writer>, OpenError> open(WriterOptions options);

    // Closes.
    ~Writer();
    Writer(const Writer&) = delete;
    Writer& operator=(const Writer&) = delete;

    // From any thread; does not wait for the disk. Several records are taken, written and reported
    // together, with one completion: all of them are in the file, or none is.
    Submitted submit(std::vector<Record> records, std::uint64_t token);
    Submitted submit(Record record, std::uint64_t token);
    // The same for events, which count as no records.
    Submitted submit(std::vector<Event> events, std::uint64_t token);

    // After the file was renamed (rotation) or on SIGHUP: the next record goes to a file of the
    // configured name, and the chain goes on in it. Where that can't be opened the old file stays
    // in use and on_notice says why.
    void reopen();

    // From now on another process may write the file as well, if it is given what this gives.
    // Called again it gives the same. Waits for what is being written, for as long as a turn may
    // take at most: a disk that hangs is an error then, and nothing is shared.
    boost::system::result<std::shared_ptr<Turn>, OpenError> share();
    // The others have ended, or will soon: as soon as nobody else has the file open it is this
    // writer's alone again. Does not wait.
    void share_no_more();
    bool shared() const;
    // Whether this one rotates the file and sees to old ones. Does not wait.
    void take_charge(bool in_charge);

    // Since it was opened.
    struct Stats {
        std::uint64_t records = 0;                 // on the disk
        std::uint64_t refused = 0;                 // by the disk, or since too many waited
        std::uint64_t checkpoints = 0;             // signed
        std::size_t waiting = 0;                   // for the disk, now
        std::chrono::nanoseconds oldest_waits{0};  // how long the first of these has by now
        // The disk refused the last that it was given, or does not keep up.
        bool failing = false;
        // It does not: a record waits for longer than the patience, or so many that one was
        // refused.
        bool behind = false;
    };
    Stats stats() const;
    // From submission to the disk.
    metrics::Distribution times_to_disk() const;

    // Where the chain stands: worth noting elsewhere, since the file alone cannot show that its end
    // was cut off.
    ChainPoint head() const;

    // Writes what waits, reports it, and ends the thread. Nothing is taken from then on.
    void close();
    // The same, but where the disk hangs for longer than the farewell it says so and gives up:
    // false. Nothing more was reported as stored then. The thread still waits for the disk, so that
    // nobody may end this writer, nor use what it calls; what is left is to end the process.
    bool close_in_time();

private:
    struct Impl;
    explicit Writer(std::unique_ptr<Impl> impl);
    std::unique_ptr<Impl> impl_;
};

}  // namespace pgchaperone::audit
