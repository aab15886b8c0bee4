#include "proxy/net/late_store.h"

#include <optional>
#include <string_view>
#include <utility>
#include <vector>

namespace pgchaperone::net {
namespace {

using approval::Result;
using approval::Store;
using approval::Ticket;

class LateStore : public Store {
public:
    LateStore(OpenStore open, approval::Failure failure)
        : open_(std::move(open)), failure_(std::move(failure)) {}

    Result<Ticket> open(std::string_view binding, const Make& make, const Take& reuse) override {
        if (!store_) return failure_;
        return store_->open(binding, make, reuse);
    }
    Result<Ticket> update(std::string_view id, const Change& change) override {
        if (!store_) return failure_;
        return store_->update(id, change);
    }
    Result<std::optional<Ticket>> claim(std::string_view binding, const Take& take) override {
        if (!store_) return failure_;
        return store_->claim(binding, take);
    }
    Result<Ticket> find(std::string_view id) override {
        if (!store_) return failure_;
        return store_->find(id);
    }
    Result<std::vector<Ticket>> open_tickets(std::size_t limit, const Ticket* after) override {
        if (!store_) return failure_;
        return store_->open_tickets(limit, after);
    }
    Result<std::vector<Ticket>> ended(std::size_t limit, const Ticket* after) override {
        if (!store_) return failure_;
        return store_->ended(limit, after);
    }
    Result<std::vector<Changed>> changed() override {
        if (!store_) return failure_;
        return store_->changed();
    }
    int descriptor() const override { return store_ ? store_->descriptor() : -1; }
    bool told() const override { return store_ && store_->told(); }
    Result<void> check() override {
        if (store_) return store_->check();
        auto opened = open_();
        if (!opened) return failure_ = opened.error();
        store_ = std::move(*opened);
        return {};
    }
    std::string where() const override {
        return store_ ? store_->where() : "not reached when the guard was started";
    }

private:
    OpenStore open_;
    approval::Failure failure_;
    std::unique_ptr<Store> store_;
};

}  // namespace

std::unique_ptr<Store> late_store(OpenStore open, approval::Failure failure) {
    return std::make_unique<LateStore>(std::move(open), std::move(failure));
}

}  // namespace pgchaperone::net
