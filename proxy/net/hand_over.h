#pragma once
// How one guard takes over from another without anybody being refused (docs/adr/0010). The earlier
// one starts the program anew and hands it its listening sockets, its turns at the audit log, and
// one end of a link; then it waits until the later one says over the link that it serves. What each
// of them does meanwhile and afterwards is the server's.
//
//   earlier                                    later
//      |-- fork, exec: LISTEN_FDS ------------->| loads, checks, opens, listens: as at every start
//      |                                        |
//      |<--- serving ---------------------------| accepts
//      | accepts nobody any more                |
//      |-- yours ------------------------------>| tells the service manager, has charge of the log
//      | lets sessions go on                    |
//      |<--- cancel, reload, drain -------------|
//      | ends                                   | has the log for itself

#include "audit/turn.h"
#include "proxy/net/link.h"
#include "proxy/net/passed_sockets.h"

#include <boost/system/result.hpp>
#include <signal.h>
#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace pgchaperone::net {

// --- The later one's side.

// What this process was started with.
struct Inheritance {
    std::vector<Passed> passed;                // by a service manager, through however many guards
    std::vector<int> sockets;                  // that the earlier guard listened with
    std::shared_ptr<audit::Turn> turn;         // null: there is none
    std::vector<std::unique_ptr<Link>> links;  // the earlier guard first; none: there is none
    std::uint64_t sessions_from = 1;
};
// Takes it out of the environment: call it once, while there is one thread. Throws
// std::runtime_error where what an earlier guard passed is not what it should be.
Inheritance take_inheritance();
// Whether an earlier guard has started this process, as long as that is in the environment.
bool is_successor();

// --- The earlier one's side.

// As $LISTEN_FDNAMES tells them apart. Names of others are those of a service manager's sockets.
inline constexpr std::string_view name_of_socket = "pgchaperone-socket";
inline constexpr std::string_view name_of_turn = "pgchaperone-audit";
inline constexpr std::string_view name_of_link = "pgchaperone-predecessor";
inline constexpr std::string_view name_of_earlier_link = "pgchaperone-earlier";

struct HandOver {
    std::vector<Passed> descriptors;     // stay open here; that of the link is not among them
    std::vector<std::string> variables;  // NAME=VALUE, besides the environment of this process
    sigset_t signals;                    // what the new process is to begin with
    std::uint64_t sessions_from = 1;
    std::chrono::milliseconds patience{30'000};
    // Asked now and then whether to give up.
    std::function<bool()> given_up;
};

struct Successor {
    pid_t process = -1;
    std::unique_ptr<Link> link;
};

// Why there is none, as a sentence.
struct HandOverProblem {
    std::string text;
};
[[noreturn]] void throw_exception_from_error(const HandOverProblem& problem,
                                             const boost::source_location& where);

// Starts the program by the path and with the arguments that this process was started with, and
// waits until it serves. Where it does not, nothing of it is left when this returns.
boost::system::result<Successor, HandOverProblem> start_successor(const HandOver& hand_over);

}  // namespace pgchaperone::net
