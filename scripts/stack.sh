#!/usr/bin/env bash
# The trial stack on this machine: stack.sh start | stop | status | logs [name] | run <stockyard arguments>
#
# With a Docker engine it is docker-compose.yml, without one the same servers as local processes under .stockyard/.
# STOCKYARD_STACK=docker|local chooses. Settings come from the environment, then from .env; .env.example lists them.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=servers.sh
. "$(dirname "${BASH_SOURCE[0]}")/servers.sh"

# --- settings --------------------------------------------------------------------------------------------------------

read_env_file() {
    local line name value
    [ -f "$checkout/.env" ] || return 0
    while IFS= read -r line || [ -n "$line" ]; do
        [[ $line =~ ^[[:space:]]*(export[[:space:]]+)?([A-Za-z_][A-Za-z0-9_]*)=(.*)$ ]] || continue
        name=${BASH_REMATCH[2]} value=${BASH_REMATCH[3]}
        if [[ $value =~ ^\"(.*)\"[[:space:]]*$ || $value =~ ^\'(.*)\'[[:space:]]*$ ]]; then value=${BASH_REMATCH[1]}; fi
        [ -n "${!name+set}" ] || export "$name=$value"
    done <"$checkout/.env"
}
read_env_file

export STOCKYARD_PORT=${STOCKYARD_PORT:-8000} GRAFANA_PORT=${GRAFANA_PORT:-3000}
export PROMETHEUS_PORT=${PROMETHEUS_PORT:-9090} ALERTMANAGER_PORT=${ALERTMANAGER_PORT:-9093}
export KAFKA_PORT=${KAFKA_PORT:-9092} POSTGRES_PORT=${POSTGRES_PORT:-5432} REDIS_PORT=${REDIS_PORT:-6379}
# What it was started with it goes on with, until it is said anew.
PROFILE=${PROFILE:-$(cat "$base/run/profile" 2>/dev/null || echo quick)}
export PROFILE
know_revision
case $PROFILE in dev | test) profile_folder=debug ;; *) profile_folder=$PROFILE ;; esac
binary=${CARGO_TARGET_DIR:-$checkout/target}/$profile_folder/stockyard
service=http://127.0.0.1:$STOCKYARD_PORT

# A server of one's own is used as it is; ours is then not started.
ours=""
[ -n "${KAFKA_BOOTSTRAP_SERVERS:-}" ] || ours="$ours kafka"
[ -n "${DATABASE_URL:-}" ] || ours="$ours postgres"
[ -n "${REDIS_URL:-}" ] || ours="$ours redis"
is_ours() { [[ " $ours " == *" $1 "* ]]; }

docker_works() { command -v docker >/dev/null && docker compose version >/dev/null 2>&1 && docker info >/dev/null 2>&1; }

choose_stack() {
    case ${STOCKYARD_STACK:-} in
        docker) docker_works || die "STOCKYARD_STACK=docker, but there is no Docker engine with Compose v2 to be reached" ;;
        local) ;;
        "")
            # Containers cannot reach what listens on this machine's loopback, and a local stack that runs stays one.
            STOCKYARD_STACK=local
            if [ "$ours" = " kafka postgres redis" ] && ! any_running && docker_works; then STOCKYARD_STACK=docker; fi
            ;;
        *) die "STOCKYARD_STACK is docker or local, not $STOCKYARD_STACK" ;;
    esac
}

any_running() {
    local name
    for name in stockyard kafka postgres redis prometheus alertmanager grafana; do ! pid_of "$name" >/dev/null || return 0; done
    return 1
}

