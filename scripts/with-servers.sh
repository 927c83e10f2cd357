#!/usr/bin/env bash
# Runs a command with a Kafka, a PostgreSQL and a Redis of its own: new ones, on free ports, in a temporary folder, stopped and
# removed when the command ends. What the command finds in its environment:
#
#   STOCKYARD_TEST_DATABASE_URL  a superuser, who may create databases
#   STOCKYARD_TEST_REDIS_URL
#   STOCKYARD_TEST_KAFKA         host:port
#   STOCKYARD_TEST_REDIS_SERVER  the program, for tests that stop and start one
#   STOCKYARD_TEST_PROMETHEUS    the program; not set where there is none
#   STOCKYARD_TEST_ALERTMANAGER  the program; not set where there is none
#   STOCKYARD_TEST_CHROMIUM      the program; not set where there is none
#
# One that is set already is left alone and its server not started. STOCKYARD_POSTGRES_VERSION chooses another PostgreSQL;
# STOCKYARD_FULL_SIZE=1 gives it what the trial stack gives it, for benchmarks.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=servers.sh
. "$(dirname "${BASH_SOURCE[0]}")/servers.sh"

[ $# -gt 0 ] || die "usage: $0 command [argument…]"
# shellcheck disable=SC2034 # read through their names
own_kafka=STOCKYARD_TEST_KAFKA own_postgres=STOCKYARD_TEST_DATABASE_URL own_redis=STOCKYARD_TEST_REDIS_URL

base=$(mktemp -d "${TMPDIR:-/tmp}/stockyard-test.XXXXXX")
# PostgreSQL may have to run as another user, who has to get in.
chmod 711 "$base"
mkdir "$base/data" "$base/run" "$base/logs"
finish() {
    trap - EXIT INT TERM HUP
    stop_servers
    rm -rf "$base"
}
trap finish EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

# on_free_port <name> <start> [argument…]: somebody else may take the port between looking and binding, so three tries. Sets `port`.
on_free_port() {
    local name=$1 start=$2 tries=3
    shift 2
    while [ "$tries" -gt 0 ]; do
        port=$(free_port)
        if "$start" "$port" "$@"; then return; fi
        stop_part "$name"
        tries=$((tries - 1))
    done
    failed "$name"
    exit 1
}

need_tools
began=$SECONDS
if [ -z "${STOCKYARD_TEST_KAFKA:-}" ]; then
    fetch_kafka
    need java
    on_free_port kafka start_kafka
    export STOCKYARD_TEST_KAFKA=127.0.0.1:$port
fi
if [ -z "${STOCKYARD_TEST_DATABASE_URL:-}" ]; then
    fetch_postgres
    # Cleartext passwords, on loopback: a test opens many connections, and hashing in an unoptimised client takes longer than a test.
    sizes=(shared_buffers=128MB max_wal_size=1GB)
    [ -z "${STOCKYARD_FULL_SIZE:-}" ] || postgres_sizes
    on_free_port postgres start_postgres password max_connections=300 "${sizes[@]}"
    export STOCKYARD_TEST_DATABASE_URL=postgres://stockyard:stockyard@127.0.0.1:$port/postgres
fi
fetch_redis
if [ -z "${STOCKYARD_TEST_REDIS_URL:-}" ]; then
    on_free_port redis start_redis
    export STOCKYARD_TEST_REDIS_URL=redis://127.0.0.1:$port
fi
export STOCKYARD_TEST_REDIS_SERVER=${STOCKYARD_TEST_REDIS_SERVER:-$redis}
if [ -z "${STOCKYARD_TEST_PROMETHEUS:-}" ]; then
    fetch_prometheus
    [ -z "$prometheus" ] || export STOCKYARD_TEST_PROMETHEUS=$prometheus
fi
if [ -z "${STOCKYARD_TEST_ALERTMANAGER:-}" ]; then
    fetch_alertmanager
    [ -z "$alertmanager" ] || export STOCKYARD_TEST_ALERTMANAGER=$alertmanager
fi
if [ -z "${STOCKYARD_TEST_CHROMIUM:-}" ]; then
    find_chromium
    [ -z "$chromium" ] || export STOCKYARD_TEST_CHROMIUM=$chromium
fi
say "test servers up in $((SECONDS - began)) s: Kafka $STOCKYARD_TEST_KAFKA, PostgreSQL ${STOCKYARD_TEST_DATABASE_URL##*@}, Redis $STOCKYARD_TEST_REDIS_URL"

if [ -t 0 ]; then
    # At a terminal the command may want to be asked; Ctrl-C reaches it by itself.
    "$@"
else
    # In a process group of its own, so that a signal to this script alone ends all of it, and at once.
    set -m
    "$@" <&0 &
    command_pid=$!
    set +m
    for signal in HUP INT TERM; do
        # shellcheck disable=SC2064
        trap "kill -s TERM -- -$command_pid 2>/dev/null || true; wait $command_pid || true; exit \$((128 + $(kill -l $signal)))" $signal
    done
    wait "$command_pid"
fi
