#include "audit/writer.h"

#include "audit/disk.h"
#include "audit/line.h"
#include "audit/line_reader.h"
#include "audit/log_files.h"
#include "audit/packer.h"

#include <pthread.h>
#include <signal.h>

#include <algorithm>
#include <array>
#include <cassert>
#include <cerrno>
#include <condition_variable>
#include <mutex>
#include <optional>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

namespace pgchaperone::audit {
namespace {

// What goes to the disk in one write: large enough that a flush is shared by many, small enough
// that the first of them does not wait for long.
constexpr std::size_t batch_limit_bytes = 4 * 1024 * 1024;

// Where a rotation fails, the next is tried after so long. And so often at most it is looked
// whether it is time for one.
constexpr std::chrono::minutes rotation_pause{1};

// How long a line may wait for a checkpoint that speaks for it.
constexpr std::chrono::minutes checkpoint_pause{1};

// How often a disk that refuses is tried by ourselves.
constexpr std::chrono::seconds retry_pause{5};

// How often it is looked whether the others that shared the log have ended.
constexpr std::chrono::milliseconds alone_pause{200};

constexpr std::array<metrics::Nanoseconds, 12> time_bounds{
    std::chrono::microseconds(100), std::chrono::microseconds(250),  std::chrono::microseconds(500),
    std::chrono::milliseconds(1),   std::chrono::microseconds(2500), std::chrono::milliseconds(5),
    std::chrono::milliseconds(10),  std::chrono::milliseconds(25),   std::chrono::milliseconds(100),
    std::chrono::milliseconds(500), std::chrono::seconds(2),         std::chrono::seconds(10)};

struct Item {
    std::vector<Record> records;
    std::vector<Event> events;  // which count as no records
    std::uint64_t token = 0;
    std::size_t bytes = 0;
    std::chrono::steady_clock::time_point submitted;
};

// Where an empty file's chain goes on: behind the newest old file's last line. A crash in the
// middle of a rotation, or a rotation while nobody wrote, has left it so.
boost::system::result<ChainPoint, OpenError> point_before(const std::filesystem::path& log) {
    std::error_code ignored;
    if (std::filesystem::file_size(log, ignored) > 0 && !ignored) return ChainPoint{};
    std::vector<std::filesystem::path> old;
    std::optional<LineReader> reader;
    do {
        old = old_files(log);
        if (old.empty()) return ChainPoint{};
        reader.emplace(old.back());
        // Another process that shares the log may have compressed it just now.
    } while (reader->missing());
    std::string last;
    while (const auto line = reader->next()) last = *line;
    const auto place = read_place(last);
    const bool readable = reader->state() == LineReader::State::ended ||
                          reader->state() == LineReader::State::torn;
    if (readable && place) return ChainPoint{place->seq, sha_256_hex(last)};
    return OpenError{"cannot open the audit log " + log.string() + ": it goes on from " +
                     old.back().string() + ", of which the end can't be read" +
                     (reader->problem().empty() ? "" : ": " + reader->problem()) +
                     "; mend that file or move it away"};
}

std::size_t cost_bytes(const Record& record) {
    std::size_t bytes = sizeof(Record) + record.user.size() + record.database.size() +
                        record.client.size() + record.application.size() + record.protocol.size() +
                        record.statement.size() + record.command.size() + record.decision.size() +
                        record.rule.size() + record.reason.size() + record.upstream.size() +
                        record.outcome.size() + record.ticket.size() + record.comment.size();
    for (const TableRows& rows : record.effects) bytes += sizeof rows + rows.table.size();
    if (record.done)
        bytes += record.done->sqlstate.size() + record.done->tag.size() + record.done->ended.size();
    for (const auto* list :
         {&record.classes, &record.relations, &record.approved_by, &record.denied_by})
        for (const std::string& text : *list) bytes += sizeof(std::string) + text.size();
    if (record.parameters) {
        for (const auto& value : *record.parameters)
            bytes += sizeof value + (value ? value->size() : 0);
    }
    return bytes;
}

std::size_t cost_bytes(const Event& event) {
    std::size_t bytes = sizeof(Event);
    for (const EventMember& member : event.members)
        bytes += sizeof(EventMember) + member.value.size();
    return bytes;
}

}  // namespace

struct Writer::Impl {
    explicit Impl(WriterOptions options_) : options(std::move(options_)) {
        if (!options.disk) options.disk = &real_disk;
        if (!options.clock) options.clock = &std::chrono::system_clock::now;
    }

