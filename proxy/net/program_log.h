#pragma once
// The program's own log in a file that another program may rotate: after the file was renamed,
// reopen() goes on in a new one of the same name. Several processes may write one file, each whole
// lines: while one guard takes over from another they do. Knows no rule of what is logged, and is
// not the audit log.

#include <spdlog/sinks/base_sink.h>

#include <filesystem>
#include <mutex>
#include <string>

namespace pgchaperone::net {

class ProgramLog final : public spdlog::sinks::base_sink<std::mutex> {
public:
    // Opens the file, or makes it, with folders. Throws std::runtime_error: why not.
    explicit ProgramLog(std::filesystem::path file);
    ~ProgramLog() override;

    // Lines go to the file that has the name now, which is made where none has. Empty, or why that
    // can't be had; then they go on to where they went.
    std::string reopen();

protected:
    void sink_it_(const spdlog::details::log_msg& message) override;
    void flush_() override {}  // nothing is kept back

private:
    const std::filesystem::path path_;
    int file_ = -1;
};

}  // namespace pgchaperone::net
