"""Whether asyncapi.yaml keeps to itself, to AsyncAPI and to the source, and with --service whether a running service keeps to it.

Run by scripts/deploy-check.sh: events.py <checkout> [--specification <the JSON schema of AsyncAPI 3.0>], and by scripts/api-check.sh:
events.py <checkout> --service http://127.0.0.1:<port>. The second changes stock of a product of its own, and looks at every frame
that sockets and the event stream tell meanwhile. Prints each error, and fails if there is one.
"""

import argparse
import json
import pathlib
import re
import sys
import threading
import time
import urllib.request
import uuid

import jsonschema
import yaml

errors = []


def wrong(where, what):
    errors.append(f"{where}: {what}")


# --- the document ------------------------------------------------------------------------------------------------------


def resolve(document, node):
    """What a reference stands for."""
    seen = 0
    while isinstance(node, dict) and "$ref" in node and seen < 10:
        place = document
        for step in node["$ref"].removeprefix("#/").split("/"):
            place = place[step]
        node, seen = place, seen + 1
    return node


def look_at_references(document, node, where="#"):
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            try:
                resolve(document, node)
            except (KeyError, TypeError):
                wrong(where, f"there is no {node['$ref']}")
        for key, value in node.items():
            look_at_references(document, value, f"{where}/{key}")
    elif isinstance(node, list):
        for place, value in enumerate(node):
            look_at_references(document, value, f"{where}/{place}")


