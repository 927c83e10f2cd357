#!/usr/bin/env bash
# upgrade-check.sh <revision> (make upgrade-check OLD=<revision>): two processes of an older version serve a load; this version migrates
# their schema meanwhile and takes their places one after the other. Nobody is turned away and nothing is lost (tests/it/rolling.rs).
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=servers.sh
. "$(dirname "${BASH_SOURCE[0]}")/servers.sh"
cd "$checkout"

[ $# -eq 1 ] || die "usage: $0 <revision>, for example HEAD~1"
revision=$(git rev-parse --verify --quiet "$1^{commit}") || die "$1 is no revision of this repository"
tree=$home/upgrade/source
mkdir -p "$home/upgrade"
git worktree remove --force "$tree" 2>/dev/null || rm -rf "$tree"
git worktree prune
git worktree add --quiet --detach "$tree" "$revision"
trap 'git worktree remove --force "$tree"' EXIT

export SQLX_OFFLINE=true
# What both versions need alike is built once.
CARGO_TARGET_DIR=$checkout/target cargo build --locked --manifest-path "$tree/Cargo.toml" --bin stockyard
cp "$checkout/target/debug/stockyard" "$home/upgrade/stockyard"
say "from $(git log -1 --format='%h %s' "$revision")"
STOCKYARD_TEST_OLD=$home/upgrade/stockyard scripts/with-servers.sh \
    cargo test --locked --test it -- --exact --nocapture rolling::nobody_is_turned_away_while_two_processes_are_restarted
