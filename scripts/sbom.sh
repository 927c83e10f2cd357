#!/usr/bin/env bash
# The list of what the program is made of, with licences and hashes, as CycloneDX: sbom.sh [file] writes stockyard.cdx.json.
# `sbom.sh --check` holds a new one against CycloneDX's own schema and against Cargo.lock, and plants defects that have to be found. That needs
# a Python 3 that can make a virtual environment; without one it is left out, and said so.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=servers.sh
. "$(dirname "${BASH_SOURCE[0]}")/servers.sh"
cd "$checkout"

# write <file>: the same for the same sources, so it has their time and not its own.
write() {
    cargo_tool cargo-cyclonedx cyclonedx 0.5.9 || die "cargo-cyclonedx cannot be had"
    local at
    at=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || echo 0)}
    SOURCE_DATE_EPOCH=$at cargo cyclonedx --format json --spec-version 1.5 --describe binaries --quiet
    # Its references name the folder it was made in.
    sed "s|file://$checkout#|file:///src#|g" stockyard_bin.cdx.json >"$1"
    rm stockyard_bin.cdx.json
}

# finds <what it is to say> <sed expression>: in a copy with that defect.
finds() {
    local said
    sed "$2" "$work/whole.json" >"$work/defect.json"
    ! cmp -s "$work/whole.json" "$work/defect.json" || die "a defect could not be planted: $2"
    ! said=$("$tool/bin/python" tests/image/parts.py "$work/defect.json" "$checkout" 2>&1) || die "it finds nothing wrong with $2"
    [[ $said == *$1* ]] || die "of $2 it does not say $1, but: $said"
}

if [ "${1:-}" != --check ]; then
    file=${1:-stockyard.cdx.json}
    write "$file"
    say "$file"
    exit 0
fi
tool=$home/tools/image-check
if ! python_tool "$tool" tests/image/requirements.txt; then
    say "skipped: there is no Python 3 with venv, or its packages cannot be fetched"
    exit 0
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
write "$work/whole.json"
"$tool/bin/python" tests/image/parts.py "$work/whole.json" "$checkout"
finds "CycloneDX 1.5" 's/"bomFormat": "CycloneDX"/"bomFormat": "Cyclone"/'
finds "CycloneDX 1.5" 's/"alg": "SHA-256"/"alg": "SHA-257"/'
finds "tokio of Cargo.toml is not in the list" 's/"name": "tokio"/"name": "tokios"/'
finds "has not the hash of Cargo.lock" 's/"content": "b/"content": "a/'
finds "has no licence" '/^      "licenses": \[/,/^      \],/d'
say "and it finds what is wrong when something is"
