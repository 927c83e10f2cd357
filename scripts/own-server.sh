#!/usr/bin/env bash
# One Kafka, PostgreSQL or Redis of a test's own, to be stopped, killed, frozen and started again:
#
#   own-server.sh kafka <folder> <port> [<second port> <port that its clients come by>]
#   own-server.sh kafka <folder> <port> <PEM file with key and certificate> [name=…,password=…]
#   own-server.sh postgres <folder> <port> [name=value…]
#   own-server.sh redis <folder> <port>
#
# It starts the server in the folder and says "pid <n>" once that answers, again for every line it reads (on what the server was
# left with), and kills what is left when its input ends: the server goes with the test, whatever becomes of that.
#
# STOCKYARD_OWN_DISK=<megabytes>: the folder's disk/ has that size, so that it can be full, and the server's data lies there with
# STOCKYARD_OWN_DISK_HOLDS=data. It is a file system in memory that only this script and what it starts can see (the test by
# /proc/<pid of this script>/root). Exits with 77 where nobody may make one.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=servers.sh
. "$(dirname "${BASH_SOURCE[0]}")/servers.sh"

[ $# -ge 3 ] || die "usage: $0 kafka|postgres|redis folder port [argument…]"
kind=$1 base=$2 port=$3
mkdir -p "$base/run" "$base/logs"

if [ -n "${STOCKYARD_OWN_DISK:-}" ]; then
    export STOCKYARD_OWN_DISK_SIZE=${STOCKYARD_OWN_DISK}m
    unset STOCKYARD_OWN_DISK
    mkdir -p "$base/disk"
    # shellcheck disable=SC2016 # expanded by the shell in the namespace
    mount='mount -t tmpfs -o "size=$STOCKYARD_OWN_DISK_SIZE,mode=711" stockyard-test "$1/disk" || exit 77; shift; exec "$@"'
    if [ "$(id -u)" = 0 ]; then
        unshare --mount true || exit 77
        exec unshare --mount sh -c "$mount" sh "$base" "$0" "$@"
    fi
    # Root within, to mount, and then somebody else again: PostgreSQL refuses to run as any root.
    unshare --user --map-root-user --mount unshare --user --map-user=1 --map-group=1 true || exit 77
    exec unshare --user --map-root-user --mount sh -c "$mount" sh "$base" unshare --user --map-user=1 --map-group=1 "$0" "$@"
fi
[ -z "${STOCKYARD_OWN_DISK_HOLDS:-}" ] || [ -e "$base/data" ] || ln -s disk "$base/data"
mkdir -p "$base/data"

# Its parent is this shell, which buries it at once: to PostgreSQL a process that nobody buried is one that still runs.
launch() {
    set -m
    spawn "$@"
    set +m
}

# children_of <pid>: PostgreSQL's processes are no process group.
children_of() {
    local pid parent
    ps -A -o pid= -o ppid= | while read -r pid parent; do [ "$parent" != "$1" ] || printf '%s ' "$pid"; done
}
finish() {
    trap - EXIT INT TERM HUP
    local pid
    if pid=$(pid_of "$kind"); then
        # shellcheck disable=SC2046
        kill -s KILL "$pid" $(children_of "$pid") 2>/dev/null || true
        await_end "$kind" 10 || warn "$kind (pid $pid) cannot be ended"
    fi
    # The disk goes with the namespace.
    rm -rf "$base" 2>/dev/null || true
}
trap finish EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

start() {
    # Nothing of this script's is left open in the server.
    "start_$kind" "$port" "$@" 3>&- || {
        failed "$kind"
        exit 1
    }
    printf 'pid %s\n' "$(pid_of "$kind")" >&3
}

# What is said goes to whoever looks, what is told to the test.
exec 3>&1 1>&2
"fetch_$kind"
[ "$kind" != kafka ] || need java
if [ "$kind" = postgres ]; then settings=(password "${@:4}"); else settings=("${@:4}"); fi
start "${settings[@]+"${settings[@]}"}"
while read -r _; do start "${settings[@]+"${settings[@]}"}"; done
