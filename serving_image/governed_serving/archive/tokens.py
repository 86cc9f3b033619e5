"""Who speaks: a model's bearer token is HMAC-SHA256(root, "NAMESPACE/NAME"), so the archive keeps no list of them."""

import hashlib
import hmac
from collections.abc import Iterable

from governed_api.roles import Role, bearer_token
from governed_serving.archive.errors import Refused

__all__ = ["READER", "Tokens", "model_token"]

READER = "*"
"""Name under which a token may read everything and write nothing: HMAC-SHA256(root, "NAMESPACE/*")."""

_REMEMBERED = 10_000
_LONGEST = 512


def model_token(root: bytes, namespace: str, name: str) -> str:
    """The bearer token of a model, in hex."""
    return hmac.new(root, f"{namespace}/{name}".encode(), hashlib.sha256).hexdigest()


class Tokens:
    """Checks bearer tokens of one namespace against ``root`` (secret bytes)."""

    def __init__(self, root: bytes, namespace: str):
        if len(root) < 16:
            raise ValueError(f"the archive's root secret must have at least 16 bytes, found {len(root)}")
        self._root = root
        self._namespace = namespace
        self._known: dict[str, str] = {}

    def of_role(self, token: str) -> tuple[str, str]:
        """(model, role) that a token names and proves. Raises :class:`Refused` (401)."""
        model, name, _ = (*token.split("/", 2), "", "")[:3]
        role = Role(name) if name in tuple(Role) else None
        if role is not None and len(token) < _LONGEST:
            expected = bearer_token(self._root, self._namespace, model, role)
            if hmac.compare_digest(expected.encode(), token.encode()):
                return model, role
        raise Refused(401, "the token is not one that this archive's root gives: take it from the model's Secret")

    def speaker(self, authorization: str, candidates: Iterable[str]) -> str:
        """Name of the model whose token this is; ``candidates`` are the names that it may be.

        Raises :class:`Refused` (401).
        """
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise Refused(401, "an Authorization header 'Bearer TOKEN' is needed")
        for name in (self._known.get(token), *candidates, READER):
            if name and hmac.compare_digest(model_token(self._root, self._namespace, name), token.strip()):
                if len(self._known) < _REMEMBERED:
                    self._known[token] = name
                return name
        raise Refused(401, "the token is not that of the model named here; name it in the header x-governed-model")
