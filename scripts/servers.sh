# shellcheck shell=bash
# Kafka, PostgreSQL, Redis, Prometheus, Alertmanager and Grafana as processes of this machine: fetch, start, wait, stop. Sourced by
# stack.sh (the trial under .stockyard/) and with-servers.sh (a set of one's own for a test run), which choose the folder and the ports.
#
# Every server listens on loopback only, writes one log and leaves one pid file. Nothing here needs more than bash 3.2,
# coreutils, grep and sed; what else is missing is named, and installed where that is possible.

checkout=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
home=$checkout/.stockyard
servers=$home/servers
fetch_log=$home/logs/fetch.log
# The folder with data/, run/ and logs/ of the servers below; with-servers.sh sets its own.
base=$home
# What names a server of one's own, for the message when ours cannot be had.
# shellcheck disable=SC2034 # read through their names
own_kafka=KAFKA_BOOTSTRAP_SERVERS own_postgres=DATABASE_URL own_redis=REDIS_URL

say() { printf '%s\n' "$*"; }
warn() { printf '%s\n' "$*" >&2; }
die() {
    warn "$*"
    exit 1
}

# pinned <name>: the version pom.xml gives.
pinned() { sed -n "s:.*<$1\.version>\(.*\)</$1\.version>.*:\1:p" "$checkout/pom.xml"; }

# know_revision: what `stockyard --version` and the metrics say it was built from. Whoever builds the same has to know the same.
know_revision() {
    STOCKYARD_REVISION=${STOCKYARD_REVISION:-$(git -C "$checkout" rev-parse --short HEAD 2>/dev/null || echo unknown)}
    export STOCKYARD_REVISION
}

# --- processes -------------------------------------------------------------------------------------------------------

# started_at <pid>: when a process began, empty if it is gone or only waits to be reaped. With the pid it is an identity: pids are
# given again, and a pid file can outlive a reboot.
started_at() {
    local line
    if [ -r /proc/self/stat ]; then
        line=$(cat "/proc/$1/stat" 2>/dev/null) || return 0
        # The name is in brackets and may hold anything, so count from the last bracket.
        # shellcheck disable=SC2086
        set -- ${line##*) }
        [ "$1" = Z ] || printf '%s' "${20}"
    else
        ps -o lstart= -p "$1" 2>/dev/null | tr -s ' ' _ || true
    fi
}

# pid_of <name>: the pid of a running part; fails if it does not run.
pid_of() {
    local pid port began
    read -r pid port began 2>/dev/null <"$base/run/$1.pid" || return 1
    [ -n "$began" ] && [ "$(started_at "$pid")" = "$began" ] && printf '%s' "$pid"
}

# port_of <name>: the port a part was started on.
port_of() { cut -d ' ' -f 2 "$base/run/$1.pid"; }

# launch <name> <port> <command>…: starts a process that outlives this script. A process group of its own (that is what `set -m` is
# for) keeps the terminal's Ctrl-C from it.
launch() { (set -m && spawn "$@"); }

# spawn <name> <port> <command>…: the same as a child of this shell.
spawn() {
    local name=$1 port=$2
    shift 2
    mkdir -p "$base/run" "$base/logs"
    [ ! -f "$base/logs/$name.log" ] || mv -f "$base/logs/$name.log" "$base/logs/$name.log.1"
    nohup "$@" >"$base/logs/$name.log" 2>&1 </dev/null &
    printf '%s %s %s\n' "$!" "$port" "$(started_at $!)" >"$base/run/$name.pid"
}

# await_line <name> <text> <seconds>: until the log of a part says so; fails when it ends first or takes longer. The log and not the
# port is asked: a port may be answered by somebody else.
await_line() {
    local deadline=$((SECONDS + $3))
    until grep -q "$2" "$base/logs/$1.log" 2>/dev/null; do
        pid_of "$1" >/dev/null || return 1
        [ "$SECONDS" -lt "$deadline" ] || return 1
        sleep 0.1
    done
}

# failed <name>: shows why a part did not start.
failed() {
    warn "$1 did not start; the end of $base/logs/$1.log:"
    tail -n 15 "$base/logs/$1.log" | sed 's/^/    /' >&2
}

# stop_part <name>: asks, waits, and then kills.
stop_part() {
    local pid signal=TERM seconds=10
    case $1 in
        # It gives open requests and the batch under way their time.
        stockyard) seconds=15 ;;
        # INT is PostgreSQL's fast shutdown; TERM would wait for every client to leave.
        postgres) signal=INT seconds=60 ;;
        kafka) seconds=30 ;;
    esac
    if pid=$(pid_of "$1"); then
        kill -s "$signal" "$pid" 2>/dev/null || true
        await_end "$1" "$seconds" || {
            warn "$1 did not end within $seconds s: killed"
            kill -s KILL "$pid" 2>/dev/null || true
            await_end "$1" 5 || die "$1 (pid $pid) cannot be ended"
        }
    fi
    rm -f "$base/run/$1.pid"
}

