#!/usr/bin/env bash
# Whether Compose accepts docker-compose.yml, and whether each service in it is pinned, watched and bounded (tests/image/compose.py; left
# out, and said so, where there is no Python 3). That needs no engine, only Compose v2: the machine's own, else (Debian packages none) one
# built from its Go module, once.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=servers.sh
. "$(dirname "${BASH_SOURCE[0]}")/servers.sh"

version=v2.40.3
compose=(docker compose)
if ! docker compose version >/dev/null 2>&1; then
    compose=("$home/tools/compose-$version")
    if [ ! -x "${compose[0]}" ]; then
        # An older Go cannot fetch the one that the module asks for.
        if ! [[ $(go env GOVERSION 2>/dev/null) =~ ^go1\.(2[1-9]|[3-9][0-9]) ]]; then
            say "skipped: there is neither Docker Compose v2 nor a Go (1.21 or newer) to build it with"
            exit 0
        fi
        say "building Docker Compose $version (once, about two minutes) …"
        mkdir -p "$home/tools"
        # In the module's own folder: its go.mod excludes modules, and go install refuses that from anywhere else.
        folder=$(go mod download -json "github.com/docker/compose/v2@$version" | sed -n 's/^[[:space:]]*"Dir": "\(.*\)",*$/\1/p')
        (cd "$folder" && GOFLAGS=-mod=readonly go build -o "${compose[0]}" \
            -ldflags "-X github.com/docker/compose/v2/internal.Version=$version" ./cmd)
    fi
fi
read=$(mktemp)
trap 'rm -f "$read"' EXIT
# Not with the settings of this machine.
"${compose[@]}" --env-file /dev/null -f "$checkout/docker-compose.yml" config --format json >"$read"
say "accepted by Compose $("${compose[@]}" version --short)"
if command -v python3 >/dev/null; then
    python3 "$checkout/tests/image/compose.py" "$read"
else
    say "its services are not looked at: there is no Python 3"
fi