def closed(document, schema):
    """The schema by itself, in which an object has no other fields than those that it names, unless it says so: what is told
    and not described is an error here, and none for clients."""
    schema = resolve(document, schema)
    if isinstance(schema, list):
        return [closed(document, part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    inside = {key: closed(document, part) for key, part in schema.items() if key not in ("properties", "examples")}
    if "properties" in schema:
        inside["properties"] = {name: closed(document, part) for name, part in schema["properties"].items()}
        inside.setdefault("additionalProperties", False)
    return inside


def validator(document, schema):
    schema = closed(document, schema)
    jsonschema.Draft7Validator.check_schema(schema)
    return jsonschema.Draft7Validator(schema)


def look_at_document(document, checkout):
    channels, messages = document["channels"], document["components"]["messages"]
    told = set()
    for name, channel in channels.items():
        told |= {message["$ref"].rsplit("/", 1)[-1] for message in channel["messages"].values()}
        if not any(resolve(document, operation["channel"]) is channel for operation in document["operations"].values()):
            wrong(name, "nobody sends or receives here")
    for name in messages.keys() - told:
        wrong(name, "it is in no channel")
    for name, message in messages.items():
        if not message.get("examples"):
            wrong(name, "it has no example")
        kinds = {"payload": message["payload"], "headers": message.get("headers")}
        for example in message.get("examples", []):
            for part, schema in kinds.items():
                if schema is None:
                    continue
                for error in validator(document, schema).iter_errors(example.get(part)):
                    wrong(f"{name}, {example['name']}", f"{part} {error.json_path}: {error.message}")
    look_at_source(document, checkout)
    return sum(len(message.get("examples", [])) for message in messages.values())


def look_at_source(document, checkout):
    """Closed lists are those of the source."""
    schemas = document["components"]["schemas"]
    headers = schemas["DeadLetterHeaders"]["properties"]
    alerts = [kind for name in ("LowStock", "Reorder", "Risk") for kind in schemas[name]["properties"]["type"]["enum"]]
    lists = {
        ("src/domain/change.rs", r'Self::\w+ => "(\w+)"'): schemas["UpdateType"]["enum"],
        ("src/event/dead_letter.rs", r'Self::\w+ => "([a-z_]+)"'): headers["stockyard.reason"]["enum"],
        ("src/event/dead_letter.rs", r'=> "([A-Z_]+)"'): headers["__connect.errors.stage"]["enum"],
        ("src/event/dead_letter.rs", r'const \w+: &str = "([a-z_.]+)"'): list(headers),
        ("src/metrics.rs", r"STOCK_ALERTS: .*?\[(.*?)\];"): alerts,
    }
    for (file, pattern), listed in lists.items():
        found = re.findall(pattern, (checkout / file).read_text(), re.DOTALL)
        if len(found) == 1 and '"' in found[0]:
            found = re.findall(r'"(\w+)"', found[0])
        if sorted(found) != sorted(listed):
            wrong(file, f"it has {sorted(set(found) ^ set(listed))}, the document has not, or the other way round")


def look_at_form(document, specification):
    schema = json.loads(pathlib.Path(specification).read_text())
    for error in jsonschema.Draft7Validator(schema).iter_errors(document):
        best = jsonschema.exceptions.best_match([error])
        wrong("AsyncAPI 3.0", f"{best.json_path}: {best.message[:300]}")


# --- a running service -------------------------------------------------------------------------------------------------


class Told:
    """What one channel told."""

    def __init__(self, document, name):
        self.name = name
        messages = [resolve(document, message) for message in document["channels"][name]["messages"].values()]
        self.schemas = [(message["title"], validator(document, message["payload"])) for message in messages]
        self.kinds, self.frames = set(), []

    def hear(self, text):
        frame = json.loads(text)
        self.frames.append(frame)
        self.kinds.add(frame.get("type", "quantity"))
        failed = {title: next(schema.iter_errors(frame), None) for title, schema in self.schemas}
        if all(failed.values()):
            # Of the one that is meant, if one is.
            best = max(failed.values(), key=lambda error: len(error.absolute_path))
            wrong(f"{self.name} told {text[:300]}", f"{best.json_path}: {best.message}")


def hear_socket(url, told, stop):
    from websockets.sync.client import connect

    with connect(url, max_size=None) as socket:
        while not stop.is_set():
            try:
                told.hear(socket.recv(timeout=0.2))
            except TimeoutError:
                continue


def hear_events(url, told, stop):
    # Something comes every 5 s.
    with urllib.request.urlopen(url, timeout=10) as stream:
        event = {}
        for line in stream:
            line = line.decode().rstrip("\r\n")
            if line:
                name, _, value = line.partition(":")
                event[name] = value.removeprefix(" ")
            elif event:
                if "data" in event:
                    told.hear(event["data"])
                    if event.get("id") != told.frames[-1].get("cursor"):
                        wrong("/events", f"the id of an event is {event.get('id')}, and its cursor is another")
                event = {}
            if stop.is_set():
                return


def ask(base, method, path, body=None):
    request = urllib.request.Request(base + path, method=method)
    data = None
    if body is not None:
        data = json.dumps(body).encode()
        request.add_header("content-type", "application/json")
    with urllib.request.urlopen(request, data, timeout=10) as answer:
        return json.loads(answer.read() or b"null")


def look_at_service(document, base):
    """Does a little of everything to one product, and hears what is told of it."""
    sku, place = f"EVENTS-{uuid.uuid4().hex[:8].upper()}", str(uuid.uuid4())
    product = str(uuid.uuid4())
    words = {"sku": sku, "name": "Heard of", "min_stock": 5, "reorder_point": 5}
    ask(base, "PUT", f"/api/products/{product}", words)
    # Its warehouse has to be known before something is put there.
    ask(base, "PUT", f"/api/warehouses/{place}", {"code": f"{sku}-W", "name": None})
    channels = {name: Told(document, name) for name in ("live", "events", "inventory", "stock")}
    stop, sockets = threading.Event(), base.replace("http://", "ws://")
    listening = [
        (hear_socket, f"{sockets}/ws?product={sku}", "live"),
        (hear_events, f"{base}/events?product={sku}", "events"),
        (hear_socket, f"{sockets}/ws/inventory?product={sku}", "inventory"),
        (hear_socket, f"{sockets}/ws/stock?product={sku}", "stock"),
    ]
    threads = [threading.Thread(target=hear, args=(url, channels[name], stop), daemon=True) for hear, url, name in listening]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and not all(channels[name].frames for name in ("live", "events", "stock")):
        time.sleep(0.05)
    # /ws/inventory begins in silence.
    time.sleep(0.5)

    joining = Told(document, "live")
    listening_late = threading.Thread(target=hear_socket, args=(f"{sockets}/ws?product={sku}", joining, stop), daemon=True)

    def adjust(kind, change):
        body = {"warehouse": place, "product": product, "change": change, "kind": kind}
        ask(base, "POST", "/api/adjustments", body)

    adjust("restock", 20)
    adjust("sale", -16)
    reservation = ask(base, "POST", "/api/reservations", {"product": product, "warehouse": place, "quantity": 4})
    adjust("damage", -3)
    adjust("restock", 30)
    ask(base, "POST", f"/api/reservations/{reservation['id']}/release", {})
    ask(base, "PUT", f"/api/products/{product}", {**words, "name": "Heard of again"})
    alerts = {"low_stock_alert", "stock_recovered", "reorder_needed", "reorder_recovered"}
    full = alerts | {"snapshot", "update", "reservation_at_risk", "reservation_healed", "catalogue", "heartbeat"}
    expected = {
        "live": full,
        "events": full,
        "inventory": {"inventory_update", "low_stock_alert"},
        "stock": {"quantity"},
    }
    deadline = time.monotonic() + 15
    while time.monotonic() < deadline and any(kinds - channels[name].kinds for name, kinds in expected.items()):
        time.sleep(0.1)
    # The first were told of a product that stood nowhere. Who comes once they have heard of everything finds what stands there.
    listening_late.start()
    threads.append(listening_late)
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and not joining.frames:
        time.sleep(0.1)
    stop.set()
    for thread in threads:
        thread.join(timeout=10)
    for name, kinds in expected.items():
        for kind in sorted(kinds - channels[name].kinds):
            wrong(name, f"no {kind} was told")
    if not any(product["levels"] for frame in joining.frames[:1] for product in frame["data"]):
        wrong("live", "a snapshot shows no level")
    return sum(len(told.frames) for told in [*channels.values(), joining])


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("checkout", type=pathlib.Path)
    parser.add_argument("--specification")
    parser.add_argument("--service")
    arguments = parser.parse_args()
    document = yaml.safe_load((arguments.checkout / "asyncapi.yaml").read_text())
    look_at_references(document, document)
    if not errors:
        if arguments.service:
            print(f"{look_at_service(document, arguments.service)} frames heard")
        else:
            print(f"{look_at_document(document, arguments.checkout)} examples of messages")
            if arguments.specification:
                look_at_form(document, arguments.specification)
    for error in errors:
        print(error)
    print(f"asyncapi.yaml: {len(errors)} errors")
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(main())
