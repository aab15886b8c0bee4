#pragma once
// Places where a test can keep tickets: one for each kind of store, empty at first. Tests of what
// every store does run once for each kind:
//
//     Home home(GENERATE(HomeKind::sqlite, HomeKind::postgres));

#include "approval/store.h"

#include <filesystem>
#include <memory>
#include <string>

namespace pgchaperone::test {

enum class HomeKind { sqlite, postgres };

class Home {
public:
    explicit Home(HomeKind kind);
    ~Home();
    Home(const Home&) = delete;
    Home& operator=(const Home&) = delete;

    // A store there, as another process would open it.
    approval::Result<std::unique_ptr<approval::Store>> try_open() const;
    std::unique_ptr<approval::Store> open() const;
    HomeKind kind() const { return kind_; }
    std::filesystem::path file() const { return folder_ / "tickets" / "store.db"; }
    const std::string& connection() const { return connection_; }

    // Makes the store fail until mend() is called.
    void sabotage();
    void mend();

private:
    HomeKind kind_;
    std::filesystem::path folder_;  // sqlite
    std::string connection_;        // postgres
    bool sabotaged_ = false;
};

}  // namespace pgchaperone::test
