"""Whether a cluster would take what deploy/kustomize holds, and whether its parts mean each other.

Run by scripts/deploy-check.sh: manifests.py <checkout> [<rendered file>…]. Without a rendered file the objects are looked at as they
are written, file by file. Schemas are those of Kubernetes, strictly: an unknown field is an error. Prints each error, and fails if
there is one.
"""

import functools
import json
import pathlib
import sys

import jsonschema
import kubernetes_validate.utils
import yaml

try:
    import tomllib
except ModuleNotFoundError:
    import tomli as tomllib

# The oldest that runs it (preStop with a sleep is on since then), and the newest that is known here.
VERSIONS = ["1.30", "1.37"]
# What kustomization files may say here. Kustomize refuses what it does not know; this does so where there is no kustomize.
KUSTOMIZATION_KEYS = {
    "apiVersion", "kind", "namespace", "resources", "components", "images", "configMapGenerator", "generatorOptions", "patches",
}
# In a folder beside its kustomization file, and no part of it.
APART = {"adapter-rule.yaml"}

# It reads its schemas anew for each object.
kubernetes_validate.utils.schema_contents = functools.cache(kubernetes_validate.utils.schema_contents)

errors = []


def wrong(where, what):
    errors.append(f"{where}: {what}")


class Once(yaml.SafeLoader):
    """A key that is there twice is an error, and not the last of both."""

    def construct_mapping(self, node, deep=False):
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.YAMLError(f"{key} is there twice{node.start_mark}")
        return super().construct_mapping(node, deep)


def read(path):
    try:
        return [document for document in yaml.load_all(path.read_text(), Once) if document is not None]
    except (OSError, yaml.YAMLError) as error:
        wrong(path, " ".join(str(error).split()))
        return []


def label(thing):
    return f"{thing.get('kind')}/{thing.get('metadata', {}).get('name')}"


# --- the files ---------------------------------------------------------------------------------------------------------


def look_at_files(folder):
    """Every file that a kustomization names is there, and every file that is there is named."""
    named = set()
    kustomizations = sorted(folder.rglob("kustomization.yaml"))
    for path in kustomizations:
        for kustomization in read(path):
            for key in kustomization.keys() - KUSTOMIZATION_KEYS:
                wrong(path, f"{key} is nothing that a kustomization says here")
            for generator in kustomization.get("configMapGenerator", []):
                for entry in generator.get("files", []) + generator.get("envs", []):
                    named.add(look_at_file(path, entry.split("=")[-1]))
            for patch in kustomization.get("patches", []):
                if "path" in patch:
                    named.add(look_at_file(path, patch["path"]))
            for entry in kustomization.get("resources", []) + kustomization.get("components", []):
                place = look_at_file(path, entry)
                if place.is_dir() and not (place / "kustomization.yaml").is_file():
                    wrong(path, f"there is no kustomization in {entry}")
                named.add(place)
    for path in kustomizations:
        for beside in path.parent.iterdir():
            if beside.name not in APART | {path.name} and beside.resolve() not in named:
                wrong(path, f"{beside.name} is in no kustomization")


def look_at_file(kustomization, entry):
    place = (kustomization.parent / entry).resolve()
    if not place.exists():
        wrong(kustomization, f"there is no {entry}")
    return place


# --- the objects by themselves -----------------------------------------------------------------------------------------


def look_at_object(where, thing, custom):
    where = f"{where}: {label(thing)}"
    kind = f"{thing.get('apiVersion')}/{thing.get('kind')}"
    if kind in custom:
        for error in jsonschema.Draft202012Validator(custom[kind]).iter_errors(thing):
            wrong(where, f"{error.json_path}: {error.message}")
        return
    for version in VERSIONS:
        try:
            kubernetes_validate.validate(thing, version, strict=True)
        except kubernetes_validate.SchemaNotFoundError:
            wrong(where, f"there is no schema of {kind} in {version}")
        except kubernetes_validate.ValidationError as error:
            place = ".".join(str(step) for step in error.path)
            wrong(where, f"{place or 'it'}: {error.message} ({version})")


# --- what they mean by each other --------------------------------------------------------------------------------------


def pods(things):
    """Of each object that makes pods: its name, labels and specification."""
    for thing in things:
        template = thing.get("spec", {}).get("template")
        if thing["kind"] in ("Deployment", "Job") and template:
            yield label(thing), template.get("metadata", {}).get("labels", {}), template.get("spec", {})


