#pragma once
// Looks at the files and folders that a configuration names, as a start would find them, and says
// all that is wrong with them at once. Opens no port, makes no file and changes none: a guard may
// be running with the same. For `config check`.

#include "proxy/net/server_options.h"

#include <filesystem>
#include <string>
#include <vector>

namespace pgchaperone::net {

struct FileProblem {
    std::string upstream;  // whose setting it is; empty: of the top level
    std::string key;       // "client_tls.certificate"
    std::string text;
    bool warning = false;  // it works all the same
};

// Of each file the first that is wrong with it. `log_file`: empty where the log is no file. Seen
// with the rights of the user who calls this.
std::vector<FileProblem> problems_of_files(const ServerOptions& options,
                                           const std::filesystem::path& log_file);

}  // namespace pgchaperone::net
