#!/usr/bin/env bash
# Runs the benchmarks on servers of their own, which get what the trial stack gives them. The peer needs a Python 3 that can make
# a virtual environment; without one it is left out, and said so.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=servers.sh
. "$(dirname "${BASH_SOURCE[0]}")/servers.sh"

peer=$home/tools/peer
python_tool "$peer" "$checkout/benches/peer/requirements.txt" ||
    say "no Python 3 with venv and the peer's packages: measuring without the peer"
[ ! -d "$peer" ] || export STOCKYARD_BENCH_PYTHON=$peer/bin/python
cd "$checkout"
export STOCKYARD_FULL_SIZE=1 SQLX_OFFLINE=true
# Before the servers are there, so that they do not wait for the compiler.
cargo bench --locked --quiet --bench bench --no-run
exec scripts/with-servers.sh cargo bench --locked --quiet --bench bench -- "$@"
