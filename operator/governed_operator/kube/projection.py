"""What of an observed object is ours, and whether it still says what we want: drift detection without a memory.

A field that somebody else changes or removes leaves our entry in managedFields (Kubernetes server-side apply, KEP-555),
and a foreign label, annotation or autoscaler-owned replicas never enters it. So the object projected onto our entry
equals what we applied if and only if nothing drifted; a hash of that is all the cache keeps.
"""

import hashlib
import json
from functools import lru_cache
from typing import Any

import msgspec

from governed_api.names import FIELD_MANAGER

Json = Any
SKIPPED = ("apiVersion", "kind")
_canonical = msgspec.json.Encoder(order="deterministic").encode


def owned_fields(observed: dict[str, Json], manager: str = FIELD_MANAGER) -> dict[str, Json] | None:
    """Our fieldsV1 of an object (main resource, operation Apply); None when we never applied it."""
    for entry in observed["metadata"].get("managedFields", ()):
        if entry.get("manager") == manager and entry.get("operation") == "Apply" and not entry.get("subresource"):
            fields: dict[str, Json] = entry["fieldsV1"]
            return fields
    return None


def project(value: Json, fields: dict[str, Json]) -> Json:
    """The part of ``value`` that a fieldsV1 tree names; leaves and atomic parts are taken whole."""
    if not fields or (len(fields) == 1 and "." in fields):
        return value
    if isinstance(value, dict):
        named = ((key[2:], sub) for key, sub in fields.items() if key.startswith("f:"))
        return {key: project(value[key], sub) for key, sub in named if key in value}
    if isinstance(value, list):
        return [project(item, sub) for item, sub in _items(value, fields)]
    return value


def _items(value: list[Json], fields: dict[str, Json]) -> list[tuple[Json, dict[str, Json]]]:
    """Items of an associative list or a set that ``fields`` names, in the list's own order."""
    tables: dict[tuple[str, ...], dict[tuple[Json, ...], dict[str, Json]]] = {}
    for key, sub in fields.items():
        if key.startswith("k:"):
            names, values = _list_key(key)
            tables.setdefault(names, {})[values] = sub
    out: list[tuple[Json, dict[str, Json]]] = []
    for item in value:
        if isinstance(item, dict):
            selected = (table.get(tuple(item.get(n) for n in names)) for names, table in tables.items())
            out += [(item, sub) for sub in selected if sub is not None]
        elif f"v:{json.dumps(item)}" in fields:
            out.append((item, {}))
    return out


@lru_cache(maxsize=4096)
def _list_key(key: str) -> tuple[tuple[str, ...], tuple[Json, ...]]:
    """``k:{"name":"x"}`` → (("name",), ("x",)); the same few keys come in every object, so parsing them once is
    enough."""
    parsed = json.loads(key[2:])
    return tuple(parsed), tuple(parsed.values())


def fingerprint(value: Json) -> bytes:
    """Sixteen bytes over canonical JSON."""
    return hashlib.blake2b(_canonical(value), digest_size=16).digest()


def observed_fingerprint(observed: dict[str, Json]) -> bytes | None:
    """Of what we own in an observed object; None when we never applied it."""
    fields = owned_fields(observed)
    return None if fields is None else fingerprint(project(observed, fields))


def desired_fingerprint(manifest: dict[str, Json]) -> bytes:
    """Of a manifest as the API server will have it: without identity (never owned fields) and without empty values."""
    body = {k: v for k, v in manifest.items() if k not in SKIPPED}
    body["metadata"] = {k: v for k, v in manifest["metadata"].items() if k not in ("name", "namespace")}
    return fingerprint(body)