# What the service and its tools are told. Sets STOCKYARD__HTTP__LISTEN only where nobody did.
export_addresses() {
    export KAFKA_BOOTSTRAP_SERVERS=${KAFKA_BOOTSTRAP_SERVERS:-127.0.0.1:$KAFKA_PORT}
    export DATABASE_URL=${DATABASE_URL:-postgres://stockyard:stockyard@127.0.0.1:$POSTGRES_PORT/stockyard}
    export REDIS_URL=${REDIS_URL:-redis://127.0.0.1:$REDIS_PORT}
    export STOCKYARD__HTTP__LISTEN=${STOCKYARD__HTTP__LISTEN:-127.0.0.1:$STOCKYARD_PORT}
    # The trial's data is invented, and its example page is opened from a file.
    export STOCKYARD__HTTP__ALLOWED_ORIGINS=${STOCKYARD__HTTP__ALLOWED_ORIGINS:-loopback,file}
}

# --- ports and answers -----------------------------------------------------------------------------------------------

# setting_of <part>: the name of the setting that moves it.
setting_of() { printf '%s_PORT' "$(printf '%s' "$1" | tr '[:lower:]' '[:upper:]')"; }

# require_port <part>: free, or the end.
require_port() {
    local setting port
    setting=$(setting_of "$1")
    port=${!setting}
    port_in_use "$port" || return 0
    die "port $port is in use$(user_of_port "$port"): stop that, or move $1 with $setting=<another port> (in the environment or in .env)"
}

# wants_port <part> <port>: whether it has still to be started there.
wants_port() { ! pid_of "$1" >/dev/null || [ "$(port_of "$1")" != "$2" ]; }

# http_status <port> <path>: the number, or nothing.
http_status() {
    (
        exec 3<>"/dev/tcp/127.0.0.1/$1"
        printf 'GET %s HTTP/1.1\r\nHost: 127.0.0.1:%s\r\nConnection: close\r\n\r\n' "$2" "$1" >&3
        read -r -t 5 _ status _ <&3
        printf '%s' "$status"
    ) 2>/dev/null || true
}

# --- local processes -------------------------------------------------------------------------------------------------

# build: becomes cargo, so that ending the one ends the other.
build() {
    cd "$checkout"
    exec env SQLX_OFFLINE=true cargo build --locked --profile "$PROFILE" --bin stockyard >"$home/logs/build.log" 2>&1
}

# Until the build that runs beside the servers' start is done, with its own words as progress.
await_build() {
    local code=0 shown=""
    if kill -0 "$build_pid" 2>/dev/null; then
        sleep 0.5
        if kill -0 "$build_pid" 2>/dev/null; then
            say "building stockyard (profile $PROFILE) …"
            tail -n 1 -f "$home/logs/build.log" &
            follower=$! shown=yes
        fi
    fi
    wait "$build_pid" || code=$?
    build_pid=""
    if [ -n "$follower" ]; then
        # Waited for inside the braces, so that bash keeps to itself that it was ended.
        { kill "$follower" && wait "$follower"; } 2>/dev/null || true
        follower=""
    fi
    [ "$code" = 0 ] || {
        [ -n "$shown" ] || tail -n 40 "$home/logs/build.log" >&2
        die "the build failed; all of it is in $home/logs/build.log"
    }
}

# ensure <part> <port> <start> [argument…]: started, unless it runs there already.
ensure() {
    local name=$1 port=$2 start=$3 began=$SECONDS
    shift 3
    wants_port "$name" "$port" || return 0
    stop_part "$name"
    say "starting $name on 127.0.0.1:$port …"
    if ! "$start" "$port" "$@"; then
        failed "$name"
        return 1
    fi
    [ $((SECONDS - began)) -lt 10 ] || say "  up in $((SECONDS - began)) s"
}

start_servers() {
    local sizes
    if is_ours kafka; then
        fetch_kafka
        need java
        ensure kafka "$KAFKA_PORT" start_kafka || exit 1
    fi
    if is_ours postgres; then
        fetch_postgres
        postgres_sizes
        ensure postgres "$POSTGRES_PORT" start_postgres scram-sha-256 max_connections=200 "${sizes[@]}" || exit 1
    fi
    if is_ours redis; then
        fetch_redis
        ensure redis "$REDIS_PORT" start_redis || exit 1
    fi
    start_monitoring
}

# replace <file>: by what was written beside it, if that says something else.
replace() { if cmp -s "$1.new" "$1"; then rm "$1.new"; else mv "$1.new" "$1"; fi; }

# read_again <part> <file>…: HUP makes it read what was changed since it was started.
read_again() {
    local name=$1 pid file
    shift
    pid=$(pid_of "$name") || return 0
    for file in "$@"; do
        if [ "$file" -nt "$base/run/$name.pid" ]; then
            kill -s HUP "$pid"
            return
        fi
    done
}

# None is needed for an answer, so none ends the start.
start_monitoring() {
    local config=$base/run/prometheus.yml rules=$base/run/prometheus/alerts.yml without=""
    if [ -n "$alertmanager" ]; then
        read_again alertmanager "$checkout/alertmanager.yml"
        ensure alertmanager "$ALERTMANAGER_PORT" start_alertmanager "$checkout/alertmanager.yml" || warn "going on without Alertmanager"
    else
        without='/^alerting:/,/^$/d'
    fi
    if [ -n "$prometheus" ]; then
        mkdir -p "${rules%/*}"
        sed -e "$without" -e "s/stockyard:8000/127.0.0.1:$STOCKYARD_PORT/" -e "s/alertmanager:9093/127.0.0.1:$ALERTMANAGER_PORT/" \
            "$checkout/prometheus.yml" >"$config.new"
        replace "$config"
        cp "$checkout/prometheus/alerts.yml" "$rules.new"
        replace "$rules"
        read_again prometheus "$config" "$rules"
        ensure prometheus "$PROMETHEUS_PORT" start_prometheus "$config" || warn "going on without Prometheus"
    fi
    if [ -n "$grafana_home" ]; then
        ensure grafana "$GRAFANA_PORT" start_grafana "http://127.0.0.1:$PROMETHEUS_PORT" || warn "going on without Grafana"
    fi
}

# The service, started anew when it was built anew or is to be told something else.
start_service() {
    local told deadline
    told=$(env | grep -E '^(STOCKYARD__|DATABASE_URL=|REDIS_URL=|KAFKA_)' | sort | cksum)
    if ! wants_port stockyard "$STOCKYARD_PORT" && [ "$told" = "$(cat "$base/run/stockyard.told" 2>/dev/null)" ] &&
        ! [ "$binary" -nt "$base/run/stockyard.pid" ] && [ "$(http_status "$STOCKYARD_PORT" /readyz)" = 200 ]; then
        return
    fi
    stop_part stockyard
    say "starting stockyard on 127.0.0.1:$STOCKYARD_PORT …"
    # It talks to Kafka and PostgreSQL, which may be somebody else's, so it says itself what is wrong.
    "$binary" migrate >"$base/logs/migrate.log" 2>&1 || { tail -n 15 "$base/logs/migrate.log" >&2; die "stockyard migrate failed"; }
    launch stockyard "$STOCKYARD_PORT" "$binary" serve --role all
    printf '%s\n' "$told" >"$base/run/stockyard.told"
    deadline=$((SECONDS + 60))
    until [ "$(http_status "$STOCKYARD_PORT" /readyz)" = 200 ]; do
        if ! pid_of stockyard >/dev/null; then
            failed stockyard
            exit 1
        elif [ "$SECONDS" -ge "$deadline" ]; then
            failed stockyard
            die "stockyard runs, but $service/readyz has not said 200 within 60 s"
        fi
        sleep 0.1
    done
}

start_local() {
    local began=$SECONDS name setting
    { mkdir -p "$home/logs" "$home/run" && [ -w "$home/run" ]; } 2>/dev/null ||
        die "$home cannot be written by $(id -un): remove it, or have it given to you with chown"
    lock "$home/run/stack.lock" 900
    # shellcheck disable=SC2086 # none, one or two of them
    trap 'unlock "$home/run/stack.lock"; kill $build_pid $follower 2>/dev/null || true' EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
    need_tools
    ulimit -S -n "$(ulimit -H -n)" 2>/dev/null || true
    find_grafana
    fetch_prometheus
    fetch_alertmanager
    # All ports before anything is started.
    for name in stockyard $ours ${prometheus:+prometheus} ${alertmanager:+alertmanager} ${grafana_home:+grafana}; do
        setting=$(setting_of "$name")
        if wants_port "$name" "${!setting}"; then require_port "$name"; fi
    done

    echo "$PROFILE" >"$base/run/profile"
    # The build takes longest and needs no server: both at once.
    build &
    build_pid=$!
    start_servers
    await_build
    export_addresses
    start_service
    addresses $((SECONDS - began))
}

stop_local() {
    mkdir -p "$home/run"
    lock "$home/run/stack.lock" 900
    trap 'unlock "$home/run/stack.lock"' EXIT
    if any_running; then
        # First who writes, then what it writes to.
        stop_part stockyard
        stop_servers
        say "stopped; the data stays in $home/data"
    else
        say "nothing runs"
    fi
}

# A line for each part: running or not, pid, address, and what it says there.
status_local() {
    local name pid port health
    find_grafana
    for name in stockyard kafka postgres redis prometheus alertmanager grafana; do
        if pid=$(pid_of "$name"); then
            port=$(port_of "$name")
            if [ "$name" = stockyard ]; then
                health=$(http_status "$port" /readyz)
                case $health in 200) health=ready ;; "") health="does not answer" ;; *) health="not ready ($health)" ;; esac
            else
                health=$(port_in_use "$port" && echo answers || echo "does not answer")
            fi
            printf '%-12s running  pid %-8s 127.0.0.1:%-6s %s\n' "$name" "$pid" "$port" "$health"
        else
            health=stopped
            case $name in
                kafka | postgres | redis) is_ours "$name" || health="one of your own" ;;
                grafana) [ -n "$grafana_home" ] || health="none on this machine" ;;
            esac
            printf '%-12s %s\n' "$name" "$health"
        fi
    done
}

