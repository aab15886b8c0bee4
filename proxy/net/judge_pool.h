#pragma once
// Judges statements that are too long for an I/O thread: on a thread with a large stack of its own,
// so that a 16 MiB INSERT does not stall the other sessions. Other work that would stall them can
// be done there, too.

#include "policy/engine.h"
#include "policy/parser_thread.h"

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>

namespace pgchaperone::net {

class IoThread;

class JudgePool {
public:
    struct Question {
        IoThread& thread;       // where the connection lives
        std::uint64_t session;  // its id
        std::string sql;
        policy::LexicalSettings lexical;
        policy::SessionFacts facts;
        policy::Moment moment;
    };

    JudgePool(std::shared_ptr<policy::RuleBook> rules, policy::Capabilities capabilities);
    ~JudgePool();
    JudgePool(const JudgePool&) = delete;
    JudgePool& operator=(const JudgePool&) = delete;

    // The verdict is delivered to the connection on its own thread, if it still exists.
    void judge(Question question);

    // Does this in turn with the questions, with an engine whose rules are those in force. Work
    // that has not begun when the pool ends is not done.
    using Work = std::function<void(policy::Engine&)>;
    void work(Work work);

    // From any thread.
    policy::Engine::CacheUse cache_use() const { return engine_.cache_use(); }

private:
    void run();

    std::mutex mutex_;
    std::condition_variable wake_;
    std::deque<Work> work_;
    bool stopping_ = false;
    policy::Engine engine_;
    std::unique_ptr<policy::ParserThread> thread_;
};

}  // namespace pgchaperone::net