def selects(selector, labels):
    for key, value in selector.get("matchLabels", {}).items():
        if labels.get(key) != value:
            return False
    for expression in selector.get("matchExpressions", []):
        key, values = expression["key"], expression.get("values", [])
        held = {
            "In": labels.get(key) in values,
            "NotIn": labels.get(key) not in values,
            "Exists": key in labels,
            "DoesNotExist": key not in labels,
        }
        if not held[expression["operator"]]:
            return False
    return True


def selected(where, selector, things):
    found = [pod for pod in pods(things) if selector and selects(selector, pod[1])]
    if not found:
        wrong(where, f"its selector {json.dumps(selector)} selects no pod")
    return found


def ports(pod):
    return {port.get("name"): port["containerPort"] for box in pod[2].get("containers", []) for port in box.get("ports", [])}


def look_at_relations(where, things, settings, paths, secrets):
    if errors:
        # What is not of its form can mean nothing.
        return
    names = {(thing["kind"], thing["metadata"]["name"]): thing for thing in things}
    if len(names) < len(things):
        wrong(where, "two objects have one name")
    generated = {name for kind, name in names if kind == "ConfigMap"}
    for thing in things:
        here, kind, spec = f"{where}: {label(thing)}", thing["kind"], thing.get("spec", {})
        if kind == "Deployment":
            if not selects(spec.get("selector", {}), spec["template"]["metadata"].get("labels", {})):
                wrong(here, "its selector does not select its own pods")
        elif kind == "Service":
            for pod in selected(here, {"matchLabels": spec.get("selector", {})}, things):
                for port in spec["ports"]:
                    if port["targetPort"] not in [*ports(pod), *ports(pod).values()]:
                        wrong(here, f"{pod[0]} has no port {port['targetPort']}")
        elif kind == "PodDisruptionBudget":
            selected(here, spec["selector"], things)
        elif kind == "NetworkPolicy":
            for pod in selected(here, spec["podSelector"], things):
                entries = [port["port"] for rule in spec.get("ingress", []) for port in rule.get("ports", [])]
                for port in entries:
                    # A job listens to nobody.
                    if ports(pod) and port not in [*ports(pod), *ports(pod).values()]:
                        wrong(here, f"{pod[0]} has no port {port}")
        elif kind == "HorizontalPodAutoscaler":
            target = names.get((spec["scaleTargetRef"]["kind"], spec["scaleTargetRef"]["name"]))
            if target is None:
                wrong(here, f"there is no {spec['scaleTargetRef']['name']} to scale")
            elif "replicas" in target["spec"]:
                wrong(here, f"{label(target)} sets its number of pods as well")
        elif kind == "PodMonitor":
            for pod in selected(here, spec["selector"], things):
                for endpoint in spec["podMetricsEndpoints"]:
                    if endpoint["port"] not in ports(pod):
                        wrong(here, f"{pod[0]} has no port {endpoint['port']}")
        elif kind == "Ingress":
            for rule in spec.get("rules", []):
                for path in rule["http"]["paths"]:
                    backend = path["backend"]["service"]
                    service = names.get(("Service", backend["name"]), {"spec": {"ports": []}})
                    if backend["port"]["name"] not in [port["name"] for port in service["spec"]["ports"]]:
                        wrong(here, f"there is no port {backend['port']['name']} of {backend['name']}")
        elif kind == "ConfigMap" and thing["metadata"]["name"].startswith("stockyard-settings"):
            for variable in thing.get("data", {}):
                look_at_setting(here, variable, settings)
    for name, labels, spec in pods(things):
        look_at_pod(f"{where}: {name}", labels, spec, names, generated, settings, paths, secrets)


def look_at_setting(here, variable, settings):
    steps = variable.lower().split("__")
    place = settings
    for step in steps[1:]:
        place = place.get(step) if isinstance(place, dict) else None
    if steps[0] != "stockyard" or place is None:
        wrong(here, f"{variable} is no setting: the service would not start")


