"""Draws the data of generated Secrets; shared by the operator and the local runner."""

import hashlib
import hmac
import secrets

from governed_api import object_names
from governed_api import runtime as rt
from governed_operator.desired.manifest import ANNOTATION_GENERATE, Manifest

KEY_BYTES = 32


def archive_token(root: bytes, namespace: str, name: str) -> bytes:
    """Bearer token (hexadecimal ASCII) by which the archive knows which model speaks."""
    return hmac.new(root, f"{namespace}/{name}".encode(), hashlib.sha256).hexdigest().encode()


def draw(secret: Manifest, root: bytes | None) -> dict[str, bytes]:
    """Data for a Secret that asks for generation. ``root``: the archive's, needed for tokens. Raises ValueError without
    it."""
    metadata = secret["metadata"]
    out: dict[str, bytes] = {}
    for key in metadata["annotations"][ANNOTATION_GENERATE].split(","):
        if key == rt.TOKEN_NAME:
            if root is None:
                raise ValueError(f"Secret {metadata['name']} needs the archive's root key, which isn't there yet")
            out[key] = archive_token(root, metadata["namespace"], object_names.model_of_token(metadata["name"]))
        else:
            out[key] = secrets.token_bytes(KEY_BYTES)
    return out