await_end() {
    local deadline=$((SECONDS + $2))
    while pid_of "$1" >/dev/null; do
        [ "$SECONDS" -lt "$deadline" ] || return 1
        sleep 0.1
    done
}

stop_servers() {
    local name
    for name in grafana prometheus alertmanager redis kafka postgres; do stop_part "$name" & done
    wait
}

# lock <file> <seconds>: one holder at a time. A hard link is there as a whole or not at all, and the identity in it tells a holder
# that died.
lock() {
    local file=$1 deadline=$((SECONDS + $2)) holder told=""
    mkdir -p "$(dirname "$file")"
    printf '%s %s\n' "$$" "$(started_at $$)" >"$file.$$"
    until ln "$file.$$" "$file" 2>/dev/null; do
        if holder=$(cat "$file" 2>/dev/null) && [ "$(started_at "${holder% *}")" != "${holder#* }" ]; then
            # Two may find the same dead holder: what was moved aside is put back if it is not that one.
            mv -f "$file" "$file.$$.old" 2>/dev/null || continue
            [ "$(cat "$file.$$.old")" = "$holder" ] || ln "$file.$$.old" "$file" 2>/dev/null || true
            rm -f "$file.$$.old"
        elif [ "$SECONDS" -ge "$deadline" ]; then
            rm -f "$file.$$"
            die "another run (pid ${holder% *}) has held $file for $2 s"
        else
            [ -n "$told" ] || [ -z "$holder" ] || say "waiting for another run (pid ${holder% *}) …"
            told=yes
            sleep 0.2
        fi
    done
    rm -f "$file.$$"
}
unlock() { rm -f "$1"; }

# --- ports -----------------------------------------------------------------------------------------------------------

port_in_use() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# user_of_port <port>: " by name (pid n)" where the machine tells.
user_of_port() {
    if command -v ss >/dev/null; then
        ss -ltnpH "sport = :$1" 2>/dev/null | sed -n 's/.*(("\([^"]*\)",pid=\([0-9]*\).*/ by \1 (pid \2)/p' | head -n 1
    elif command -v lsof >/dev/null; then
        lsof -nP -iTCP:"$1" -sTCP:LISTEN 2>/dev/null | sed -n '2s/^\([^ ]*\) *\([0-9]*\).*/ by \1 (pid \2)/p'
    fi
}

# free_port: below the range the kernel gives to outgoing connections. Another may still take it first; who starts a
# server on it tries again then.
free_port() {
    local port
    while port=$((20000 + RANDOM % 12000)) && port_in_use "$port"; do :; done
    printf '%s' "$port"
}

# --- what has to be there --------------------------------------------------------------------------------------------