def look_at_pod(here, labels, spec, names, generated, settings, paths, secrets):
    for thing, must in [
        (spec.get("automountServiceAccountToken"), False),
        (spec.get("securityContext", {}).get("runAsNonRoot"), True),
        (spec.get("securityContext", {}).get("runAsUser"), 10001),
        (spec.get("securityContext", {}).get("seccompProfile", {}).get("type"), "RuntimeDefault"),
    ]:
        if thing != must:
            wrong(here, f"something of its pods' security is {thing}, and not {must}")
    if ("ServiceAccount", spec.get("serviceAccountName")) not in names:
        wrong(here, f"there is no service account {spec.get('serviceAccountName')}")
    for spread in spec.get("topologySpreadConstraints", []):
        if not selects(spread["labelSelector"], labels):
            wrong(here, "it spreads other pods than its own")
    volumes = {volume["name"]: volume for volume in spec.get("volumes", [])}
    for volume in volumes.values():
        if volume.get("secret", {}).get("secretName") not in secrets:
            wrong(here, f"{volume['name']} is of no secret that secrets.example.yaml shows")
    for box in spec.get("containers", []):
        context = box.get("securityContext", {})
        hard = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
        if context != hard:
            wrong(here, f"its securityContext is {json.dumps(context)}")
        resources = box.get("resources", {})
        if not resources.get("limits", {}).get("memory") or not {"cpu", "memory"} <= resources.get("requests", {}).keys():
            wrong(here, "its sizes are not given")
        for source in box.get("envFrom", []):
            if source["configMapRef"]["name"] not in generated:
                wrong(here, f"there is no {source['configMapRef']['name']}")
        for variable in box.get("env", []):
            look_at_setting(here, variable["name"], settings)
        for mount in box.get("volumeMounts", []):
            if mount["name"] not in volumes:
                wrong(here, f"there is no volume {mount['name']}")
        look_at_start(here, box, volumes, secrets)
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            get = box.get(probe, {}).get("httpGet")
            if get and (get["path"] not in paths or get["port"] not in ports((None, None, {"containers": [box]}))):
                wrong(here, f"its {probe} asks for {get['path']} at {get['port']}")
        look_at_stop(here, spec, box)


def look_at_start(here, box, volumes, secrets):
    """It is given settings that are mounted, and a command that there is."""
    arguments = box.get("args", [])
    if arguments[:1] != ["--config"] or arguments[2:] not in (
        ["migrate"],
        ["serve", "--role", "api"],
        ["serve", "--role", "ingest"],
        ["serve", "--role", "all"],
    ):
        wrong(here, f"its arguments are {arguments}")
        return
    folder, _, file = arguments[1].rpartition("/")
    mount = next((mount for mount in box.get("volumeMounts", []) if mount["mountPath"] == folder), None)
    secret = mount and volumes.get(mount["name"], {}).get("secret", {}).get("secretName")
    if file not in secrets.get(secret, {}):
        wrong(here, f"nothing is mounted at {arguments[1]}")


def look_at_stop(here, spec, box):
    """What serves has the 15 s that its stop is given, beside what comes before it."""
    if "serve" not in box.get("args", []):
        return
    before = box.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
    if spec.get("terminationGracePeriodSeconds", 30) < before + 15:
        wrong(here, f"it is given less than {before} + 15 s to stop")


def main():
    checkout = pathlib.Path(sys.argv[1]).resolve()
    folder = checkout / "deploy/kustomize"
    here = pathlib.Path(__file__).parent
    custom = json.loads((here / "custom-resources.json").read_text())
    settings = tomllib.loads((checkout / "src/config.default.toml").read_text())
    paths = json.loads((checkout / "openapi.json").read_text())["paths"]
    look_at_files(folder)

    shown = read(folder / "secrets.example.yaml")
    secrets = {thing["metadata"]["name"]: thing.get("stringData", {}) for thing in shown}
    for thing in shown:
        look_at_object("secrets.example.yaml", thing, custom)
    for name, files in secrets.items():
        for text in files.values():
            for section, values in tomllib.loads(text).items():
                for key in values:
                    look_at_setting(f"secrets.example.yaml: {name}", f"STOCKYARD__{section}__{key}", settings)

    count = 0
    rendered = [pathlib.Path(path) for path in sys.argv[2:]]
    for path in rendered:
        things = read(path)
        for thing in things:
            look_at_object(path.name, thing, custom)
        count += len(things)
        if any(thing.get("kind") == "Deployment" for thing in things):
            look_at_relations(path.name, things, settings, paths, secrets)
    if not rendered:
        things = []
        for path in sorted(folder.glob("*/**/*.yaml")):
            if path.name not in APART | {"kustomization.yaml"}:
                things += read(path)
        # As kustomize would make it, but for the hash in its name.
        lines = (folder / "base/settings.env").read_text().splitlines()
        data = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
        things.append({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "stockyard-settings"}, "data": data})
        for thing in things:
            look_at_object("as written", thing, custom)
            # The component takes it away.
            if label(thing) == "Deployment/stockyard-ingest":
                thing["spec"].pop("replicas", None)
        count = len(things)
        look_at_relations("as written", things, settings, paths, secrets)

    for error in errors:
        print(error)
    if count == 0:
        print("there is nothing to look at")
    else:
        print(f"{count} objects, Kubernetes {' and '.join(VERSIONS)}, {len(errors)} errors")
    return 1 if errors or count == 0 else 0


if __name__ == "__main__":
    sys.exit(main())
