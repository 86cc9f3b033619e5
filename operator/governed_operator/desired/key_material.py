"""Draws the data of generated Secrets; shared by the operator and the local runner."""

import secrets

from governed_api.callers import CALLERS_KEY, callers_secret
from governed_api.names import LABEL_MODEL
from governed_api.roles import bearer_token, role_of_key
from governed_operator.desired.manifest import ANNOTATION_GENERATE, Manifest

KEY_BYTES = 32


def wanted(secret: Manifest) -> list[str]:
    """Keys of a Secret that asks for generation."""
    keys: list[str] = secret["metadata"]["annotations"][ANNOTATION_GENERATE].split(",")
    return keys


def derives(secret: Manifest) -> bool:
    """Whether its data are tokens, which follow from the archive's root and can be made anew at any time."""
    return all(key == CALLERS_KEY or role_of_key(key) is not None for key in wanted(secret))


def draw(secret: Manifest, root: bytes | None) -> dict[str, bytes]:
    """Data for a Secret that asks for generation. ``root``: the archive's, needed for tokens. Raises ValueError without
    it."""
    metadata = secret["metadata"]
    out: dict[str, bytes] = {}
    for key in wanted(secret):
        role = role_of_key(key)
        if role is None and key != CALLERS_KEY:
            out[key] = secrets.token_bytes(KEY_BYTES)
            continue
        if root is None:
            raise ValueError(f"Secret {metadata['name']} needs the archive's root key, which isn't there yet")
        about = (root, metadata["namespace"], metadata["labels"][LABEL_MODEL])
        out[key] = (callers_secret(*about) if role is None else bearer_token(*about, role)).encode()
    return out
