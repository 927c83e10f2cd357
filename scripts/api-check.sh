#!/usr/bin/env bash
# Tries the API against its own documents: with schemathesis against openapi.json, so that there is no answer that it does not tell
# of, and no 5xx, whatever is sent; and every frame of sockets and the event stream against asyncapi.yaml. Run by with-servers.sh, on a
# database of its own; afterwards the tables have to agree. Needs a Python 3 that can make a virtual environment; without one it is left
# out, and said so. Arguments go to schemathesis (--seed=…, --max-examples=…).
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=servers.sh
. "$(dirname "${BASH_SOURCE[0]}")/servers.sh"
cd "$checkout"

tool=$home/tools/api-check
if ! python_tool "$tool" "$checkout/tests/api/requirements.txt"; then
    say "skipped: there is no Python 3 with venv, or its packages cannot be fetched"
    exit 0
fi

export SQLX_OFFLINE=true
cargo build --locked --quiet --bin stockyard
version=$(sed -n '/^name = "sqlx"$/{n;s/version = "\(.*\)"/\1/p;}' Cargo.lock)
cargo_tool sqlx-cli sqlx "$version" --no-default-features --features postgres
name=stockyard_api_$$
export DATABASE_URL=${STOCKYARD_TEST_DATABASE_URL:?"run by scripts/with-servers.sh"}
export DATABASE_URL=${DATABASE_URL%/*}/$name REDIS_URL=$STOCKYARD_TEST_REDIS_URL
export KAFKA_BOOTSTRAP_SERVERS=$STOCKYARD_TEST_KAFKA KAFKA_TOPIC_NAME=$name
port=$(free_port)
export STOCKYARD__HTTP__LISTEN=127.0.0.1:$port STOCKYARD__REDIS__PREFIX=$name: STOCKYARD__LOG__FILTER=warn
binary=${CARGO_TARGET_DIR:-$checkout/target}/debug/stockyard
service=""
finish() {
    [ -z "$service" ] || { kill "$service" && wait "$service"; } 2>/dev/null || true
    cargo sqlx database drop -y -f >/dev/null 2>&1 || true
}
trap finish EXIT
cargo sqlx database create
"$binary" migrate
"$binary" seed-demo
"$binary" serve &
service=$!
deadline=$((SECONDS + 60))
until "$binary" healthcheck --url "http://127.0.0.1:$port/readyz" >/dev/null 2>&1; do
    [ "$SECONDS" -lt "$deadline" ] || die "the service is not ready"
    sleep 0.2
done
"$tool/bin/python" tests/deploy/events.py . --service "http://127.0.0.1:$port"
# Sockets and streams are no request and answer; metrics are text.
"$tool/bin/schemathesis" run "http://127.0.0.1:$port/openapi.json" \
    --checks not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance \
    --phases examples,coverage,fuzzing --exclude-path-regex '^/(ws|events|metrics)' \
    --max-examples 20 --continue-on-failure --warnings off --no-color "$@"
"$binary" verify
