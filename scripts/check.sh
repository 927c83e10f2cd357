#!/usr/bin/env bash
# What CI runs, run by with-servers.sh (make check): every step, also after one that failed, and at the end which ones did.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=servers.sh
. "$(dirname "${BASH_SOURCE[0]}")/servers.sh"
cd "$checkout"
# The build takes its query data from .sqlx; whether that is current is a step of its own.
export SQLX_OFFLINE=true

failed=""
# step <name> <command>…
step() {
    local name=$1 began=$SECONDS result=ok
    shift
    printf '\n== %s\n' "$name"
    "$@" || { result=FAILED failed="$failed, $name"; }
    printf '== %s: %s (%s s)\n' "$name" "$result" $((SECONDS - began))
}

openapi_is_current() {
    cargo run --locked --quiet -- openapi >"$home/openapi.json" || return 1
    diff -u openapi.json "$home/openapi.json" || {
        say "openapi.json is not what the code says: make openapi"
        return 1
    }
}

sqlx_is_current() {
    scripts/sqlx-prepare.sh --check || {
        say ".sqlx is not what the code and the migrations say: make prepare"
        return 1
    }
}

shell_is_clean() {
    if command -v shellcheck >/dev/null; then
        shellcheck -x scripts/*.sh deploy/kustomize/*.sh .ci/run
    else
        say "skipped: there is no shellcheck"
    fi
}

# Licences, duplicates and sources are in the checkout; known vulnerabilities are in a database that lies with a git host.
dependencies_are_allowed() {
    cargo_tool cargo-deny deny 0.20.2 || return 1
    cargo deny --locked check licenses bans sources || return 1
    if cargo deny fetch db >/dev/null 2>&1; then
        cargo deny --locked check advisories
    else
        say "advisories not checked: their database cannot be fetched from here"
    fi
}

step format cargo fmt --all --check
step "format of the fuzz target" cargo fmt --manifest-path fuzz/Cargo.toml --check
# It touches every source file, so it comes before what builds them.
step .sqlx sqlx_is_current
step lints cargo clippy --all-targets --locked -- -D warnings
step documentation env RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --document-private-items --locked
step "shell scripts" shell_is_clean
step openapi.json openapi_is_current
step dependencies dependencies_are_allowed
step "list of parts" scripts/sbom.sh --check
step "Compose file" scripts/compose-check.sh
step "Kubernetes and asyncapi.yaml" scripts/deploy-check.sh
step tests cargo test --locked
step "API against its document" scripts/api-check.sh

printf '\n'
[ -z "$failed" ] || die "failed: ${failed#, }"
say "all checks passed"