    Submitted submit(std::vector<Record> records, std::vector<Event> events, std::uint64_t token);
    std::string open_first();
    std::string open_file();
    std::string open_shared();
    std::string open_next(const LogFile::Stand& stand);
    std::string settle(const LogFile::Stand& stand);
    void start();
    void run();
    void do_what_is_told();
    void start_sharing();
    void try_to_be_alone();
    void charge(bool to);
    std::string take_turn();
    std::string catch_up();
    void give_turn();
    // Works in a turn of its own; where that is not to be had, nothing is done.
    void in_turn(const std::function<void()>& work) {
        if (!take_turn().empty()) return;
        work();
        give_turn();
    }
    void tell_stand() const {
        if (options.on_stand && file->head().seq > 0) options.on_stand(file->head());
    }
    void note_stand() const {
        if (turn) turn->note(file->stand(), file->leftover());
    }
    void reopen_file();
    bool rotation_is_due() const;
    void rotate();
    std::string rotate_file();
    std::chrono::milliseconds until_rotation() const;
    std::optional<std::chrono::milliseconds> longest_sleep() const;
    bool has_unsigned(const ChainPoint& head) const {
        return options.checkpoint_key && head.seq >= unsigned_from;
    }
    bool checkpoint_is_due();
    void sign_what_waits(bool at_once);
    void try_again();
    void store(std::vector<Item>& items);
    std::size_t store_batch(std::vector<Item>& items, std::size_t begin);
    std::string write_batch(const std::vector<Item>& items, std::size_t begin, std::size_t& end);
    std::string append_event_of_torn_tail();
    void append_events_of_start();
    void append_events_of_end();
    std::string append(std::string_view lines, const ChainPoint& head);
    void note_trouble(const std::string& problem, std::size_t refused);
    void watch();
    std::optional<std::chrono::steady_clock::time_point> oldest() const;
    bool is_overdue(std::chrono::steady_clock::time_point now) const;
    bool is_crowded() const;
    std::string words_of_delay() const;
    std::string words_of_catching_up();
    void publish_head();
    void notice(const std::string& text) const {
        if (options.on_notice) options.on_notice(text);
    }

    WriterOptions options;
    Disk real_disk;

    // The writer's thread only (and open_first, before there is one).
    std::unique_ptr<LogFile> file;
    std::string trouble;                      // empty while the disk takes what it is given
    std::uint64_t refused_records = 0;        // of which the log does not tell yet
    std::optional<LogFile::Changed> changed;  // and not yet told in the log
    std::vector<Event> untold;                // that the log has not taken yet
    // When the file's first line was made; nothing while it has none.
    std::optional<std::chrono::system_clock::time_point> begun;
    std::chrono::system_clock::time_point no_rotation_before{};
    std::chrono::steady_clock::time_point no_retry_before{};
    std::string rotation_problem;  // told already
    std::unique_ptr<Packer> packer;
    std::uint64_t unsigned_from = 1;  // the first line of ours that no checkpoint speaks for
    std::chrono::system_clock::time_point unsigned_since{};
    std::shared_ptr<Turn> turn;  // with others who write the file; null: there are none
    bool alone_wanted = false;   // the turn is to be given up when it can be
    bool in_charge = true;

    mutable std::mutex mutex;
    std::condition_variable wake;
    std::vector<Item> waiting;
    std::size_t pending_records = 0;  // waiting or being written
    std::size_t pending_bytes = 0;
    // Of the first record that is being written.
    std::optional<std::chrono::steady_clock::time_point> first_in_hand;
    std::size_t refused_for_room = 0;  // of which the writer's thread does not know yet
    bool reopen_wanted = false;
    bool closing = false;
    // Told to the thread; `told` says that there is something.
    bool told = false;
    std::shared_ptr<Turn> share_wanted;
    bool share_no_more = false;
    std::optional<bool> charge_wanted;
    std::shared_ptr<Turn> shared_by;  // as the thread has it
    std::condition_variable shared_now;
    bool ended = false;  // the thread has nothing more to do
    std::condition_variable ends;
    ChainPoint published_head;
    Stats stats;
    metrics::Histogram times{time_bounds};  // counted on the thread

    // Whether the disk keeps up; told by the watcher, who alone ends it.
    std::condition_variable look;
    bool watcher_sleeps = false;  // until somebody wakes it
    bool delay_told = false;
    bool crowded = false;                                 // a record was refused for want of room
    std::uint64_t crowded_out = 0;                        // such records, since the delay began
    std::uint64_t late = 0;                               // that were waited for too long
    std::chrono::steady_clock::duration longest_wait{0};  // of these
    bool watched = true;

