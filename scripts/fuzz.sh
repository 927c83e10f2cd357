#!/usr/bin/env bash
# Fuzzes the decoder of messages, guided by coverage; what it is given goes to libFuzzer (make fuzz ARGS="-max_total_time=900").
# It begins with the corpus in the repository. What it finds worth keeping goes to .stockyard/fuzz, a message for which the
# decoder and the plain one differ to fuzz/artifacts. `scripts/fuzz.sh minimise` gives the corpus what is new, no more of it
# than coverage needs.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=servers.sh
. "$(dirname "${BASH_SOURCE[0]}")/servers.sh"
cd "$checkout"

cargo_tool cargo-fuzz fuzz 0.13.2
# Sanitizers need a nightly compiler, and safe code has little use for them: without, the stable one will do.
fuzz() { cargo fuzz "$1" --sanitizer none --target-dir "$home/fuzz/target" "${@:2}"; }

found=$home/fuzz/corpus kept=fuzz/corpus/decode
mkdir -p "$found"
case ${1:-} in
minimise)
    # What the corpus has stays. Of the rest as few and as small ones as reach all code that was reached.
    fuzz run decode "$kept" "$found" -- -set_cover_merge=1 -use_counters=0 -max_len=256
    ;;
*)
    [ $# -gt 0 ] || set -- -max_total_time=60
    fuzz run decode "$found" "$kept" -- -dict=fuzz/decode.dict "$@"
    ;;
esac
