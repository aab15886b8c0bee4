#pragma once
// What becomes of an audit log's old files: they are compressed, and the oldest removed where only
// so many are kept. On a thread of its own that waits for nobody and nobody waits for. Touches only
// files that the writer has rotated itself (audit/log_files.h), never the one that is written.
//
// Invariant: at any moment, and after a crash at any moment, each old file is there whole, plain or
// compressed.

#include <cstddef>
#include <filesystem>
#include <functional>
#include <memory>
#include <string_view>

namespace pgchaperone::audit {

struct PackerOptions {
    std::filesystem::path log;
    bool compress = true;
    std::size_t keep = 0;  // old files; 0: all
    // For the operator; called on the packer's thread. May be empty.
    std::function<void(std::string_view)> on_notice;
};

class Packer {
public:
    // Begins at once with what an earlier run has left.
    explicit Packer(PackerOptions options);
    // Leaves what it is at; the next run does it again.
    ~Packer();
    Packer(const Packer&) = delete;
    Packer& operator=(const Packer&) = delete;

    // There is a new old file. From any thread; does not wait.
    void look();

private:
    struct Impl;
    std::unique_ptr<Impl> impl_;
};

}  // namespace pgchaperone::audit