    std::thread thread;
    std::thread watcher;
};

std::string Writer::Impl::open_first() {
    if (options.turn) return open_shared();
    return open_file();
}

// As long as another process writes the file: in a turn, and from where that says that it stands.
std::string Writer::Impl::open_shared() {
    if (!options.turn->take(options.turn_patience))
        return "cannot open the audit log " + options.file.string() +
               ": the process that writes it does not let go of it";
    turn = shared_by = std::move(options.turn);
    in_charge = false;
    std::string problem = open_file();
    give_turn();
    return problem;
}

std::string Writer::Impl::open_file() {
    const auto stand = turn ? turn->stand() : std::nullopt;
    if (stand) {
        if (std::string problem = open_next(*stand); !problem.empty()) return problem;
    } else {
        const auto before = point_before(options.file);
        if (!before) return before.error().text;
        auto opened = LogFile::open(options.file, *before, *options.disk, turn != nullptr);
        if (!opened) return opened.error().text;
        file = std::move(*opened);
        begun = file->first_time();
    }
    // What others have written before us is for their checkpoints.
    unsigned_from = turn ? turn->unsigned_from() : file->head().seq + 1;
    unsigned_since = options.clock();
    if (file->loose_mode() != 0)
        notice("the audit log " + file->path().string() +
               " can be read or changed by others; it holds statements: chmod it to 0600");
    std::string problem = stand ? settle(*stand) : "";
    if (!stand) {
        note_stand();
        problem = append_event_of_torn_tail();
    }
    if (!problem.empty()) return problem;
    tell_stand();
    append_events_of_start();
    publish_head();
    return {};
}

// The file in which a log that stands like this goes on. It is not asked where the log stands: who
// may write the file could make it say what they like.
std::string Writer::Impl::open_next(const LogFile::Stand& stand) {
    auto opened = LogFile::open_next(options.file, stand.head, *options.disk, turn != nullptr);
    if (!opened) return opened.error().text;
    if (file) {
        file.swap(*opened);
    } else {
        file = std::move(*opened);
    }
    begun = file->first_time();
    if (file->foreign() && !file->stand().same_file(stand)) {
        changed = file->foreign();
        notice("somebody else has put another file in the place of the audit log " +
               file->path().string() +
               ", which does not end where the log stands; it goes on behind its own line " +
               std::to_string(stand.head.seq) + ", and the log notes it");
    }
    return {};
}

// --- Others who write the same file.

void Writer::Impl::do_what_is_told() {
    std::optional<bool> charge_now;
    bool share = false;
    {
        const std::lock_guard lock(mutex);
        told = false;
        charge_now = std::exchange(charge_wanted, std::nullopt);
        if (std::exchange(share_no_more, false)) alone_wanted = true;
        share = share_wanted != nullptr;
    }
    if (share) start_sharing();
    if (charge_now) charge(*charge_now);
    try_to_be_alone();
}

void Writer::Impl::start_sharing() {
    alone_wanted = false;
    // The others vouch for what they and we write from now on, and for nothing before.
    if (!turn) sign_what_waits(true);
    if (!turn && file->share()) {
        {
            const std::lock_guard lock(mutex);
            turn = share_wanted;
        }
        if (turn) {
            turn->set_unsigned_from(options.checkpoint_key ? unsigned_from : file->head().seq + 1);
            note_stand();
        } else {
            // Who asked has given up meanwhile.
            file->unshare();
        }
    }
    const std::lock_guard lock(mutex);
    shared_by = turn;
    share_wanted.reset();  // who asked waits for that
    shared_now.notify_all();
}

// Within a turn: nobody writes while the lock changes hands.
void Writer::Impl::try_to_be_alone() {
    if (!turn) alone_wanted = false;
    if (!alone_wanted || !take_turn().empty()) return;
    const bool alone = file->unshare();
    give_turn();
    if (!alone) return;
    turn.reset();
    alone_wanted = false;
    const std::lock_guard lock(mutex);
    shared_by.reset();
}

// Only who holds the log's lock touches its old files, and of several only who is in charge.
void Writer::Impl::charge(bool to) {
    in_charge = to;
    if (!in_charge) {
        packer.reset();
    } else if (!packer && (options.compress_old || options.keep_old > 0)) {
        packer = std::make_unique<Packer>(
            PackerOptions{options.file, options.compress_old, options.keep_old,
                          [tell = options.on_notice](std::string_view text) {
                              if (tell) tell(text);
                          }});
    }
}

// The problem where there is none to be had; nothing is to be given back then.
std::string Writer::Impl::take_turn() {
    if (!turn) return {};
    if (!turn->take(options.turn_patience))
        return "cannot write " + options.file.string() +
               ": another process, with which it is shared, does not let go of it";
    std::string problem = catch_up();
    if (!problem.empty()) give_turn();
    return problem;
}

// What the others have written since our last turn, or into which file the log goes now.
std::string Writer::Impl::catch_up() {
    const auto stand = turn->stand();
    if (!stand) return {};
    unsigned_from = turn->unsigned_from();
    if (!file->stand().same_file(*stand)) {
        if (std::string problem = open_next(*stand); !problem.empty()) return problem;
    }
    return settle(*stand);
}

// The shared memory says how far the file goes that it names, and what a killed process was about
// to write.
std::string Writer::Impl::settle(const LogFile::Stand& stand) {
    if (!file->stand().same_file(stand)) {
        note_stand();
        return {};
    }
    file->adopt(stand, turn->leftover());
    if (!begun && file->size_bytes() > 0) begun = file->first_time();
    const auto next = turn->about_to_be();
    if (!next) return {};
    if (std::string problem = next->same_file(stand) ? file->settle(*next) : ""; !problem.empty())
        return problem;
    note_stand();
    return append_event_of_torn_tail();
}

void Writer::Impl::give_turn() {
    if (!turn) return;
    turn->set_unsigned_from(unsigned_from);
    turn->give_back();
}

// The log itself tells what was taken out of it.
std::string Writer::Impl::append_event_of_torn_tail() {
    if (!file->torn()) return {};
    const LogFile::Torn& torn = *file->torn();
    const std::string line = make_event_line(
        {"torn",
         {{.name = "bytes", .value = std::to_string(torn.bytes), .number = true},
          {.name = "sha256", .value = torn.sha256},
          {.name = "kept_in", .value = torn.kept_in.string()}}},
        options.clock(), file->head());
    const std::string problem = append(line + '\n', {file->head().seq + 1, sha_256_hex(line)});
    if (!problem.empty()) return problem;
    notice("the last line of the audit log " + file->path().string() +
           " was torn, by a crash or a full disk; what there was of it is kept in " +
           torn.kept_in.string());
    return {};
}

// A disk that refuses them gets them again, ahead of the first record that it takes.
void Writer::Impl::append_events_of_start() {
    untold = std::exchange(options.at_start, {});
    if (untold.empty() && !changed) return;
    std::size_t end = 0;
    if (const std::string problem = write_batch({}, 0, end); !problem.empty()) {
        stats.failing = true;
        note_trouble(problem, 0);
    }
}

void Writer::Impl::append_events_of_end() {
    for (Event& event : options.at_end) untold.push_back(std::move(event));
    if (untold.empty()) return try_again();
    std::vector<Item> nothing;
    store_batch(nothing, 0);
}

void Writer::Impl::start() {
    charge(in_charge);
    // Signals are for the host's threads; and a size limit shall be an error of write(), not the
    // signal SIGXFSZ.
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    thread = std::thread([this] {
        run();
        const std::lock_guard lock(mutex);
        ended = true;
        ends.notify_all();
    });
    watcher = std::thread([this] { watch(); });
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
    pthread_setname_np(thread.native_handle(), "audit");
    pthread_setname_np(watcher.native_handle(), "audit-watch");
}

void Writer::Impl::run() {
    std::vector<Item> items;
    std::unique_lock lock(mutex);
    for (;;) {
        const auto called = [this] {
            return !waiting.empty() || refused_for_room > 0 || reopen_wanted || told || closing;
        };
        if (const auto sleep = longest_sleep()) {
            wake.wait_for(lock, *sleep, called);
        } else {
            wake.wait(lock, called);
        }
        const bool reopen_now = std::exchange(reopen_wanted, false);
        items.swap(waiting);
        if (!items.empty()) first_in_hand = items.front().submitted;
        refused_records += std::exchange(refused_for_room, 0);
        const bool last = items.empty() && closing && !reopen_now;
        lock.unlock();
        do_what_is_told();
        if (last) {
            // The end is no time to spare the disk.
            no_retry_before = {};
            append_events_of_end();
            return in_turn([this] {
                sign_what_waits(true);
                tell_stand();
            });
        }
        if (reopen_now) in_turn([this] { reopen_file(); });
        if (items.empty()) {
            in_turn([this] {
                rotate();
                sign_what_waits(false);
            });
            try_again();
        }
        store(items);
        items.clear();
        // After a burst the memory goes back.
        if (items.capacity() > 1024) std::vector<Item>().swap(items);
        lock.lock();
    }
}

void Writer::Impl::reopen_file() {
    if (file->is_current()) return;
    // The old file ends with a checkpoint.
    if (!file->is_deleted()) sign_what_waits(true);
    const bool deleted = file->is_deleted();
    if (const std::string problem = open_next(file->stand()); !problem.empty()) {
        if (!deleted) notice(problem + "; the records go to the old file until this works");
        return;
    }
    if (deleted) notice("the audit log " + file->path().string() + " was deleted; it is made anew");
    note_stand();
    tell_stand();
    notice("the audit log goes on in " + file->path().string() + " after its line " +
           std::to_string(file->head().seq));
    publish_head();
}

bool Writer::Impl::rotation_is_due() const {
    if (file->size_bytes() == 0) return false;
    if (options.rotate_bytes > 0 && file->size_bytes() >= options.rotate_bytes) return true;
    if (options.rotate_every.count() == 0 || !begun) return false;
    return options.clock().time_since_epoch() / options.rotate_every >
           begun->time_since_epoch() / options.rotate_every;
}

std::chrono::milliseconds Writer::Impl::until_rotation() const {
    using std::chrono::milliseconds;
    const auto now = std::chrono::duration_cast<milliseconds>(options.clock().time_since_epoch());
    const milliseconds left = options.rotate_every - now % options.rotate_every;
    return std::clamp(left, milliseconds(1),
                      std::chrono::duration_cast<milliseconds>(rotation_pause));
}

std::optional<std::chrono::milliseconds> Writer::Impl::longest_sleep() const {
    using std::chrono::milliseconds;
    std::optional<milliseconds> sleep;
    if (options.rotate_every.count() > 0 && begun && in_charge) sleep = until_rotation();
    if (has_unsigned(file->head())) {
        const auto left = std::chrono::ceil<milliseconds>(unsigned_since + checkpoint_pause -
                                                          options.clock());
        const auto soon = std::clamp(left, milliseconds(100), milliseconds(checkpoint_pause));
        sleep = sleep ? std::min(*sleep, soon) : soon;
    }
    if (!trouble.empty()) sleep = std::min(sleep.value_or(retry_pause), milliseconds(retry_pause));
    if (alone_wanted) sleep = std::min(sleep.value_or(alone_pause), alone_pause);
    return sleep;
}

// Writes the lines that tell of trouble, of what was refused, and of what somebody else did to the
// file, and nothing else.
void Writer::Impl::try_again() {
    if (trouble.empty() && refused_records == 0 && !changed) return;
    if (!trouble.empty() && std::chrono::steady_clock::now() < no_retry_before) return;
    std::vector<Item> nothing;
    store_batch(nothing, 0);
}

// Whether the first of the lines that wait for one does so for long. Where the clock was set back,
// the time begins anew.
bool Writer::Impl::checkpoint_is_due() {
    const auto now = options.clock();
    unsigned_since = std::min(unsigned_since, now);
    return now >= unsigned_since + checkpoint_pause;
}

// A checkpoint of its own, where lines wait for one and it is time; in trouble not at all.
void Writer::Impl::sign_what_waits(bool at_once) {
    if (!has_unsigned(file->head()) || !trouble.empty() || changed) return;
    if (!at_once && !checkpoint_is_due()) return;
    std::optional<LogFile::Changed> found;
    if (!file->prepare(found).empty()) return;
    if (found) {
        changed = found;
        return;
    }
    const std::string line = make_checkpoint_line(*options.checkpoint_key, options.clock(),
                                                  file->head(), unsigned_from);
    const ChainPoint head{file->head().seq + 1, sha_256_hex(line)};
    const std::string problem = append(line + '\n', head);
    if (!problem.empty()) return notice("cannot write a checkpoint of the audit log: " + problem);
    unsigned_from = head.seq + 1;
    publish_head();
    const std::lock_guard lock(mutex);
    ++stats.checkpoints;
}

// Where it is time for it, and nothing else is in disorder.
void Writer::Impl::rotate() {
    if (!in_charge || !trouble.empty() || changed || !rotation_is_due() ||
        options.clock() < no_rotation_before) {
        return;
    }
    // Somebody else has rotated and not told us: their file is not ours to rename.
    if (!file->is_current()) return reopen_file();
    const std::string problem = rotate_file();
    if (problem.empty()) {
        if (!rotation_problem.empty())
            notice("the audit log " + file->path().string() + " can be rotated again");
        if (packer) packer->look();
    } else {
        no_rotation_before = options.clock() + rotation_pause;
        if (problem != rotation_problem)
            notice("cannot rotate the audit log " + file->path().string() + ": " + problem +
                   "; it goes on as it is");
    }
    rotation_problem = problem;
}

// The old file is whole and on the disk; the new one begins behind it. A crash between the two
// leaves no file of the configured name, and the next one finds the old.
std::string Writer::Impl::rotate_file() {
    sign_what_waits(true);
    std::optional<LogFile::Changed> found;
    std::string problem = file->prepare(found);
    if (!problem.empty()) return problem;
    if (found) changed = found;
    if (changed) return {};
    const std::filesystem::path old = unused_old_name(options.file, options.clock());
    if (options.disk->rename(options.file.c_str(), old.c_str()) != 0)
        return std::generic_category().message(errno);
    problem = open_next(file->stand());
    if (!problem.empty()) {
        options.disk->rename(old.c_str(), options.file.c_str());
        return problem;
    }
    note_stand();
    tell_stand();
    return {};
}

void Writer::Impl::store(std::vector<Item>& items) {
    for (std::size_t begin = 0; begin < items.size();) begin = store_batch(items, begin);
}

// Writes, flushes and reports as many items from `begin` on as one batch may hold; returns where
// the next one begins.
std::size_t Writer::Impl::store_batch(std::vector<Item>& items, std::size_t begin) {
    const std::string no_turn = take_turn();
    std::size_t end = begin;
    std::string problem;
    if (no_turn.empty()) {
        if (file->is_deleted()) reopen_file();
        rotate();
        problem = write_batch(items, begin, end);
        give_turn();
    } else {
        problem = no_turn;
        end = items.size();
    }
    const auto now = std::chrono::steady_clock::now();
    if (!problem.empty()) no_retry_before = now + retry_pause;

    std::vector<Completion> completions;
    completions.reserve(end - begin);
    std::size_t bytes = 0;
    std::size_t records = 0;
    for (std::size_t i = begin; i < end; ++i) {
        completions.push_back({items[i].token, problem});
        bytes += items[i].bytes;
        records += items[i].records.size();
        if (problem.empty() && !items[i].records.empty()) times.observe(now - items[i].submitted);
    }
    {
        const std::lock_guard lock(mutex);
        for (std::size_t i = begin; i < end; ++i) {
            const auto waited = now - items[i].submitted;
            if (options.patience.count() == 0 || waited <= options.patience) break;
            late += items[i].records.size();
            longest_wait = std::max(longest_wait, waited);
        }
        first_in_hand.reset();
        if (end < items.size()) first_in_hand = items[end].submitted;
        pending_records -= records;
        pending_bytes -= bytes;
        (problem.empty() ? stats.records : stats.refused) += records;
        stats.failing = !problem.empty();
        if (delay_told || late > 0) look.notify_one();
    }
    for (std::size_t i = begin; i < end; ++i) items[i] = {};
    note_trouble(problem, records);
    publish_head();
    if (options.on_completion && !completions.empty()) options.on_completion(completions);
    return end;
}

// `end` is set behind the last item that belongs to the batch, whether it was written or not.
std::string Writer::Impl::write_batch(const std::vector<Item>& items, std::size_t begin,
                                      std::size_t& end) {
    std::optional<LogFile::Changed> found;
    const std::string unready = file->prepare(found);
    if (found) {
        notice("somebody else changed the size of the audit log " + file->path().string() +
               " from " + std::to_string(found->expected_bytes) + " to " +
               std::to_string(found->found_bytes) + " bytes; the log notes it");
        changed = found;
    }
    std::string lines;
    ChainPoint head = file->head();
    const auto add = [&](const std::string& line) {
        head = {head.seq + 1, sha_256_hex(line)};
        lines += line;
        lines += '\n';
    };
    const auto add_event = [&](const Event& event) {
        add(make_event_line(event, options.clock(), head));
    };
    if (changed) {
        if (changed->ends_within_line) lines += '\n';
        Event event{"changed",
                    {{.name = "expected_bytes",
                      .value = std::to_string(changed->expected_bytes),
                      .number = true},
                     {.name = "found_bytes",
                      .value = std::to_string(changed->found_bytes),
                      .number = true}}};
        if (changed->other_file)
            event.members.push_back({.name = "problem",
                                     .value = "another file stood in its place, which did not end "
                                              "where the log stood"});
        add_event(event);
    }
    if (!trouble.empty() || refused_records > 0)
        add_event(
            {"refused",
             {{.name = "records", .value = std::to_string(refused_records), .number = true},
              {.name = "problem",
               .value = trouble.empty() ? "too many records waited for the disk" : trouble}}});
    for (const Event& event : untold) add_event(event);
    for (end = begin; end < items.size() && lines.size() < batch_limit_bytes; ++end) {
        for (const Event& event : items[end].events) add_event(event);
        for (const Record& record : items[end].records)
            add(make_line(record, head, options.statement_limit_bytes));
    }
    const bool waited = has_unsigned(file->head());
    const bool sign = has_unsigned(head) &&
                      (head.seq + 1 - unsigned_from >= options.checkpoint_every ||
                       (waited && checkpoint_is_due()));
    if (sign)
        add(make_checkpoint_line(*options.checkpoint_key, options.clock(), head, unsigned_from));
    if (!unready.empty()) return unready;
    // What is written to a file without a name is lost, even though it would seem to work.
    if (file->is_deleted())
        return "cannot write " + file->path().string() + ": it was deleted and cannot be made anew";
    std::string problem = append(lines, head);
    if (!problem.empty()) return problem;
    changed.reset();
    untold.clear();
    if (!begun) begun = options.clock();
    if (sign) {
        unsigned_from = head.seq + 1;
        const std::lock_guard lock(mutex);
        ++stats.checkpoints;
    }
    if (!waited) unsigned_since = options.clock();
    return {};
}

std::string Writer::Impl::append(std::string_view lines, const ChainPoint& head) {
    if (turn) {
        LogFile::Stand next = file->stand();
        next.size_bytes += lines.size();
        next.head = head;
        turn->announce(next);
    }
    std::string problem = file->append(lines, head);
    if (turn && problem.empty()) turn->confirm();
    if (turn && !problem.empty()) note_stand();
    if (problem.empty() && options.on_lines) options.on_lines(lines);
    return problem;
}

void Writer::Impl::note_trouble(const std::string& problem, std::size_t refused) {
    if (problem.empty()) {
        if (!trouble.empty())
            notice("the audit log " + file->path().string() + " can be written again; " +
                   std::to_string(refused_records) + " records were refused meanwhile");
        refused_records = 0;
    } else {
        if (trouble.empty())
            notice("the audit log fails: " + problem + "; " + std::string(options.when_refused));
        refused_records += refused;
    }
    trouble = problem;
}

// --- Whether the disk keeps up. All but watch() itself under the mutex.

// When the first of the records that wait, or are being written, was submitted.
std::optional<std::chrono::steady_clock::time_point> Writer::Impl::oldest() const {
    if (first_in_hand) return first_in_hand;
    if (waiting.empty()) return {};
    return waiting.front().submitted;
}

bool Writer::Impl::is_overdue(std::chrono::steady_clock::time_point now) const {
    const auto first = oldest();
    return options.patience.count() > 0 && first && now - *first > options.patience;
}

// More waits than what would be a good reason to call it over.
bool Writer::Impl::is_crowded() const {
    return pending_records > options.queue_limit_records / 2 ||
           pending_bytes > options.queue_limit_bytes / 2;
}

std::string Writer::Impl::words_of_delay() const {
    return "the audit log does not keep up: " +
           (crowded_out > 0 ? std::string("too many records wait for the disk")
                            : "a record waits for the disk for longer than " +
                                  std::to_string(options.patience.count()) + " ms") +
           "; " + std::string(options.when_refused);
}

std::string Writer::Impl::words_of_catching_up() {
    using std::chrono::milliseconds;
    const auto records = [](std::uint64_t count) {
        return std::to_string(count) + (count == 1 ? " record" : " records");
    };
    std::string text;
    if (late > 0)
        text = records(late) + " waited for the disk for longer than " +
               std::to_string(options.patience.count()) + " ms, the longest of them for " +
               std::to_string(std::chrono::duration_cast<milliseconds>(longest_wait).count()) +
               " ms";
    if (crowded_out > 0)
        text += (text.empty() ? "" : "; ") + records(crowded_out) +
                (crowded_out == 1 ? " was" : " were") + " refused since too many waited";
    late = crowded_out = 0;
    longest_wait = {};
    return "the audit log keeps up again: " + text;
}

// Sleeps while nothing waits, and then until the first of what waits would be overdue. So it costs
// nothing while the disk keeps up, and sees also what was over before it looked.
void Writer::Impl::watch() {
    std::unique_lock lock(mutex);
    for (;;) {
        const auto now = std::chrono::steady_clock::now();
        if (delay_told && crowded && !is_crowded()) crowded = false;
        const bool delayed = is_overdue(now) || crowded;
        if (delayed != delay_told || (!delayed && late > 0)) {
            const std::string text = delay_told ? words_of_catching_up() : words_of_delay();
            delay_told = !delay_told;
            lock.unlock();
            notice(text);
            lock.lock();
            continue;
        }
        if (!watched) return;
        const auto first = oldest();
        if (!delay_told && first && options.patience.count() > 0) {
            // A moment later, when it is overdue for certain.
            look.wait_until(lock, *first + options.patience + std::chrono::milliseconds(1));
        } else {
            watcher_sleeps = true;
            look.wait(lock);
            watcher_sleeps = false;
        }
    }
}

void Writer::Impl::publish_head() {
    const std::lock_guard lock(mutex);
    published_head = file->head();
}

boost::system::result<std::unique_ptr<Writer>, OpenError> Writer::open(WriterOptions options) {
    auto impl = std::make_unique<Impl>(std::move(options));
    if (std::string problem = impl->open_first(); !problem.empty())
        return OpenError{std::move(problem)};
    impl->start();
    return std::unique_ptr<Writer>(new Writer(std::move(impl)));
}

Writer::Writer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

Writer::~Writer() { close(); }

Submitted Writer::submit(Record record, std::uint64_t token) {
    std::vector<Record> records;
    records.push_back(std::move(record));
    return submit(std::move(records), token);
}

Submitted Writer::submit(std::vector<Record> records, std::uint64_t token) {
    return impl_->submit(std::move(records), {}, token);
}

Submitted Writer::submit(std::vector<Event> events, std::uint64_t token) {
    return impl_->submit({}, std::move(events), token);
}

Submitted Writer::Impl::submit(std::vector<Record> records, std::vector<Event> events,
                               std::uint64_t token) {
    Item item{std::move(records), std::move(events), token, sizeof(Item),
              std::chrono::steady_clock::now()};
    for (const Record& record : item.records) item.bytes += cost_bytes(record);
    for (const Event& event : item.events) item.bytes += cost_bytes(event);
    const std::lock_guard lock(mutex);
    if (closing) return Submitted::closed;
    const std::size_t count = item.records.size();
    const bool fits = pending_records + count <= options.queue_limit_records &&
                      pending_bytes + item.bytes <= options.queue_limit_bytes;
    if (!fits && pending_records > 0) {
        stats.refused += count;
        refused_for_room += count;
        crowded_out += count;
        if (!std::exchange(crowded, true)) look.notify_one();
        return Submitted::full;
    }
    pending_records += count;
    pending_bytes += item.bytes;
    waiting.push_back(std::move(item));
    // The writer sleeps only when nothing waits.
    if (waiting.size() == 1) wake.notify_one();
    if (options.patience.count() > 0 && !delay_told && std::exchange(watcher_sleeps, false))
        look.notify_one();
    return Submitted::accepted;
}

void Writer::reopen() {
    const std::lock_guard lock(impl_->mutex);
    impl_->reopen_wanted = true;
    impl_->wake.notify_one();
}

boost::system::result<std::shared_ptr<Turn>, OpenError> Writer::share() {
    auto made = Turn::make(impl_->options.file);
    if (!made) return made.error();
    std::unique_lock lock(impl_->mutex);
    if (impl_->closing) return OpenError{"the audit log is being closed"};
    impl_->share_wanted = std::move(*made);
    impl_->share_no_more = false;
    impl_->told = true;
    impl_->wake.notify_one();
    const auto patience = impl_->options.turn_patience;
    if (!impl_->shared_now.wait_for(lock, patience,
                                    [this] { return impl_->share_wanted == nullptr; })) {
        impl_->share_wanted.reset();
        impl_->share_no_more = impl_->told = true;
        return OpenError{"the audit log's disk hangs: it has not taken for " +
                         std::to_string(patience.count()) + " ms what it was given"};
    }
    if (!impl_->shared_by) return OpenError{"the audit log's lock can't be shared"};
    return impl_->shared_by;
}

void Writer::share_no_more() {
    const std::lock_guard lock(impl_->mutex);
    impl_->share_no_more = true;
    impl_->told = true;
    impl_->wake.notify_one();
}

bool Writer::shared() const {
    const std::lock_guard lock(impl_->mutex);
    return impl_->shared_by != nullptr;
}

void Writer::take_charge(bool in_charge) {
    const std::lock_guard lock(impl_->mutex);
    impl_->charge_wanted = in_charge;
    impl_->told = true;
    impl_->wake.notify_one();
}

Writer::Stats Writer::stats() const {
    const std::lock_guard lock(impl_->mutex);
    Stats stats = impl_->stats;
    stats.waiting = impl_->pending_records;
    const auto now = std::chrono::steady_clock::now();
    if (const auto first = impl_->oldest()) stats.oldest_waits = now - *first;
    stats.behind = impl_->crowded || impl_->is_overdue(now);
    stats.failing = stats.failing || stats.behind;
    return stats;
}

metrics::Distribution Writer::times_to_disk() const { return impl_->times.read(); }

ChainPoint Writer::head() const {
    const std::lock_guard lock(impl_->mutex);
    return impl_->published_head;
}

bool Writer::close_in_time() {
    constexpr std::chrono::milliseconds silence{1'000};
    const auto until = std::chrono::steady_clock::now() + impl_->options.farewell;
    const auto tell = [this](std::unique_lock<std::mutex>& lock, const std::string& begin,
                             const std::string& end) {
        const std::string count = std::to_string(impl_->pending_records);
        lock.unlock();
        impl_->notice(begin + count + end);
        lock.lock();
    };
    std::unique_lock lock(impl_->mutex);
    impl_->closing = true;
    impl_->wake.notify_one();
    const auto over = [this] { return impl_->ended; };
    if (!impl_->ends.wait_for(lock, std::min(silence, impl_->options.farewell), over)) {
        tell(lock, "waits for the disk; ", " records are not on it yet");
        if (!impl_->ends.wait_until(lock, until, over)) {
            tell(lock, "the disk hangs; gives up ", " records, which nobody was told are stored");
            return false;
        }
    }
    lock.unlock();
    close();
    return true;
}

void Writer::close() {
    {
        const std::lock_guard lock(impl_->mutex);
        impl_->closing = true;
        impl_->wake.notify_one();
    }
    if (!impl_->thread.joinable()) return;
    assert(impl_->thread.get_id() != std::this_thread::get_id());
    impl_->thread.join();
    {
        const std::lock_guard lock(impl_->mutex);
        impl_->watched = false;
        impl_->look.notify_one();
    }
    impl_->watcher.join();
    impl_->packer.reset();
}

}  // namespace pgchaperone::audit
