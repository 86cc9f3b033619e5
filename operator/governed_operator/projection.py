"""What of an observed object is ours, and whether it still says what we want: drift detection without a memory.

A field that somebody else changes or removes leaves our entry in managedFields (Kubernetes server-side apply, KEP-555),
and a foreign label, annotation or autoscaler-owned replicas never enters it. So the object projected onto our entry
equals what we applied if and only if nothing drifted; a hash of that is all the cache keeps.
"""

import hashlib
import json
from typing import Any

from governed_api.names import FIELD_MANAGER

Json = Any
SKIPPED = ("apiVersion", "kind")


def owned_fields(observed: dict[str, Json], manager: str = FIELD_MANAGER) -> dict[str, Json] | None:
    """Our fieldsV1 of an object (main resource, operation Apply); None when we never applied it."""
    for entry in observed["metadata"].get("managedFields", ()):
        if entry.get("manager") == manager and entry.get("operation") == "Apply" and not entry.get("subresource"):
            fields: dict[str, Json] = entry["fieldsV1"]
            return fields
    return None


def project(value: Json, fields: dict[str, Json]) -> Json:
    """The part of ``value`` that a fieldsV1 tree names; leaves and atomic parts are taken whole."""
    if not any(key != "." for key in fields):
        return value
    if isinstance(value, dict):
        named = ((key[2:], sub) for key, sub in fields.items() if key.startswith("f:"))
        return {key: project(value[key], sub) for key, sub in named if key in value}
    if isinstance(value, list):
        return [project(item, sub) for item, sub in _items(value, fields)]
    return value


def _items(value: list[Json], fields: dict[str, Json]) -> list[tuple[Json, dict[str, Json]]]:
    keyed = [(json.loads(key[2:]), sub) for key, sub in fields.items() if key.startswith("k:")]
    out: list[tuple[Json, dict[str, Json]]] = []
    for item in value:
        if isinstance(item, dict):
            out += [(item, sub) for keys, sub in keyed if all(item.get(k) == v for k, v in keys.items())]
        elif f"v:{json.dumps(item)}" in fields:
            out.append((item, {}))
    return out


def fingerprint(value: Json) -> bytes:
    """Sixteen bytes over canonical JSON."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


def observed_fingerprint(observed: dict[str, Json]) -> bytes | None:
    """Of what we own in an observed object; None when we never applied it."""
    fields = owned_fields(observed)
    return None if fields is None else fingerprint(project(observed, fields))


def desired_fingerprint(manifest: dict[str, Json]) -> bytes:
    """Of a manifest as the API server will have it: without identity (never owned fields) and without empty values."""
    body = {k: v for k, v in manifest.items() if k not in SKIPPED}
    body["metadata"] = {k: v for k, v in manifest["metadata"].items() if k not in ("name", "namespace")}
    return fingerprint(body)
