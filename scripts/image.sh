#!/usr/bin/env bash
# The container image. Needs a Docker engine with BuildKit.
#
#   image.sh build [docker build option…]  makes $IMAGE (else stockyard:<version>) with its labels. BUILD_IMAGE, RUN_IMAGE, PROFILE and
#                                          SOURCE (where its sources are to be had) go into it.
#   image.sh check                         runs it as production should (nobody's rights, no file written, limits), against real servers,
#                                          and tries what it promises. Run by with-servers.sh; its servers are on loopback, so on Linux.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=servers.sh
. "$(dirname "${BASH_SOURCE[0]}")/servers.sh"
cd "$checkout"

version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
image=${IMAGE:-stockyard:$version}
# Above this, something got in that does not belong there.
size_max_mb=150
# It finishes what is under way within 10 s.
stop_max_seconds=10
docker info >/dev/null 2>&1 || die "there is no Docker engine to be reached"

# build [option…]: what is not committed is not what the revision names, and so said.
build() {
    local revision name arguments=()
    revision=$(git rev-parse HEAD 2>/dev/null || true)
    [ -z "$revision" ] || [ -z "$(git status --porcelain)" ] || revision=$revision-dirty
    for name in BUILD_IMAGE RUN_IMAGE PROFILE SOURCE; do
        [ -z "${!name:-}" ] || arguments+=(--build-arg "$name=${!name}")
    done
    DOCKER_BUILDKIT=1 docker build --tag "$image" --build-arg "VERSION=$version" --build-arg "REVISION=$revision" \
        --build-arg "SOURCE_DATE_EPOCH=$(git log -1 --format=%ct 2>/dev/null || echo 0)" ${arguments[@]+"${arguments[@]}"} "$@" .
    say "$image, $(size_mb) MB"
}

size_mb() { echo $(($(docker image inspect --format '{{.Size}}' "$image") / 1000000)); }

# told <template>: what the image says of itself.
told() { docker image inspect --format "$1" "$image"; }

# hardened <docker run option…> -- <stockyard argument…>: with nothing that it does not need.
hardened() {
    local options=()
    while [ "$1" != -- ]; do
        options+=("$1")
        shift
    done
    shift
    docker run --read-only --cap-drop ALL --security-opt no-new-privileges --pids-limit 512 --memory 1g --network host \
        -e DATABASE_URL -e REDIS_URL -e KAFKA_BOOTSTRAP_SERVERS -e KAFKA_TOPIC_NAME -e STOCKYARD__HTTP__LISTEN \
        -e STOCKYARD__REDIS__PREFIX "${options[@]}" "$image" "$@"
}

# What it is made of: the program's own list, and the one beside it.
look_inside() {
    local tool=$home/tools/image-check info=$home/tools/rust-audit-info-0.5.4
    docker create --network none --name "$name-files" "$image" >/dev/null
    docker cp "$name-files:/usr/local/bin/stockyard" "$work/stockyard"
    docker cp "$name-files:/usr/share/doc/stockyard/stockyard.cdx.json" "$work/stockyard.cdx.json"
    [ -x "$info/bin/rust-audit-info" ] || cargo install rust-audit-info --version 0.5.4 --locked --debug --root "$info" --quiet
    "$info/bin/rust-audit-info" "$work/stockyard" >"$work/program.json" || die "the program does not say what it is made of"
    if python_tool "$tool" tests/image/requirements.txt; then
        "$tool/bin/python" tests/image/parts.py "$work/stockyard.cdx.json" "$checkout" "$work/program.json"
    else
        say "its list of parts is not looked at: there is no Python 3 with venv, or its packages cannot be fetched"
    fi
}

# look_at_process: what the kernel says of its rights. Only where the engine's processes are this machine's.
look_at_process() {
    local status line
    status=/proc/$(docker inspect --format '{{.State.Pid}}' "$name")/status
    [ -r "$status" ] || { say "its rights are not looked at: its process is on another machine"; return 0; }
    for line in 'Uid:\t10001\t' 'Gid:\t10001\t' 'CapEff:\t0000000000000000' 'CapBnd:\t0000000000000000' 'NoNewPrivs:\t1'; do
        grep -q "^$(printf '%b' "$line")" "$status" || die "it has other rights than $line: $(grep -E '^(Uid|Gid|Cap|NoNew)' "$status")"
    done
}

await_health() {
    local deadline=$((SECONDS + 60)) health
    until health=$(docker inspect --format '{{.State.Health.Status}}' "$name") && [ "$health" = healthy ]; do
        [ "$SECONDS" -lt "$deadline" ] || { docker logs --tail 15 "$name" >&2; die "it is $health after 60 s"; }
        sleep 0.2
    done
}

check() {
    local began movement code url
    export DATABASE_URL=${STOCKYARD_TEST_DATABASE_URL:?"run by scripts/with-servers.sh"}
    export DATABASE_URL=${DATABASE_URL%/*}/stockyard REDIS_URL=$STOCKYARD_TEST_REDIS_URL STOCKYARD__REDIS__PREFIX=$name:
    export KAFKA_BOOTSTRAP_SERVERS=$STOCKYARD_TEST_KAFKA KAFKA_TOPIC_NAME=$name
    # Where the image's own health check asks: it is part of what is tried, and without a shell there is no other way to say it.
    export STOCKYARD__HTTP__LISTEN=127.0.0.1:8000
    ! port_in_use 8000 || die "port 8000 is in use$(user_of_port 8000): stop that first"
    url=http://$STOCKYARD__HTTP__LISTEN
    [ "$(told '{{.Config.User}}')" = 10001:10001 ] || die "it runs as $(told '{{.Config.User}}')"
    for label in title licenses version; do
        [ -n "$(told "{{index .Config.Labels \"org.opencontainers.image.$label\"}}")" ] || die "it has no label $label"
    done
    [ "$(size_mb)" -le "$size_max_mb" ] || die "it has $(size_mb) MB"
    look_inside
    hardened --rm -- migrate
    hardened --detach --name "$name" --health-interval 1s -- serve >/dev/null
    await_health
    look_at_process
    movement=$(hardened --rm -- produce --count 1000 | grep -Eo '[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}' | head -n 1)
    began=$SECONDS
    until docker exec "$name" /usr/local/bin/stockyard healthcheck --url "$url/api/movements/$movement" >/dev/null 2>&1; do
        [ $((SECONDS - began)) -lt 60 ] || die "movement $movement was published and is not answered"
        sleep 0.2
    done
    hardened --rm -- verify
    began=$SECONDS
    docker stop --time $((stop_max_seconds + 5)) "$name" >/dev/null
    code=$(docker inspect --format '{{.State.ExitCode}}' "$name")
    [ "$code" = 0 ] || die "stopped, it ended with $code"
    [ $((SECONDS - began)) -le "$stop_max_seconds" ] || die "it took $((SECONDS - began)) s to stop"
    [ -z "$(docker diff "$name")" ] || die "it wrote files: $(docker diff "$name")"
    say "$image, $(size_mb) MB: does what it promises, and stopped in $((SECONDS - began)) s"
}

finish() {
    docker rm --force "$name" "$name-files" >/dev/null 2>&1 || true
    rm -rf "$work"
}

action=${1:-}
[ $# = 0 ] || shift
case $action in
    build) build "$@" ;;
    check)
        name=stockyard-image-$$ work=$(mktemp -d)
        trap finish EXIT
        check
        ;;
    *) die "usage: $0 build [docker build option…] | check" ;;
esac
