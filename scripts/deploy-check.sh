#!/usr/bin/env bash
# Whether a cluster would take deploy/kustomize, and whether asyncapi.yaml is what it says of itself. Needs a Python 3 that can make a
# virtual environment; without one it is left out, and said so. What is deployed is rendered by kustomize: the machine's own or that in
# kubectl, else one built from its Go module, once; without any the files are looked at as they are written. At the end it
# plants defects, one at a time, in a copy: a check that does not find them is none.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=servers.sh
. "$(dirname "${BASH_SOURCE[0]}")/servers.sh"

version=v5.7.1
asyncapi=6.11.1
tool=$home/tools/deploy-check
if ! python_tool "$tool" "$checkout/tests/deploy/requirements.txt"; then
    say "skipped: there is no Python 3 with venv, or its packages cannot be fetched"
    exit 0
fi

# Sets `kustomize` to what renders a folder; empty where there is nothing.
kustomize=()
find_kustomize() {
    local built=$home/tools/kustomize-$version
    if command -v kustomize >/dev/null; then
        kustomize=(kustomize build)
    elif command -v kubectl >/dev/null && kubectl kustomize --help >/dev/null 2>&1; then
        kustomize=(kubectl kustomize)
    elif [ -x "$built/kustomize" ] || go_is_new_enough && build_kustomize "$built"; then
        kustomize=("$built/kustomize" build)
    else
        say "not rendered: there is no kustomize, no kubectl, and no Go (1.21 or newer) to build one with"
    fi
}
go_is_new_enough() { [[ $(go env GOVERSION 2>/dev/null) =~ ^go1\.(2[1-9]|[3-9][0-9]) ]]; }
build_kustomize() {
    [ ! -x "$1/kustomize" ] || return 0
    say "building kustomize $version (once, about a minute) …"
    GOBIN=$1 go install "sigs.k8s.io/kustomize/kustomize/v5@$version" >/dev/null 2>&1
}

# The schema of AsyncAPI itself is in a package of npm.
specification=()
find_specification() {
    local folder=$home/tools/asyncapi-$asyncapi
    if [ ! -f "$folder/package/schemas/3.0.0.json" ] && command -v npm >/dev/null; then
        rm -rf "$folder"
        mkdir -p "$folder"
        (cd "$folder" && npm pack --silent "@asyncapi/specs@$asyncapi" >/dev/null 2>&1 && tar -xzf ./*.tgz && rm ./*.tgz) || true
    fi
    if [ -f "$folder/package/schemas/3.0.0.json" ]; then
        specification=(--specification "$folder/package/schemas/3.0.0.json")
    else
        say "asyncapi.yaml is not held against AsyncAPI's own schema: there is no npm, or the package cannot be fetched"
    fi
}

# copy <folder>: what is checked, and nothing else.
copy() {
    mkdir -p "$1/prometheus"
    cp -R "$checkout/deploy" "$checkout/grafana" "$checkout/asyncapi.yaml" "$checkout/openapi.json" "$1"
    local source
    for source in src/config.default.toml src/domain/change.rs src/event/dead_letter.rs src/metrics.rs; do
        mkdir -p "$1/${source%/*}"
        cp "$checkout/$source" "$1/$source"
    done
    if [ -f "$checkout/prometheus/alerts.yml" ]; then
        cp "$checkout/prometheus/alerts.yml" "$1/prometheus"
    else
        printf 'groups: []\n' >"$1/prometheus/alerts.yml"
    fi
}

# check <folder>: renders and looks.
check() {
    local name file rendered=()
    if [ ${#kustomize[@]} -gt 0 ]; then
        mkdir -p "$1/rendered"
        for name in base overlays/example overlays/monitored; do
            file=$1/rendered/${name##*/}.yaml
            "${kustomize[@]}" --load-restrictor LoadRestrictionsNone "$1/deploy/kustomize/$name" >"$file" || return 1
            rendered+=("$file")
        done
        # What is said not to need the flag does not.
        "${kustomize[@]}" "$1/deploy/kustomize/overlays/example" >/dev/null || return 1
        "$1/deploy/kustomize/prometheus-rule.sh" >"$1/rendered/prometheus-rule.yaml" || return 1
        rendered+=("$1/rendered/prometheus-rule.yaml")
    fi
    "$tool/bin/python" "$checkout/tests/deploy/manifests.py" "$1" ${rendered[@]+"${rendered[@]}"} || return 1
    "$tool/bin/python" "$checkout/tests/deploy/events.py" "$1" ${specification[@]+"${specification[@]}"}
}

# finds <what it is to say> <file> <sed expression, or nothing to remove the file>
finds() {
    local folder=$work/defect said
    rm -rf "$folder"
    copy "$folder"
    if [ -n "${3:-}" ]; then
        sed "$3" "$folder/$2" >"$folder/changed"
        ! cmp -s "$folder/changed" "$folder/$2" || die "a defect could not be planted in $2: $3"
        mv "$folder/changed" "$folder/$2"
    else
        rm "$folder/$2"
    fi
    if said=$(check "$folder" 2>&1); then
        die "it finds nothing wrong with ${3:-no file} in $2"
    fi
    [[ $said == *$1* ]] || die "of ${3:-no file} in $2 it does not say $1, but: $said"
}

find_kustomize
find_specification
[ -f "$checkout/prometheus/alerts.yml" ] || say "there is no prometheus/alerts.yml: rendered with an empty one"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
copy "$work/whole"
check "$work/whole"

base=deploy/kustomize/base
finds maxUnavailabel "$base/api.yaml" 's/^  maxUnavailable: 1/  maxUnavailabel: 1/'
finds "'twenty' is not of type 'integer'" "$base/api.yaml" 's/terminationGracePeriodSeconds: 20/terminationGracePeriodSeconds: twenty/'
finds ingest.yaml "$base/ingest.yaml"
finds "selects no pod" "$base/network-policies.yaml" 's/component: api/component: apis/'
finds "its own pods" "$base/ingest.yaml" '1,/^  template/s/component: ingest/component: ingests/'
finds "has no port" "$base/api.yaml" 's/targetPort: http/targetPort: https/'
finds LANESS "$base/settings.env" 's/^STOCKYARD__LOG__FORMAT=json/STOCKYARD__INGEST__LANESS=1/'
finds "asks for /ready " "$base/ingest.yaml" 's:path\: /readyz:path\: /ready:'
finds "+ 15 s to stop" "$base/api.yaml" 's/terminationGracePeriodSeconds: 20/terminationGracePeriodSeconds: 15/'
finds allowPrivilegeEscalation "$base/migrate.yaml" 's/allowPrivilegeEscalation: false/allowPrivilegeEscalation: true/'
finds podMetricsEndpoint "deploy/kustomize/components/monitoring/pod-monitor.yaml" 's/podMetricsEndpoints:/podMetricsEndpoint:/'
finds "no secret" "deploy/kustomize/secrets.example.yaml" 's/name: stockyard-owner/name: stockyard-owners/'
finds "is not one of" asyncapi.yaml 's/update_type: sale/update_type: sold/'
finds "was unexpected" asyncapi.yaml 's/^              revision: 18/              revisions: 18/'
finds "there is no #/components/schemas/Cursors" asyncapi.yaml 's:schemas/Cursor":schemas/Cursors":'
finds "src/domain/change.rs" src/domain/change.rs 's/=> "sale"/=> "sold"/'
[ ${#specification[@]} -eq 0 ] || finds "AsyncAPI 3.0" asyncapi.yaml 's/^    action: receive/    action: receives/'
say "and it finds what is wrong when something is"
