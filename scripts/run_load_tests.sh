#!/usr/bin/env bash
# A load test against the stack that make start started (or the one that the settings of .env.example name):
#
#   scripts/run_load_tests.sh quick | standard | stress | race | crowd | live | ingest | mixed | chaos | all | interactive [argument…]
#
# Arguments go to `stockyard load` (--help lists them). Ends with 0 if every promise held and every floor was met; the reports are in
# load_test_results/. PROFILE=quick builds the generator in less time, and then it is slower.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=servers.sh
. "$(dirname "${BASH_SOURCE[0]}")/servers.sh"
[ $# -gt 0 ] || {
    sed -n '4p' "${BASH_SOURCE[0]}" | tr -d '#' >&2
    exit 2
}
cd "$checkout"
export PROFILE=${PROFILE:-release} SQLX_OFFLINE=true
know_revision
# Ten thousand sockets are as many files.
ulimit -S -n "$(ulimit -H -n)" 2>/dev/null || true
cargo build --locked --quiet --profile "$PROFILE" --bin stockyard
# Also where the stack is in containers: it is published on this machine.
STOCKYARD_STACK=local exec scripts/stack.sh run load "$@"
