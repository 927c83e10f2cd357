"""Whether each service of docker-compose.yml is pinned, watched, bounded and without rights it does not need.

Run by scripts/compose-check.sh: compose.py <what `docker compose config --format json` prints>. Prints each error, and fails if there
is one. Then it plants defects, one at a time, in a copy: a check that does not find them is none.
"""

import copy
import json
import re
import sys

# A version to its last number, or a digest.
PINNED = re.compile(r"(:v?\d+\.\d+(\.\d+)?|@sha256:[0-9a-f]{64})$")
# By its official image: PostgreSQL has versions of two numbers.
TWO_NUMBERS = {"postgres"}
# It writes files beside its program when it starts.
WRITES = {"kafka"}
# It ends by itself.
ONCE = {"migrate"}


def wrongs(services):
    """What is wrong, a line each."""
    for name, service in services.items():
        image = service["image"].rsplit("/", 1)[-1]
        pinned = PINNED.search(image)
        numbers = 2 if image.split(":")[0] in TWO_NUMBERS else 3
        if "build" not in service and not (pinned and ("@" in image or pinned[0].count(".") == numbers - 1)):
            yield f"{name}: its image {service['image']} is not one version"
        for limit in ("mem_limit", "cpus", "pids_limit"):
            if not float(service.get(limit) or 0) > 0:
                yield f"{name}: no {limit}"
        if service.get("cap_drop") != ["ALL"] or service.get("cap_add"):
            yield f"{name}: it has capabilities"
        if service.get("security_opt") != ["no-new-privileges:true"] or service.get("privileged"):
            yield f"{name}: it may get privileges"
        if not service.get("read_only") and name not in WRITES:
            yield f"{name}: it may write its own files"
        logging = service.get("logging", {}).get("options", {})
        if not logging.get("max-size") or not logging.get("max-file"):
            yield f"{name}: its log has no bound"
        health = service.get("healthcheck", {})
        if name not in ONCE and (health.get("disable") or not (health.get("test") or "build" in service)):
            yield f"{name}: nobody asks whether it is well"
        if service.get("restart") != ("no" if name in ONCE else "unless-stopped"):
            yield f"{name}: restart is {service.get('restart')}"
        for port in service.get("ports", []):
            if port.get("host_ip") != "127.0.0.1":
                yield f"{name}: others than this machine reach port {port.get('published')}"


def look_for_defects(services):
    """Whether each is found; a defect is a service, a key and another value."""
    defects = [
        ("redis", "image", "redis:7", "not one version"),
        ("postgres", "image", "postgres", "not one version"),
        ("grafana", "image", "grafana/grafana:latest", "not one version"),
        ("kafka", "mem_limit", None, "no mem_limit"),
        ("stockyard", "pids_limit", 0, "no pids_limit"),
        ("prometheus", "cpus", None, "no cpus"),
        ("postgres", "cap_add", ["CHOWN"], "it has capabilities"),
        ("stockyard", "cap_drop", [], "it has capabilities"),
        ("migrate", "security_opt", [], "it may get privileges"),
        ("stockyard", "read_only", False, "it may write its own files"),
        ("alertmanager", "logging", {}, "its log has no bound"),
        ("redis", "healthcheck", {}, "nobody asks whether it is well"),
        ("stockyard", "healthcheck", {"disable": True}, "nobody asks whether it is well"),
        ("migrate", "restart", "always", "restart is always"),
        ("kafka", "ports", [{"published": "9092"}], "others than this machine"),
    ]
    for name, key, value, says in defects:
        changed = copy.deepcopy(services)
        changed[name][key] = value
        if not any(wrong.startswith(f"{name}: ") and says in wrong for wrong in wrongs(changed)):
            yield f"it finds nothing wrong with {key}: {value} of {name}"


services = json.load(open(sys.argv[1]))["services"]
found = list(wrongs(services)) or list(look_for_defects(services))
for line in found:
    print(line, file=sys.stderr)
if not found:
    print(f"{len(services)} services are pinned, watched, bounded and without rights they do not need")
sys.exit(1 if found else 0)