logs_local() {
    local log=$home/logs/${1:-stockyard}.log
    [ -f "$log" ] || die "no $log; there is: $(cd "$home/logs" 2>/dev/null && echo ./*.log)"
    # Followed where somebody looks; in a pipe it would never end.
    if [ -t 1 ]; then tail -n 50 -F "$log"; else tail -n 50 "$log"; fi
}

# --- Docker ----------------------------------------------------------------------------------------------------------

# With digests where somebody had them written (docker-compose.yml says how).
compose() {
    local files=(-f "$checkout/docker-compose.yml")
    [ ! -f "$checkout/docker-compose.digests.yml" ] || files+=(-f "$checkout/docker-compose.digests.yml")
    docker compose "${files[@]}" "$@"
}

start_docker() {
    local began=$SECONDS name
    if [ -z "$(compose ps -q)" ]; then
        for name in stockyard kafka postgres redis prometheus alertmanager grafana; do require_port "$name"; done
    fi
    say "starting containers (the first time the images are fetched and built) …"
    compose up -d --build --wait || die "not everything came up: see make status and make logs"
    export_addresses
    grafana_home=compose prometheus=compose alertmanager=compose
    addresses $((SECONDS - began))
}

# --- what one sees ---------------------------------------------------------------------------------------------------

addresses() {
    local prometheus_line=none alertmanager_line="none; what fires is shown by Prometheus"
    local grafana_line="none found; grafana/dashboard.json can be imported into one of your own"
    [ -z "$prometheus" ] || prometheus_line="http://127.0.0.1:$PROMETHEUS_PORT"
    case $alertmanager in
        "") ;;
        */prometheus-alertmanager) alertmanager_line="http://127.0.0.1:$ALERTMANAGER_PORT (Debian's has no pages; what fires is shown by Prometheus)" ;;
        *) alertmanager_line="http://127.0.0.1:$ALERTMANAGER_PORT" ;;
    esac
    [ -z "$grafana_home" ] || grafana_line="http://127.0.0.1:$GRAFANA_PORT"
    cat <<END

