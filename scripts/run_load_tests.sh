#!/usr/bin/env bash
# A load test against the stack that make start started (or the one that the settings of .env.example name):
#
#   scripts/run_load_tests.sh quick | standard | stress | race | crowd | live | ingest | mixed | chaos | all | interactive [argument…]
#
# Arguments go to `stockyard load` (--help lists them). Ends with 0 if every promise held and every floor was met; the reports are in
# load_test_results/. PROFILE=quick builds the generator in less time, and then it is slower.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
[ $# -gt 0 ] || {
    sed -n '4p' "${BASH_SOURCE[0]}" | tr -d '#' >&2
    exit 2
}
export PROFILE=${PROFILE:-release} SQLX_OFFLINE=true
# As scripts/stack.sh builds it: another revision would be another build.
STOCKYARD_REVISION=${STOCKYARD_REVISION:-$(git rev-parse --short HEAD 2>/dev/null || echo unknown)}
export STOCKYARD_REVISION
# Ten thousand sockets are as many files.
ulimit -S -n "$(ulimit -H -n)" 2>/dev/null || true
cargo build --locked --quiet --profile "$PROFILE" --bin stockyard
# Also where the stack is in containers: it is published on this machine.
STOCKYARD_STACK=local exec scripts/stack.sh run load "$@"
