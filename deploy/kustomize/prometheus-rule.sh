#!/usr/bin/env bash
# The alerts of the checkout as an object of the Prometheus operator, which kustomize cannot make of a file:
# deploy/kustomize/prometheus-rule.sh | kubectl apply --namespace stockyard -f -
set -euo pipefail
alerts=${1:-$(dirname "${BASH_SOURCE[0]}")/../../prometheus/alerts.yml}
# Read first: a file that is not there must not leave half an object.
rules=$(sed -e '/^---$/d' -e '/./s/^/  /' "$alerts")
cat <<END
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: stockyard
  labels:
    app.kubernetes.io/name: stockyard
spec:
$rules
END
