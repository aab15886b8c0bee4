#pragma once
// Bytes that must not stay behind in memory: a password and what is derived from it. Wiped when it
// goes away, when it is moved from, and on wipe().

#include <string>
#include <string_view>
#include <utility>

namespace pgchaperone::session {

class Secret {
public:
    Secret() = default;
    explicit Secret(std::string_view bytes) : bytes_(bytes) {}
    // Takes the bytes over and wipes the string that they came in.
    static Secret take(std::string& bytes);
    Secret(Secret&& other) noexcept;
    Secret& operator=(Secret&& other) noexcept;
    Secret(const Secret&) = delete;
    Secret& operator=(const Secret&) = delete;
    ~Secret() { wipe(); }

    std::string_view view() const noexcept { return bytes_; }
    bool empty() const noexcept { return bytes_.empty(); }
    void wipe() noexcept;

private:
    std::string bytes_;
};

// Overwrites the bytes of a string, its spare capacity included, and empties it.
void wipe(std::string& bytes) noexcept;

}  // namespace pgchaperone::session