apt_install() {
    say "installing $* …"
    mkdir -p "$(dirname "$fetch_log")"
    local install=(env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@")
    # The package lists of a fresh machine are empty or old.
    "${install[@]}" >>"$fetch_log" 2>&1 || { apt-get update >>"$fetch_log" 2>&1 && "${install[@]}" >>"$fetch_log" 2>&1; }
}

java_is_new_enough() {
    local major
    major=$(java -version 2>&1 | sed -n 's/.*version "\([0-9]*\).*/\1/p' | head -n 1)
    [ "${major:-0}" -ge 17 ]
}

# need <program>…: what is missing is installed (root with apt-get) or named.
need() {
    local program missing="" packages=""
    for program in "$@"; do
        case $program in
            java) java_is_new_enough 2>/dev/null && continue ;;
            # A distribution's base has one without the modules that OpenSSL's configure uses.
            perl) perl -MFindBin -MIPC::Cmd -MTime::Piece -e 1 2>/dev/null && continue ;;
            # The tar of macOS unpacks by itself.
            xz) { [ "$(uname -s)" = Darwin ] || command -v xz >/dev/null; } && continue ;;
            *) command -v "$program" >/dev/null && continue ;;
        esac
        missing="$missing $program"
        case $program in
            java) packages="$packages default-jre-headless" ;;
            mvn) packages="$packages maven" ;;
            cc) packages="$packages gcc g++ libc6-dev" ;;
            xz) packages="$packages xz-utils" ;;
            *) packages="$packages $program" ;;
        esac
    done
    [ -n "$missing" ] || return 0
    say "missing:${missing/ java/ java (17 or newer)}"
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        # shellcheck disable=SC2086
        apt_install $packages || die "cannot install$packages: see $fetch_log"
        ! [[ $missing == *java* ]] || java_is_new_enough || die "the java of this distribution is older than 17: install a JDK 17 or newer"
    else
        die "install that first (Debian: apt-get install$packages; macOS: brew install openjdk maven), then run this again"
    fi
}

# need_tools: a Rust toolchain, a C compiler, make and perl, because librdkafka and the OpenSSL it uses are built from their source, and
# on a machine where nothing was fetched yet also what fetching takes, so that all of it is named at once.
need_tools() {
    PATH=$PATH:${CARGO_HOME:-$HOME/.cargo}/bin
    command -v cargo >/dev/null || die "missing: cargo. Install Rust with rustup (the version is in Cargo.toml), then run this again"
    if [ -d "$servers" ]; then need cc make perl; else need cc make perl java mvn xz; fi
}

# cargo_tool <crate> <subcommand> <version> [cargo option…]: `cargo <subcommand>` is of that version from here on.
cargo_tool() {
    local crate=$1 subcommand=$2 version=$3 root=$home/tools/$1-$3
    shift 3
    [[ $(cargo "$subcommand" --version 2>/dev/null) != *" $version" ]] || return 0
    if [ ! -x "$root/bin/cargo-$subcommand" ]; then
        say "installing $crate $version (once, about a minute) …"
        cargo install "$crate" --version "$version" --locked --debug "$@" --root "$root" --quiet || return 1
    fi
    PATH=$root/bin:$PATH
}

# --- fetching --------------------------------------------------------------------------------------------------------

