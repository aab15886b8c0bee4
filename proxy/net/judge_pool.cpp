#include "proxy/net/judge_pool.h"

#include "proxy/net/connection.h"
#include "proxy/net/io_thread.h"

#include <utility>

namespace pgchaperone::net {

JudgePool::JudgePool(std::shared_ptr<policy::RuleBook> rules, policy::Capabilities capabilities)
    : engine_(std::move(rules), capabilities) {
    thread_ = std::make_unique<policy::ParserThread>([this] { run(); });
}

JudgePool::~JudgePool() {
    {
        const std::lock_guard lock(mutex_);
        stopping_ = true;
    }
    wake_.notify_one();
    thread_->join();
}

void JudgePool::judge(Question question) {
    work([question = std::move(question)](policy::Engine& engine) {
        session::Verdict verdict;
        verdict.judgement = engine.judge(question.sql, question.lexical, question.facts,
                                         question.moment);
        verdict.at = question.moment.now;
        IoThread& thread = question.thread;
        thread.post([&thread, id = question.session, verdict = std::move(verdict)] {
            if (const auto connection = thread.find(id)) connection->deliver(verdict);
        });
    });
}

void JudgePool::work(Work work) {
    {
        const std::lock_guard lock(mutex_);
        work_.push_back(std::move(work));
    }
    wake_.notify_one();
}

void JudgePool::run() {
    std::unique_lock lock(mutex_);
    while (true) {
        wake_.wait(lock, [this] { return stopping_ || !work_.empty(); });
        if (stopping_) return;
        const Work work = std::move(work_.front());
        work_.pop_front();
        lock.unlock();
        work(engine_);
        lock.lock();
    }
}

}  // namespace pgchaperone::net
