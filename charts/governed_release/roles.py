"""The images of a release: their repository, their place in the chart's values, and what they are built from."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Role:
    """One image. ``value``: its key below ``roles`` in the chart's values; none: the operator's own."""

    name: str
    value: str | None
    dockerfile: str
    locks: tuple[str, ...]


_SERVING = "serving_image/Dockerfile"
_LOCK = "serving_image/locks/serving.txt"

ROLES = (
    Role("operator", None, "operator/Dockerfile", ("operator/locks/operator.txt",)),
    Role("server", "server", _SERVING, (_LOCK,)),
    Role("explainer", "explainer", _SERVING, (_LOCK,)),
    Role("explainer-alibi", "explainerAlibi", _SERVING, (_LOCK, "serving_image/locks/alibi.txt")),
    Role("explainer-captum", "explainerCaptum", _SERVING, (_LOCK, "serving_image/locks/captum.txt")),
    Role("auditor", "auditor", _SERVING, (_LOCK,)),
    Role("archive", "archive", _SERVING, (_LOCK,)),
    Role("trainer", "trainer", _SERVING, ("serving_image/locks/train-cpu.txt",)),
)

REVISION = "org.opencontainers.image.revision"
"""Label of an image: the commit that it was built from; "-dirty" at its end where the tree differed."""
BASE = "org.opencontainers.image.base.name"
