"""Secrets. Their data is drawn when they are made (governed_operator.desired.key_material): builders know only what
belongs in them."""

from governed_api import object_names
from governed_api import runtime as rt
from governed_api.callers import CALLERS_KEY
from governed_api.roles import CONTAINERS, Role, token_key
from governed_operator.desired.manifest import (
    ANNOTATION_CREATE_ONCE,
    ANNOTATION_GENERATE,
    Manifest,
    Subject,
    manifest,
    shared,
)
from governed_operator.kube.kinds import SECRET


def _generated(*keys: str) -> dict[str, str]:
    return {ANNOTATION_CREATE_ONCE: "true", ANNOTATION_GENERATE: ",".join(keys)}


def archive_keys(namespace: str) -> Manifest:
    """The archive's own key-encryption key and the root that models' tokens derive from."""
    return shared(
        SECRET,
        object_names.ARCHIVE_KEYS,
        namespace,
        "archive",
        annotations=_generated(rt.KEK_NAME, rt.ROOT_NAME),
        type="Opaque",
    )


def model_kek(subject: Subject) -> Manifest | None:
    """The model's key-encryption key, unless the manifest names one. It outlives the model, or its ledger's content
    would be lost."""
    if subject.model.spec.governance.encryption.key_ref:
        return None
    name = object_names.own_kek(subject.name)
    return manifest(SECRET, name, subject, "keys", owned=False, annotations=_generated(rt.KEK_NAME), type="Opaque")


def model_tokens(subject: Subject) -> Manifest:
    """Bearer tokens for the archive, one for each of the model's containers, which is given its own alone."""
    keys = (token_key(role) for role in CONTAINERS)
    return manifest(
        SECRET, object_names.tokens(subject.name), subject, "keys", annotations=_generated(*keys), type="Opaque"
    )


def callers_key(subject: Subject) -> Manifest | None:
    """What authenticates the document of callers, where callers must be known. A Secret of its own: the tokens' is
    older than the wish."""
    if not subject.model.spec.authenticates:
        return None
    name = object_names.callers(subject.name)
    return manifest(SECRET, name, subject, "keys", annotations=_generated(CALLERS_KEY), type="Opaque")


def operator_token(subject: Subject) -> Manifest:
    """The token of whoever answers for the model: a Secret of its own, so that access to it can be granted by name."""
    name, key = object_names.operator_token(subject.name), token_key(Role.OPERATOR)
    return manifest(SECRET, name, subject, "keys", annotations=_generated(key), type="Opaque")
