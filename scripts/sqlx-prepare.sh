#!/usr/bin/env bash
# Writes .sqlx, what the compiler checks the queries against where there is no database; with --check, says whether it is current.
# Run by with-servers.sh, which gives the server: the database is new, with all migrations, so an edited one counts too.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=servers.sh
. "$(dirname "${BASH_SOURCE[0]}")/servers.sh"
cd "$checkout"

# The tool and the library have to be of one version.
version=$(sed -n '/^name = "sqlx"$/{n;s/version = "\(.*\)"/\1/p;}' Cargo.lock)
cargo_tool sqlx-cli sqlx "$version" --no-default-features --features postgres

export DATABASE_URL=${STOCKYARD_TEST_DATABASE_URL:?"run by scripts/with-servers.sh"}
DATABASE_URL=${DATABASE_URL%/*}/stockyard_prepare_$$
export SQLX_OFFLINE=false
trap 'cargo sqlx database drop -y -f >/dev/null 2>&1' EXIT
cargo sqlx database create
cargo sqlx migrate run --source migrations >/dev/null
# Queries in tests count as well. A file that no query needs any more is only a warning to the tool; here it is a difference.
code=0
said=$(cargo sqlx prepare "$@" -- --all-targets --locked) || code=1
[ -z "$said" ] || say "$said"
[[ $said != *unused* ]] || code=1
exit "$code"