# fetch <profile> <goal> <folder> <what> [maven option…]: one server out of pom.xml, once. A folder is there as a whole or not at all.
fetch() {
    local profile=$1 goal=$2 folder=$3 what=$4 began=$SECONDS setting="own_$1"
    shift 4
    [ ! -d "$folder" ] || return 0
    lock "$servers/fetch.lock" 900
    if [ ! -d "$folder" ]; then
        need java mvn xz
        say "fetching $what …"
        mkdir -p "$home/logs"
        rm -rf "$folder.part"
        if ! mvn -q -B -Dstyle.color=never -f "$checkout/pom.xml" -P "$profile" "dependency:$goal" -DincludeScope=runtime \
            -DoutputDirectory="$folder.part" -DmarkersDirectory="$folder.part/markers" "$@" >"$fetch_log" 2>&1; then
            grep ERROR "$fetch_log" | head -n 2 >&2
            die "cannot fetch $what (all of it: $fetch_log). A server of your own can be used instead: set ${!setting}"
        fi
        case $profile in
            postgres) tar -xJf "$folder.part"/*.txz -C "$folder.part" && rm "$folder.part"/*.txz ;;
            redis) chmod +x "$folder.part"/redis-server-* ;;
        esac
        mv "$folder.part" "$folder"
        say "  fetched in $((SECONDS - began)) s"
    fi
    unlock "$servers/fetch.lock"
}

platform() {
    case $(uname -s)-$(uname -m) in
        Linux-x86_64) printf linux-amd64 ;;
        Linux-aarch64) printf linux-arm64 ;;
        Darwin-x86_64) printf darwin-amd64 ;;
        Darwin-arm64) printf darwin-arm64 ;;
        *) die "no PostgreSQL and no Redis are packaged for $(uname -sm): set $own_postgres and $own_redis" ;;
    esac
}

# Each sets the variable it is named after.
fetch_kafka() {
    local version
    version=$(pinned kafka)
    kafka=$servers/kafka-$version
    fetch kafka copy-dependencies "$kafka" "Kafka $version (46 jars, 46 MB)"
}

fetch_postgres() {
    local version platform
    version=${STOCKYARD_POSTGRES_VERSION:-$(pinned postgres)}
    platform=$(platform)
    postgres=$servers/postgres-$version
    fetch postgres unpack-dependencies "$postgres" "PostgreSQL $version (15 MB)" \
        "-Dpostgres.version=$version" "-Dpostgres.platform=${platform/arm64/arm64v8}"
}

fetch_redis() {
    local version folder file
    redis=$(command -v redis-server || command -v valkey-server || true)
    [ -z "$redis" ] || return 0
    version=$(pinned redis)
    folder=$servers/redis-$version
    fetch redis unpack-dependencies "$folder" "Redis 6.2 (11 MB)"
    for file in "$folder"/redis-server-*-"$(platform)"; do redis=$file; done
    if ! "$redis" --version >/dev/null 2>&1; then
        { [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null && apt_install libssl3 && "$redis" --version >/dev/null 2>&1; } ||
            die "the packaged Redis does not run here (it needs OpenSSL 3): install redis-server, or set $own_redis"
    fi
}

# unpack_package <package> <program> <what>: the distribution's package, unpacked and not installed: installing it would start a system
# service. Sets `unpacked` to its program, which is empty where there is none.
unpack_package() {
    local folder=$servers/$1 file=$servers/$1/usr/bin/$2
    unpacked=""
    if [ ! -x "$file" ] && command -v apt-get >/dev/null && command -v dpkg >/dev/null; then
        lock "$servers/fetch.lock" 900
        if [ ! -x "$file" ]; then
            say "fetching $3 …"
            rm -rf "$folder.part" "$folder"
            mkdir -p "$folder.part" "$home/logs"
            (
                cd "$folder.part"
                apt-get download "$1" || { [ "$(id -u)" = 0 ] && apt-get update && apt-get download "$1"; }
                dpkg -x ./"$1"_*.deb . && rm ./"$1"_*.deb
            ) >>"$fetch_log" 2>&1 && mv "$folder.part" "$folder"
        fi
        unlock "$servers/fetch.lock"
    fi
    if [ -x "$file" ]; then
        unpacked=$file
    else
        say "${3% (*}: none found and none to be fetched; going on without (one on the PATH is used)"
    fi
}

# shared <package> <folder>: the files of an unpacked package that its program looks for under /usr/share and nowhere else. Only root
# can put them there.
shared() { [ -d "$2" ] || { [ "$(id -u)" = 0 ] && mkdir -p "${2%/*}" && cp -r "$servers/$1$2" "$2"; }; }

fetch_prometheus() {
    local unpacked
    prometheus=$(command -v prometheus || true)
    [ -z "$prometheus" ] || return 0
    unpack_package prometheus prometheus "Prometheus (20 MB)"
    prometheus=$unpacked
    [ -z "$prometheus" ] || shared prometheus /usr/share/prometheus/web ||
        say "Prometheus: without its pages, which only root can put where it looks for them"
}

# Debian's has another name than its makers', and no pages. Without its templates it does not start.
fetch_alertmanager() {
    local unpacked
    alertmanager=$(command -v alertmanager || command -v prometheus-alertmanager || true)
    [ -z "$alertmanager" ] || return 0
    unpack_package prometheus-alertmanager prometheus-alertmanager "Alertmanager (10 MB)"
    if [ -n "$unpacked" ] && ! shared prometheus-alertmanager /usr/share/prometheus/alertmanager; then
        say "Alertmanager: only root can put its templates where it looks for them; going on without (one on the PATH is used)"
        return 0
    fi
    alertmanager=$unpacked
}

# python_tool <folder> <requirements>: a virtual environment with these packages, made anew when they are others. Fails, and leaves no
# folder, where there is no Python 3 that can make one or they cannot be fetched.
python_tool() {
    ! cmp -s "$2" "$1/requirements.txt" || return 0
    rm -rf "$1"
    mkdir -p "${1%/*}"
    if python3 -m venv "$1" 2>/dev/null && "$1/bin/pip" install --quiet --requirement "$2"; then
        cp "$2" "$1/requirements.txt"
    else
        rm -rf "$1"
        return 1
    fi
}

# A browser for the tests of the pages: one on the PATH, or the distribution's. Empty where there is none.
find_chromium() {
    local name
    for name in chromium chromium-browser google-chrome; do
        chromium=$(command -v "$name" || true)
        [ -z "$chromium" ] || return 0
    done
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        lock "$servers/fetch.lock" 900
        apt_install chromium fonts-dejavu-core || true
        unlock "$servers/fetch.lock"
        chromium=$(command -v chromium || true)
    fi
    [ -n "$chromium" ] || say "Chromium: none found and none to be installed; one on the PATH is used"
}

# --- starting --------------------------------------------------------------------------------------------------------

# start_kafka <port> [<second port> <advertised port>]: broker and controller in one process. The controller's port is nobody else's
# business, so it is any free one. Clients that come by the second port are told to come by the advertised one: a test's proxy.
# start_kafka <port> <PEM file with key and certificate> [name=…,password=…]: clients come by TLS, to localhost, and prove with SCRAM who
# they are; it talks to itself by another port.
start_kafka() {
    local port=$1 data=$base/data/kafka config=$base/run/kafka controller id by_proxy="" by_proxy_told="" to_itself user=()
    local clients=PLAINTEXT://127.0.0.1:$port
    controller=$(free_port)
    mkdir -p "$data" "$config"
    : >"$config/more.properties"
    case ${2:-} in
        "") ;;
        /*)
            to_itself=PLAINTEXT://127.0.0.1:$(free_port)
            user=(--add-scram "SCRAM-SHA-512=$3")
            by_proxy=,$to_itself by_proxy_told=,$to_itself clients=SASL_SSL://localhost:$port
            cat >"$config/more.properties" <<END
ssl.keystore.type=PEM
ssl.keystore.location=$2
sasl.enabled.mechanisms=SCRAM-SHA-512
listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
END
            ;;
        *) by_proxy=,PROXY://127.0.0.1:$2 by_proxy_told=,PROXY://127.0.0.1:$3 ;;
    esac
    cat >"$config/server.properties" <<END
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:$controller
controller.listener.names=CONTROLLER
listeners=$clients,CONTROLLER://127.0.0.1:$controller$by_proxy
advertised.listeners=$clients$by_proxy_told
inter.broker.listener.name=PLAINTEXT
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,PROXY:PLAINTEXT,SASL_SSL:SASL_SSL
log.dirs=$data
# Topics are made on purpose, with their settings, by stockyard migrate.
auto.create.topics.enable=false
num.partitions=8
# There is one broker.
offsets.topic.replication.factor=1
offsets.topic.num.partitions=8
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
# A lone consumer need not wait for company.
group.initial.rebalance.delay.ms=0
END
    cat "$config/more.properties" >>"$config/server.properties"
    cat >"$config/log4j2.properties" <<'END'
status=error
rootLogger.level=warn
rootLogger.appenderRef.console.ref=console
appender.console.type=Console
appender.console.name=console
appender.console.layout.type=PatternLayout
appender.console.layout.pattern=%d %p %c{1} %m%n
# Says when the broker is up.
logger.started.name=kafka.server.KafkaRaftServer
logger.started.level=info
END
    if [ ! -f "$data/meta.properties" ]; then
        # 16 bytes in Kafka's base64; the first letter is fixed because a dash would be taken for an option.
        id=S$(head -c 16 /dev/urandom | base64 | tr '+/' '-_' | cut -c 2-22)
        mkdir -p "$base/logs"
        java -cp "$kafka/*" kafka.tools.StorageTool format -t "$id" -c "$config/server.properties" "${user[@]+"${user[@]}"}" >"$base/logs/kafka.log" 2>&1 || return 1
    fi
    launch kafka "$port" java -Xmx512m "-Dlog4j2.configurationFile=$config/log4j2.properties" \
        -cp "$kafka/*" kafka.Kafka "$config/server.properties"
    await_line kafka 'Kafka Server started' 90
}

# postgres_user: PostgreSQL refuses to run as root, so root runs it as another user. That user may not be able to walk to a checkout
# below a closed folder such as /root: then it gets the one capability that opens folders, and the flag without which
# access(2), which initdb asks, would leave the capability out.
postgres_user() {
    local user group
    as_postgres=(env)
    [ "$(id -u)" = 0 ] || return 0
    command -v setpriv >/dev/null || die "PostgreSQL does not run as root: run this as an ordinary user, or set $own_postgres"
    user=$(id -un postgres 2>/dev/null || echo nobody)
    group=$(id -g "$user")
    chown "$user" "$1"
    as_postgres=(setpriv "--reuid=$user" "--regid=$group" --clear-groups)
    "${as_postgres[@]}" test -x "$postgres/bin/initdb" -a -w "$1" ||
        as_postgres+=(--inh-caps=+dac_override --ambient-caps=+dac_override --securebits=+no_setuid_fixup)
}

memory_mb() {
    if [ -r /proc/meminfo ]; then
        echo $(($(sed -n 's/^MemTotal: *\([0-9]*\) kB/\1/p' /proc/meminfo) / 1024))
    else
        echo $(($(sysctl -n hw.memsize) / 1048576))
    fi
}

# postgres_sizes: sets `sizes` to what PostgreSQL gets of this machine. An eighth of the memory, for everything else runs here too.
postgres_sizes() {
    local mb
    mb=$(($(memory_mb) / 8))
    mb=$((mb < 128 ? 128 : mb > 2048 ? 2048 : mb))
    # shellcheck disable=SC2034 # read by who calls
    sizes=("shared_buffers=${mb}MB" "effective_cache_size=$((mb * 4))MB" max_wal_size=4GB checkpoint_timeout=15min)
}

# start_postgres <port> <auth> [name=value…]: user and password stockyard, database stockyard. What durability rests on (fsync,
# synchronous_commit, full_page_writes) keeps its default; the sizes come as arguments.
start_postgres() {
    local port=$1 auth=$2 major settings=() setting data as_postgres
    shift 2
    major=${postgres##*-}
    data=$base/data/postgres-${major%%.*}
    mkdir -p "$data" "$base/logs"
    postgres_user "$data"
    if [ ! -f "$data/PG_VERSION" ]; then
        # The password goes by a file that the other user can read; it is removed whatever comes.
        echo stockyard >"$data.password"
        chmod 644 "$data.password"
        "${as_postgres[@]}" "$postgres/bin/initdb" -D "$data" -U stockyard --pwfile="$data.password" --auth="$auth" \
            --no-locale -E UTF8 >"$base/logs/postgres.log" 2>&1 || { rm -f "$data.password"; return 1; }
        rm -f "$data.password"
    fi
    if [ ! -f "$data.created" ]; then
        # There is no psql; again after a stop in between, it may be there already.
        echo 'create database stockyard' |
            "${as_postgres[@]}" "$postgres/bin/postgres" --single -D "$data" postgres >>"$base/logs/postgres.log" 2>&1 || return 1
        touch "$data.created"
    fi
    for setting in "port=$port" listen_addresses=127.0.0.1 unix_socket_directories= timezone=UTC log_timezone=UTC "$@"; do
        settings+=(-c "$setting")
    done
    # Not every build has lz4.
    if "${as_postgres[@]}" "$postgres/bin/postgres" -D "$data" -C wal_compression -c wal_compression=lz4 >/dev/null 2>&1; then
        settings+=(-c wal_compression=lz4)
    else
        settings+=(-c wal_compression=on)
    fi
    launch postgres "$port" "${as_postgres[@]}" "$postgres/bin/postgres" -D "$data" "${settings[@]}"
    await_line postgres 'database system is ready to accept connections' 120
}

# start_redis <port>: a cache with a bound. Saving keeps its default.
start_redis() {
    mkdir -p "$base/data/redis"
    launch redis "$1" "$redis" --bind 127.0.0.1 --port "$1" --dir "$base/data/redis" --maxmemory 256mb --maxmemory-policy allkeys-lfu
    await_line redis 'eady to accept connections' 60
}

# start_prometheus <port> <configuration>
start_prometheus() {
    mkdir -p "$base/data/prometheus"
    launch prometheus "$1" "$prometheus" --config.file="$2" --storage.tsdb.path="$base/data/prometheus" \
        --web.listen-address="127.0.0.1:$1" --web.external-url="http://127.0.0.1:$1"
    await_line prometheus 'Server is ready to receive web requests' 60
}

# start_alertmanager <port> <configuration>: there is one, so it listens for no others.
start_alertmanager() {
    mkdir -p "$base/data/alertmanager"
    launch alertmanager "$1" "$alertmanager" --config.file="$2" --storage.path="$base/data/alertmanager" \
        --web.listen-address="127.0.0.1:$1" --web.external-url="http://127.0.0.1:$1" --cluster.listen-address=
    await_line alertmanager 'Listening on' 60
}

# find_grafana: sets `grafana` to the command and `grafana_home` to its files, which is empty where there is none.
find_grafana() {
    local program folder
    grafana=() grafana_home=""
    if program=$(command -v grafana); then
        grafana=("$program" server)
    elif program=$(command -v grafana-server); then
        grafana=("$program")
    else
        return 0
    fi
    for folder in "$(dirname "$program")/.." "$(dirname "$program")/../share/grafana" /usr/share/grafana; do
        [ ! -f "$folder/conf/defaults.ini" ] || grafana_home=$folder
    done
}

# start_grafana <port> <prometheus url>: everybody on this machine may look, nothing is reported home.
start_grafana() {
    mkdir -p "$base/data/grafana"
    launch grafana "$1" env "PROMETHEUS_URL=$2" "STOCKYARD_DASHBOARDS=$checkout/grafana" \
        "GF_PATHS_PROVISIONING=$checkout/grafana/provisioning" "GF_PATHS_DATA=$base/data/grafana" "GF_PATHS_LOGS=$base/data/grafana/log" "GF_PATHS_PLUGINS=$base/data/grafana/plugins" \
        GF_SERVER_HTTP_ADDR=127.0.0.1 "GF_SERVER_HTTP_PORT=$1" GF_AUTH_ANONYMOUS_ENABLED=true GF_LOG_MODE=console \
        GF_ANALYTICS_REPORTING_ENABLED=false GF_ANALYTICS_CHECK_FOR_UPDATES=false "${grafana[@]}" --homepath "$grafana_home"
    await_line grafana 'HTTP Server Listen' 60
}
