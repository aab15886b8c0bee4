#include "proxy/net/hand_over.h"

#include <fcntl.h>
#include <sys/auxv.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <csignal>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <optional>
#include <stdexcept>
#include <string_view>
#include <system_error>
#include <utility>

namespace pgchaperone::net {

namespace {

constexpr int first_passed = 3;
// Each has sessions, and a descriptor here: somebody upgrades in a loop.
constexpr std::size_t predecessors_max = 16;
constexpr std::chrono::milliseconds look_pause{20};
constexpr std::chrono::seconds death_time{5};
constexpr std::size_t number_digits = 24;

std::string words(int error) { return std::generic_category().message(error); }

template <class Number>
std::optional<Number> number_in(std::string_view text) {
    Number value{};
    const auto [end, problem] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (problem != std::errc() || end != text.data() + text.size()) return std::nullopt;
    return value;
}

bool is_link(int descriptor) {
    int type = 0, family = 0;
    socklen_t size = sizeof type;
    return ::getsockopt(descriptor, SOL_SOCKET, SO_TYPE, &type, &size) == 0 &&
           ::getsockopt(descriptor, SOL_SOCKET, SO_DOMAIN, &family, &size) == 0 &&
           type == SOCK_SEQPACKET && family == AF_UNIX;
}

void close_on_exec(int descriptor) { (void)::fcntl(descriptor, F_SETFD, FD_CLOEXEC); }

// By the path that was given to exec: where a newer program has been installed since, this is it.
std::string path_of_this_program() {
    const auto* const path = reinterpret_cast<const char*>(::getauxval(AT_EXECFN));
    return path ? path : "";
}

std::vector<std::string> arguments_of_this_process() {
    std::ifstream file("/proc/self/cmdline", std::ios::binary);
    const std::string bytes{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
    std::vector<std::string> arguments;
    for (std::size_t at = 0; at < bytes.size();) {
        const std::size_t end = std::min(bytes.find('\0', at), bytes.size());
        arguments.push_back(bytes.substr(at, end - at));
        at = end + 1;
    }
    return arguments;
}

std::vector<char*> pointers_to(std::vector<std::string>& texts) {
    std::vector<char*> pointers;
    for (std::string& text : texts) pointers.push_back(text.data());
    pointers.push_back(nullptr);
    return pointers;
}

std::string_view name_in(std::string_view assignment) {
    return assignment.substr(0, assignment.find('='));
}

std::vector<std::string> environment_with(std::vector<std::string> variables) {
    for (char** one = environ; one && *one; ++one) {
        const bool replaced = std::any_of(
            variables.begin(), variables.end(),
            [&](const std::string& other) { return name_in(other) == name_in(*one); });
        if (!replaced) variables.emplace_back(*one);
    }
    return variables;
}

// All that the new process needs, made before there is one: between fork and exec nothing is done
// that another thread could have in its hands.
struct Launch {
    std::string path;
    std::vector<std::string> arguments, environment;
    std::vector<char*> argv, envp;
    char* process_digits = nullptr;  // in the environment, for its own id
    std::vector<int> descriptors;    // above all that they are to become
    int link = -1;                   // which of those that is once it is in its place
    sigset_t signals;

    ~Launch() {
        for (const int descriptor : descriptors) ::close(descriptor);
    }
};

// The digits, from the end of the buffer; no allocation.
std::string_view digits(long number, std::array<char, number_digits>& buffer) {
    const auto [end, problem] = std::to_chars(buffer.data(), buffer.data() + buffer.size(), number);
    return {buffer.data(), static_cast<std::size_t>(end - buffer.data())};
}

void say_from_child(int link, Saying saying, long number) {
    std::array<char, number_digits> buffer;
    std::array<char, number_digits + 1> message;
    const std::string_view text = digits(number, buffer);
    message[0] = static_cast<char>(saying);
    std::copy(text.begin(), text.end(), message.begin() + 1);
    (void)::send(link, message.data(), text.size() + 1, MSG_NOSIGNAL);
}

void close_from(unsigned first) {
    if (::close_range(first, ~0u, 0) == 0) return;
    rlimit limit{};
    ::getrlimit(RLIMIT_NOFILE, &limit);
    for (rlim_t one = first; one < limit.rlim_cur; ++one) ::close(static_cast<int>(one));
}

[[noreturn]] void become(const Launch& launch) {
    ::signal(SIGPIPE, SIG_DFL);
    int next = first_passed;
    for (const int descriptor : launch.descriptors) ::dup2(descriptor, next++);
    close_from(static_cast<unsigned>(next));
    std::array<char, number_digits> buffer;
    const std::string_view process = digits(::getpid(), buffer);
    std::copy(process.begin(), process.end(), launch.process_digits);
    launch.process_digits[process.size()] = '\0';
    say_from_child(launch.link, Saying::started, ::getpid());
    ::sigprocmask(SIG_SETMASK, &launch.signals, nullptr);
    ::execve(launch.path.c_str(), launch.argv.data(), launch.envp.data());
    say_from_child(launch.link, Saying::no_program, errno);
    ::_exit(127);
}

// By way of another process that ends at once: so the new one is a child of init's, or of the
// service manager's, which hears when it ends, and not of this one's, which ends before.
int fork_away(const Launch& launch) {
    const pid_t between = ::fork();
    if (between < 0) return errno;
    if (between == 0) {
        const pid_t process = ::_Fork();
        if (process == 0) become(launch);
        ::_exit(process < 0 ? errno : 0);
    }
    int status = 0;
    while (::waitpid(between, &status, 0) < 0) {
        if (errno != EINTR) return errno;
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : EAGAIN;
}

std::string fill(Launch& launch, const HandOver& hand_over, int link) {
    launch.path = path_of_this_program();
    launch.arguments = arguments_of_this_process();
    if (launch.path.empty() || launch.arguments.empty())
        return "it is not known how this process was started (/proc can't be read)";
    std::vector<Passed> all = hand_over.descriptors;
    all.push_back({link, std::string(name_of_link)});
    std::string names;
    const int above = first_passed + static_cast<int>(all.size());
    for (const Passed& one : all) {
        names += (names.empty() ? "" : ":") + one.name;
        const int high = ::fcntl(one.descriptor, F_DUPFD_CLOEXEC, above);
        if (high < 0) return "no descriptor is left: " + words(errno);
        launch.descriptors.push_back(high);
    }
    launch.link = above - 1;
    launch.signals = hand_over.signals;
    std::vector<std::string> variables = hand_over.variables;
    variables.push_back("LISTEN_FDS=" + std::to_string(all.size()));
    variables.push_back("LISTEN_FDNAMES=" + names);
    const std::string process = "LISTEN_PID=";
    variables.insert(variables.begin(), process + std::string(number_digits, '0'));
    launch.environment = environment_with(std::move(variables));
    launch.argv = pointers_to(launch.arguments);
    launch.envp = pointers_to(launch.environment);
    launch.process_digits = launch.environment.front().data() + process.size();
    return {};
}

// As long as it holds its end of the link it lives, and its id is nobody else's.
void make_an_end_of(const Successor& successor) {
    Link& link = *successor.link;
    const auto until = std::chrono::steady_clock::now() + death_time;
    while (!link.over()) {
        while (link.hear()) {
        }
        if (link.over() || std::chrono::steady_clock::now() > until) return;
        if (successor.process > 0) ::kill(successor.process, SIGKILL);
        link.wait(look_pause);
    }
}

std::string wait_until_it_serves(Successor& successor, const HandOver& hand_over,
                                 const std::string& path) {
    Link& link = *successor.link;
    const auto until = std::chrono::steady_clock::now() + hand_over.patience;
    while (true) {
        while (const auto message = link.hear()) {
            switch (message->saying) {
                case Saying::started:
                    successor.process = number_in<pid_t>(message->body).value_or(-1);
                    break;
                case Saying::no_program:
                    return "can't start " + path + ": " +
                           words(number_in<int>(message->body).value_or(EINVAL));
                case Saying::serving: return {};
                case Saying::sessions_from:
                case Saying::yours:
                case Saying::answer:
                case Saying::cancel:
                case Saying::drain:
                case Saying::reload: break;
            }
        }
        if (link.over())
            return "the new process ended before it served, and has said why on standard error";
        if (hand_over.given_up && hand_over.given_up()) return "this process is told to end";
        if (std::chrono::steady_clock::now() > until)
            return "the new process did not serve within " +
                   std::to_string(hand_over.patience.count() / 1000) + " s";
        link.wait(look_pause);
    }
}

}  // namespace

void throw_exception_from_error(const HandOverProblem& problem, const boost::source_location&) {
    throw std::runtime_error(problem.text);
}

bool is_successor() {
    const char* const names = std::getenv("LISTEN_FDNAMES");
    return names != nullptr &&
           (":" + std::string(names) + ":").find(":" + std::string(name_of_link) + ":") !=
               std::string::npos;
}

Inheritance take_inheritance() {
    Inheritance out;
    std::vector<Passed> passed = take_passed_sockets();
    const bool succession = std::any_of(passed.begin(), passed.end(), [](const Passed& one) {
        return one.name == name_of_link && is_link(one.descriptor);
    });
    if (!succession) {
        out.passed = std::move(passed);
        return out;
    }
    for (Passed& one : passed) {
        close_on_exec(one.descriptor);
        if (one.name == name_of_socket) {
            out.sockets.push_back(one.descriptor);
        } else if (one.name == name_of_turn) {
            auto turn = audit::Turn::of_descriptor(one.descriptor);
            ::close(one.descriptor);
            if (!turn) throw std::runtime_error(turn.error().text);
            out.turn = std::move(*turn);
        } else if (one.name.starts_with("pgchaperone-") && !is_link(one.descriptor)) {
            ::close(one.descriptor);
        } else if (one.name == name_of_link) {
            out.links.insert(out.links.begin(), std::make_unique<Link>(one.descriptor));
        } else if (one.name == name_of_earlier_link) {
            out.links.push_back(std::make_unique<Link>(one.descriptor));
        } else {
            out.passed.push_back(std::move(one));
        }
    }
    if (const auto first = out.links.front()->hear();
        first && first->saying == Saying::sessions_from)
        out.sessions_from = number_in<std::uint64_t>(first->body).value_or(1);
    return out;
}

boost::system::result<Successor, HandOverProblem> start_successor(const HandOver& hand_over) {
    const auto earlier = std::count_if(
        hand_over.descriptors.begin(), hand_over.descriptors.end(),
        [](const Passed& one) { return one.name == name_of_earlier_link; });
    if (static_cast<std::size_t>(earlier) >= predecessors_max)
        return HandOverProblem{std::to_string(earlier) +
                               " earlier guards have sessions still; wait for them, or end them"};
    const auto [ours, theirs] = Link::pair();
    if (ours < 0) return HandOverProblem{"no descriptor is left: " + words(errno)};
    Successor successor{-1, std::make_unique<Link>(ours)};
    std::string path;
    {
        const Link other_end(theirs);
        Launch launch;
        if (std::string problem = fill(launch, hand_over, theirs); !problem.empty())
            return HandOverProblem{std::move(problem)};
        successor.link->say(Saying::sessions_from, std::to_string(hand_over.sessions_from));
        if (const int error = fork_away(launch); error != 0)
            return HandOverProblem{"can't start a process: " + words(error)};
        path = launch.path;
    }
    std::string problem = wait_until_it_serves(successor, hand_over, path);
    if (problem.empty()) return successor;
    make_an_end_of(successor);
    return HandOverProblem{std::move(problem)};
}

}  // namespace pgchaperone::net
