"""Whether a list of parts (CycloneDX) is one, and whether it is the whole of what Cargo.lock builds.

Run by scripts/sbom.sh and scripts/image.sh: parts.py <list> <checkout> [<what rust-audit-info says of a program>]. Prints each error,
and fails if there is one.
"""

import json
import pathlib
import sys

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

try:
    import tomllib
except ModuleNotFoundError:
    import tomli as tomllib

errors = []


def wrong(what):
    errors.append(what)


def look_at_parts(parts, locked):
    """Each is what Cargo.lock says, and says itself under which licence it may be used."""
    for part in parts:
        name = f"{part['name']} {part['version']}"
        hashes = [one["content"] for one in part.get("hashes", []) if one["alg"] == "SHA-256"]
        if (part["name"], part["version"]) not in locked:
            wrong(f"{name} is not in Cargo.lock")
        elif hashes != [locked[part["name"], part["version"]]]:
            wrong(f"{name} has not the hash of Cargo.lock")
        if not part.get("licenses"):
            wrong(f"{name} has no licence")


def look_for_parts(parts, manifest, program):
    """None is left out: neither what Cargo.toml names nor, where a program is known, what that is made of."""
    names = {part["name"] for part in parts}
    for name in manifest["dependencies"]:
        if name not in names:
            wrong(f"{name} of Cargo.toml is not in the list")
    there = {(part["name"], part["version"]) for part in parts}
    own = (manifest["package"]["name"], manifest["package"]["version"])
    built_from = {(one["name"], one["version"]) for one in program}
    if program and own not in built_from:
        wrong("the program does not say that it is this one")
    for name, version in sorted(built_from - there - {own}):
        wrong(f"{name} {version} is in the program and not in the list")


def main(file, checkout, program=None):
    text = pathlib.Path(file).read_text()
    for error in JsonStrictValidator(SchemaVersion.V1_5).validate_str(text, all_errors=True) or ():
        wrong(f"CycloneDX 1.5: {error.data.message}")
    if errors:
        return
    lock = tomllib.loads((checkout / "Cargo.lock").read_text())["package"]
    locked = {(one["name"], one["version"]): one.get("checksum") for one in lock}
    manifest = tomllib.loads((checkout / "Cargo.toml").read_text())
    made_of = json.loads(pathlib.Path(program).read_text())["packages"] if program else []
    parts = json.loads(text)["components"]
    look_at_parts(parts, locked)
    look_for_parts(parts, manifest, made_of)
    if str(checkout) in text:
        wrong("it names a folder of this machine")
    if not errors:
        print(f"{len(parts)} crates" + (f", {len(made_of) - 1} of them in the program" if program else ""))


main(sys.argv[1], pathlib.Path(sys.argv[2]), *sys.argv[3:])
for error in errors:
    print(error, file=sys.stderr)
sys.exit(1 if errors else 0)
