# shellcheck shell=bash
# What the scripts share: messages, free ports, and throw-away PostgreSQL servers. Sourced, never run.
# It expects `set -euo pipefail` and sets `root`, the repository's top folder. Functions here say `return 0`
# in full: in a trap, a bare `return` gives the status of what the signal interrupted.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

say() { printf '%s\n' "$*" >&2; }
die() {
    say "$(basename "$0"): $*"
    exit 1
}

# Dies unless the option at "$1" has a value behind it: `need_value "$@"`.
need_value() { [ $# -ge 2 ] || die "$1 needs a value; see --help."; }

# True when something listens at 127.0.0.1:$1.
port_answers() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# Prints the first port from $1 upwards at which nothing listens.
free_port_from() {
    local port=$1
    while [ "$port" -lt 65535 ]; do
        if ! port_answers "$port"; then
            printf '%s' "$port"
            return 0
        fi
        port=$((port + 1))
    done
    die "no free port from $1 upwards."
}

# Prints a port at random at which nothing listens.
random_free_port() { free_port_from $((20000 + RANDOM % 12000)); }

# Prints the folder of the newest PostgreSQL server's programs.
pg_bindir() {
    local dir
    for dir in $(printf '%s\n' /usr/lib/postgresql/*/bin /usr/pgsql-*/bin | sort -rV); do
        if [ -x "$dir/initdb" ] && [ -x "$dir/postgres" ]; then
            printf '%s' "$dir"
            return 0
        fi
    done
    if command -v initdb >/dev/null && command -v postgres >/dev/null; then
        dirname "$(command -v initdb)"
        return 0
    fi
    return 1
}

# Runs a command as the user who owns throw-away servers: PostgreSQL refuses to be run by root.
as_postgres() {
    if [ "$(id -u)" = 0 ]; then
        (cd / && exec setpriv --reuid postgres --regid postgres --init-groups "$@")
    else
        "$@"
    fi
}

# Makes and starts a server: throwaway_postgres DIR [extra settings line]...
# Its data are in DIR/data, its socket and log in DIR; it trusts everyone, listens on 127.0.0.1 and at a free
# port, which is left in `pg_port`. Superuser: postgres.
throwaway_postgres() {
    local dir=$1 bin attempt
    shift
    bin=$(pg_bindir) || die "no PostgreSQL server found. Run tools/deps run."
    if [ "$(id -u)" = 0 ]; then
        id postgres >/dev/null 2>&1 || die "there is no user postgres to run a server as. Run this as another user than root."
        chown postgres: "$dir"
    fi
    as_postgres "$bin/initdb" --no-sync -A trust -U postgres -E UTF8 --locale=C.UTF-8 -D "$dir/data" \
        >"$dir/initdb.log" 2>&1 || { cat "$dir/initdb.log" >&2; die "initdb failed."; }
    for attempt in 1 2 3; do
        pg_port=$(random_free_port)
        {
            echo "listen_addresses = '127.0.0.1'"
            echo "port = $pg_port"
            echo "unix_socket_directories = '$dir'"
            echo "fsync = off"
            [ $# = 0 ] || printf '%s\n' "$@"
        } >>"$dir/data/postgresql.auto.conf"
        # Descriptors above 2 may be pipes of the caller, which a server must not hold open.
        if as_postgres "$bin/pg_ctl" -s -w -t 60 -D "$dir/data" -l "$dir/postgres.log" start >/dev/null 3>&- 4>&-; then
            return 0
        fi
        say "PostgreSQL did not start at port $pg_port (attempt $attempt of 3)."
    done
    cat "$dir/postgres.log" >&2
    die "the throw-away PostgreSQL did not start; its log is above."
}

# Makes the throw-away server in DIR ask for passwords in one database, which it makes: people log in to that one on the
# approval page, which lets nobody in whom the server has not asked for a password.
ask_for_passwords_in() {
    local dir=$1 database=$2
    sed -i "1i host $database all 127.0.0.1/32 scram-sha-256" "$dir/data/pg_hba.conf"
    PGOPTIONS='' psql -X -q -h 127.0.0.1 -p "$pg_port" -U postgres -d postgres -c "CREATE DATABASE $database" \
        -c 'SELECT pg_reload_conf()' >/dev/null
}

# Stops the server in DIR, if it runs.
stop_throwaway_postgres() {
    local dir=$1 bin
    if [ -f "$dir/data/postmaster.pid" ]; then
        bin=$(pg_bindir)
        as_postgres "$bin/pg_ctl" -s -w -m immediate -D "$dir/data" stop >/dev/null 2>&1 || true
    fi
}

# Configures and builds one preset of CMakePresets.json: build_preset NAME [ninja target]...
# Quiet when all goes well; `verbose=1` shows everything.
build_preset() {
    local preset=$1 log
    shift
    mkdir -p "$root/build"
    log=$root/build/$preset.log
    (
        cd "$root"
        # Ninja asks CMake again when a CMakeLists.txt has changed, but knows nothing of presets.
        if [ ! "build/$preset/build.ninja" -nt CMakePresets.json ]; then
            cmake --preset "$preset" >"$log" 2>&1 || { cat "$log" >&2; exit 1; }
        fi
        if [ "${verbose:-0}" = 1 ] || [ -t 2 ]; then
            ninja -C "build/$preset" "$@" >&2
        else
            ninja -C "build/$preset" "$@" >"$log" 2>&1 || { tail -n 200 "$log" >&2; exit 1; }
        fi
    ) || die "the build in build/$preset failed; what the compiler said is above."
}
