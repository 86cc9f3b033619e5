"""Who speaks to a namespace's archive: a model in one of its roles, or the reader of all models.

A bearer token says whose it is and proves it: ``MODEL/ROLE/`` and HMAC-SHA256 (RFC 2104) of ``NAMESPACE/MODEL/ROLE``
under the archive's root, in hex. So the archive keeps no list of tokens, and no token is another role's. The reader's
model is ``governed-archive``, which no model can be called.
"""

import hashlib
import hmac
from enum import StrEnum

__all__ = ["CONTAINERS", "Role", "bearer_token", "role_of_key", "token_key"]


class Role(StrEnum):
    """What a token's bearer does: containers of a model's pods, then persons."""

    SERVER = "server"
    EXPLAINER = "explainer"
    AUDITOR = "auditor"
    TRAINER = "trainer"
    IMPORTER = "importer"
    """The Job that brings a model from a network."""
    FETCH = "fetch"
    """The init container that brings the artefact."""
    OPERATOR = "operator"
    """Whoever answers for the model: reads all of it and looks after its keysets."""
    VERIFIER = "verifier"
    """Whoever checks the model: reads all of it."""
    READER = "reader"
    """Whoever checks the whole log: reads what is all models'."""


CONTAINERS = (Role.SERVER, Role.EXPLAINER, Role.AUDITOR, Role.TRAINER, Role.IMPORTER, Role.FETCH)
"""Of a model's own pods."""
_KEY = "-token"


def token_key(role: Role) -> str:
    """Key of a role's token in its Secret."""
    return f"{role}{_KEY}"


def role_of_key(key: str) -> Role | None:
    """The role whose token a key of a Secret holds; None for another key."""
    name = key.removesuffix(_KEY)
    return Role(name) if name != key and name in tuple(Role) else None


def bearer_token(root: bytes, namespace: str, model: str, role: Role) -> str:
    """The token of ``model`` in ``role``, RFC 6750's b64token characters only."""
    proof = hmac.new(root, f"{namespace}/{model}/{role}".encode(), hashlib.sha256).hexdigest()
    return f"{model}/{role}/{proof}"