Stockyard is ready ($1 s).

  dashboard    $service/
  the API      $service/docs
  Prometheus   $prometheus_line
  Alertmanager $alertmanager_line
  Grafana      $grafana_line
  Kafka        $KAFKA_BOOTSTRAP_SERVERS
  PostgreSQL   $(is_ours postgres && echo "$DATABASE_URL" || echo "${DATABASE_URL##*@}")
  Redis        $(is_ours redis && echo "$REDIS_URL" || echo "${REDIS_URL##*@}")

Try:
  make produce
  curl $service/health
  curl $service/api/movements/<an id that make produce printed>

make stop ends it.
END
}

run() {
    if [ "$STOCKYARD_STACK" = docker ]; then
        # In the folder of the caller, as the caller, so that files it writes (an oracle) are there afterwards.
        compose run --rm --no-deps --user "$(id -u):$(id -g)" -v "$PWD:/here" -w /here stockyard "$@"
    else
        [ -x "$binary" ] || die "there is no $binary: run make start first"
        export_addresses
        exec "$binary" "$@"
    fi
}

build_pid="" follower="" prometheus="" alertmanager="" grafana_home=""
action=${1:-}
[ $# = 0 ] || shift
choose_stack
case $action:$STOCKYARD_STACK in
    start:local) start_local ;;
    start:docker) start_docker ;;
    stop:local) stop_local ;;
    stop:docker) compose down ;;
    status:local) status_local ;;
    status:docker) compose ps ;;
    logs:local) logs_local "$@" ;;
    logs:docker) compose logs --tail 50 "$@" ;;
    run:*) run "$@" ;;
    *) die "usage: $0 start | stop | status | logs [name] | run <stockyard arguments>" ;;
esac
