"""Callers for tests: keys, documents, and a gate that knows them."""

import hashlib
import hmac
import json
from typing import Any

from governed_api.callers import CallerRole
from governed_serving.access.directory import Directory
from governed_serving.access.gate import Gate

SECRET = "5e" * 32
NOW = 1_800_000_000.0


def key(letter: str, number: int = 0) -> str:
    """An API key whose name is made of ``letter``."""
    secret = hashlib.sha256(f"{letter}{number}".encode()).hexdigest()[:43]
    return f"gmk_{letter * 16}_{secret}"


def kept(text: str, **more: Any) -> dict[str, Any]:
    """What a document has of a key."""
    _, name, secret = text.split("_", 2)
    return {"id": name, "sha256": hashlib.sha256(secret.encode()).hexdigest(), **more}


def caller(name: str, *keys: Any, roles: Any = ("call",), **more: Any) -> dict[str, Any]:
    found = [one if isinstance(one, dict) else kept(one) for one in keys]
    return {"name": name, "keys": found, "roles": list(roles), **more}


def document(*callers: dict[str, Any], sequence: int = 1, namespace: str = "team-a", model: str = "credit") -> bytes:
    return json.dumps({"namespace": namespace, "model": model, "sequence": sequence, "callers": list(callers)}).encode()


def sealed(content: bytes, secret: str = SECRET) -> bytes:
    tag = hmac.new(bytes.fromhex(secret), b"governed-callers-v1\n" + content, hashlib.sha256).hexdigest()
    return tag.encode() + b"\n" + content


def gate_of(*callers: dict[str, Any], component: str = "server") -> Gate:
    gate = Gate("team-a", "credit", component, SECRET, clock=lambda: NOW)
    gate.directory = Directory(document(*callers), "team-a", "credit")
    return gate


ROLE_KEYS = {role: key(chr(ord("a") + number)) for number, role in enumerate(CallerRole)}
"""A key for each role, whose caller has no other."""


def gate_of_roles(component: str = "server") -> Gate:
    return gate_of(*(caller(role, text, roles=[role]) for role, text in ROLE_KEYS.items()), component=component)
