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
    {
        const std::lock_guard lock(mutex_);
        questions_.push_back(std::move(question));
    }
    wake_.notify_one();
}

void JudgePool::run() {
    std::unique_lock lock(mutex_);
    while (true) {
        wake_.wait(lock, [this] { return stopping_ || !questions_.empty(); });
        if (stopping_) return;
        const Question question = std::move(questions_.front());
        questions_.pop_front();
        lock.unlock();
        session::Verdict verdict{
            engine_.judge(question.sql, question.lexical, question.facts, question.moment),
            question.moment.now};
        IoThread& thread = question.thread;
        thread.post([&thread, id = question.session, verdict = std::move(verdict)] {
            if (const auto connection = thread.find(id)) connection->deliver(verdict);
        });
        lock.lock();
    }
}

}  // namespace pgchaperone::net
