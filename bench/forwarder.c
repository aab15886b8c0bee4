// The floor that bench/run measures against: a forwarder of TCP connections that does nothing but
// what every proxy must do. One thread, level-triggered epoll, one read and one write for what has
// arrived. It knows no protocol and no error message; it is no proxy that anybody should use.
//
//     bench_forwarder LISTEN_PORT UPSTREAM_PORT      both at 127.0.0.1

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { buffer_bytes = 64 * 1024, events_at_once = 256 };

// One of the two sockets of a connection. What could not be written to it yet waits in `rest`, and
// while something waits its peer is not read.
struct side {
    int fd;
    uint32_t interest;  // as epoll knows it
    int connecting;
    int read_ended;
    int write_ended;
    struct side* peer;
    char* rest;
    size_t rest_bytes;
    size_t rest_sent;
    struct side* next_closed;
};

static int poller;
static struct side* closed;  // freed only when no event of this round can name them any more
static char buffer[buffer_bytes];

static void fail(const char* what) {
    perror(what);
    exit(1);
}

static void watch(struct side* side) {
    uint32_t interest = 0;
    if (!side->read_ended && !side->connecting && side->peer->rest == NULL &&
        !side->peer->connecting) {
        interest |= EPOLLIN;
    }
    if (side->rest != NULL || side->connecting) interest |= EPOLLOUT;
    if (interest == side->interest) return;
    struct epoll_event event = {.events = interest, .data.ptr = side};
    if (epoll_ctl(poller, EPOLL_CTL_MOD, side->fd, &event) != 0) fail("epoll_ctl");
    side->interest = interest;
}

static void close_both(struct side* side) {
    if (side->fd < 0) return;
    struct side* both[2] = {side, side->peer};
    for (int i = 0; i < 2; ++i) {
        close(both[i]->fd);
        both[i]->fd = -1;
        free(both[i]->rest);
        both[i]->rest = NULL;
        both[i]->next_closed = closed;
        closed = both[i];
    }
}

// Passes the end of what `side` was sent on to it, once all of it is written.
static void end_if_done(struct side* side) {
    if (side->peer->read_ended && side->rest == NULL && !side->write_ended) {
        side->write_ended = 1;
        shutdown(side->fd, SHUT_WR);
    }
    if (side->write_ended && side->peer->write_ended) close_both(side);
}

static void readable(struct side* side) {
    struct side* peer = side->peer;
    ssize_t got = read(side->fd, buffer, sizeof buffer);
    if (got < 0) {
        if (errno != EAGAIN && errno != EINTR) close_both(side);
        return;
    }
    if (got == 0) {
        side->read_ended = 1;
        watch(side);
        end_if_done(peer);
        return;
    }
    ssize_t put = send(peer->fd, buffer, (size_t)got, MSG_NOSIGNAL);
    if (put < 0) {
        if (errno != EAGAIN && errno != EINTR) {
            close_both(side);
            return;
        }
        put = 0;
    }
    if (put == got) return;
    peer->rest_bytes = (size_t)(got - put);
    peer->rest_sent = 0;
    peer->rest = malloc(peer->rest_bytes);
    if (peer->rest == NULL) fail("malloc");
    memcpy(peer->rest, buffer + put, peer->rest_bytes);
    watch(side);
    watch(peer);
}

static void writable(struct side* side) {
    if (side->connecting) {
        int error = 0;
        socklen_t length = sizeof error;
        if (getsockopt(side->fd, SOL_SOCKET, SO_ERROR, &error, &length) != 0 || error != 0) {
            close_both(side);
            return;
        }
        side->connecting = 0;
    } else if (side->rest != NULL) {
        ssize_t put = send(side->fd, side->rest + side->rest_sent,
                           side->rest_bytes - side->rest_sent, MSG_NOSIGNAL);
        if (put < 0) {
            if (errno != EAGAIN && errno != EINTR) close_both(side);
            return;
        }
        side->rest_sent += (size_t)put;
        if (side->rest_sent < side->rest_bytes) return;
        free(side->rest);
        side->rest = NULL;
    }
    watch(side);
    watch(side->peer);
    end_if_done(side);
}

static struct side* new_side(int fd, uint32_t interest) {
    struct side* side = calloc(1, sizeof *side);
    if (side == NULL) fail("calloc");
    int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    side->fd = fd;
    side->interest = interest;
    struct epoll_event event = {.events = interest, .data.ptr = side};
    if (epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event) != 0) fail("epoll_ctl");
    return side;
}

static struct sockaddr_in loopback(const char* port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(port))};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return address;
}

static void accept_one(int listener, const struct sockaddr_in* upstream) {
    int client = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (client < 0) return;
    int server = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (server < 0) fail("socket");
    if (connect(server, (const struct sockaddr*)upstream, sizeof *upstream) != 0 &&
        errno != EINPROGRESS) {
        close(client);
        close(server);
        return;
    }
    struct side* a = new_side(client, 0);
    struct side* b = new_side(server, EPOLLOUT);
    a->peer = b;
    b->peer = a;
    b->connecting = 1;
}

int main(int argc, char** argv) {
    if (argc != 3) {
        fprintf(stderr, "usage: %s LISTEN_PORT UPSTREAM_PORT\n", argv[0]);
        return 2;
    }
    const struct sockaddr_in listen_at = loopback(argv[1]);
    const struct sockaddr_in upstream = loopback(argv[2]);
    poller = epoll_create1(EPOLL_CLOEXEC);
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    int on = 1;
    if (poller < 0 || listener < 0) fail("socket");
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(listener, (const struct sockaddr*)&listen_at, sizeof listen_at) != 0 ||
        listen(listener, 1024) != 0) {
        fail("listen");
    }
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
    if (epoll_ctl(poller, EPOLL_CTL_ADD, listener, &event) != 0) fail("epoll_ctl");

    for (;;) {
        struct epoll_event events[events_at_once];
        int count = epoll_wait(poller, events, events_at_once, -1);
        if (count < 0 && errno != EINTR) fail("epoll_wait");
        for (int i = 0; i < count; ++i) {
            struct side* side = events[i].data.ptr;
            if (side == NULL) {
                accept_one(listener, &upstream);
                continue;
            }
            if (side->fd >= 0 && (events[i].events & EPOLLOUT)) writable(side);
            if (side->fd >= 0 && (events[i].events & EPOLLIN)) readable(side);
            // A reset that nobody reads or writes for would be reported for ever.
            if (side->fd >= 0 && (events[i].events & (EPOLLERR | EPOLLHUP)) &&
                !(events[i].events & EPOLLIN)) {
                close_both(side);
            }
        }
        while (closed != NULL) {
            struct side* next = closed->next_closed;
            free(closed);
            closed = next;
        }
    }
}
