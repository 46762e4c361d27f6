#!/usr/bin/env bash
# usage: docker/setup.sh HOSTNAME   First start of docker/compose.yaml: passwords, settings, then the token that Prometheus
# reads metrics with and the CA it pins. HOSTNAME is the name that agents and relying parties know the balancer by.
# Run again, it keeps every secret there is.
set -euo pipefail
cd "$(dirname "$0")"
hostname=${1:?usage: docker/setup.sh HOSTNAME}
compose=(${COMPOSE:-docker compose} -f compose.yaml)

# Containers read these files as users of their own, so the folder keeps them from everybody else.
install -d -m 0700 secrets
install -d anchors
random() { head -c 24 /dev/urandom | base64 | tr '+/' '-_'; }
keep() { [ -s "secrets/$1" ] || printf '%s' "$2" >"secrets/$1"; }
keep postgres-password "$(random)"
keep grafana-password "$(random)"
keep verifier.toml "public_url = \"https://$hostname:8443\"
database = \"postgresql://attest:$(cat secrets/postgres-password)@postgres/attest\"
trust_anchors = [\"/etc/vtpm-attest/anchors\"]
policies_dir = \"/usr/share/vtpm-attest/policies\"

[tls]
hostnames = [\"$hostname\", \"verifier-1\", \"verifier-2\"]

[enrollment]
max_pending_per_address = 0

[limits]
refusals_per_address = 0
"
# Compose mounts them before they can be known.
touch secrets/metrics-token secrets/verifier-ca.pem

"${compose[@]}" up --detach --wait postgres verifier-1
[ -s secrets/verifier-ca.pem ] ||
    "${compose[@]}" exec -T verifier-1 cat /var/lib/vtpm-attest/tls/ca.pem >secrets/verifier-ca.pem
[ -s secrets/metrics-token ] ||
    "${compose[@]}" exec -T verifier-1 attest-verifier tokens create --scope dashboard --label prometheus --json |
    python3 -c 'import json, sys; print(json.load(sys.stdin)["token"], end="")' >secrets/metrics-token
"${compose[@]}" up --detach --wait
echo "verifier:   https://$hostname:8443/dashboard (sign in with a token: ${compose[*]} exec verifier-1 attest-verifier tokens create --scope operator)"
echo "dashboards: http://localhost:3000, user admin, password in docker/secrets/grafana-password"
