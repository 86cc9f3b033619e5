"""ModelConsumers as people make and change them: pure functions of a document, a drawn key and the time."""

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta

from governed_api.callers import MOST_KEYS, new_api_key
from governed_api.consumer import instant
from governed_api.json_types import Json
from governed_api.names import API_VERSION, CONSUMER_KIND

__all__ = ["Document", "KeyChange", "consumer_document", "key_ids", "revoked", "rotated", "written_moment"]

Document = dict[str, Json]
"""A ModelConsumer as YAML and JSON have it."""


class KeyChange(Exception):
    """It can't be made; the message says why, and what to do."""


def written_moment(moment: datetime) -> str:
    """As a manifest has it."""
    return moment.isoformat(timespec="seconds").replace("+00:00", "Z")


def _drawn(expires: datetime | None) -> tuple[str, Document]:
    """A key to hand out, and what is kept of it."""
    key, kept = new_api_key()
    entry: Document = {"id": kept.id, "sha256": kept.sha256}
    return key, entry | ({"expires": written_moment(expires)} if expires else {})


def consumer_document(name: str, spec: Mapping[str, Json], expires: datetime | None) -> tuple[str, Document]:
    """A new key, and the consumer that lists it and nothing that a default says."""
    key, entry = _drawn(expires)
    given = {field: value for field, value in spec.items() if value not in (None, [], {})}
    body: Document = {"apiKeys": [entry], **given}
    return key, {"apiVersion": API_VERSION, "kind": CONSUMER_KIND, "metadata": {"name": name}, "spec": body}


def _spec(document: Document) -> Document:
    spec = document.get("spec")
    return spec if isinstance(spec, dict) else {}


def _keys(document: Document) -> list[Document]:
    listed = _spec(document).get("apiKeys")
    return [key for key in listed if isinstance(key, dict)] if isinstance(listed, list) else []


def key_ids(document: Document) -> list[str]:
    """Of the keys that a consumer lists."""
    return [str(key.get("id")) for key in _keys(document)]


def _expiry(key: Document) -> datetime | None:
    text = key.get("expires")
    return instant(text) if isinstance(text, str) else None


def _with_keys(document: Document, keys: Iterable[Document]) -> Document:
    return document | {"spec": _spec(document) | {"apiKeys": list(keys)}}


def rotated(
    document: Document, *, overlap: timedelta, expires: datetime | None, now: datetime
) -> tuple[str, Document, list[str]]:
    """A new key, the consumer with it, and the ids of expired keys that it lists no longer. Those that it had end after
    ``overlap``, or when they would have. Raises KeyChange."""
    last = now + overlap
    kept, gone = [], []
    for old in _keys(document):
        ends = _expiry(old)
        if ends is not None and ends <= now:
            gone.append(str(old.get("id")))
        elif overlap:
            kept.append(old | {"expires": written_moment(last) if ends is None or ends > last else old["expires"]})
        else:
            gone.append(str(old.get("id")))
    if len(kept) >= MOST_KEYS:
        raise KeyChange(
            f"expected room for a key, found {len(kept)} that have not expired: governed consumer revoke one"
        )
    key, entry = _drawn(expires)
    return key, _with_keys(document, [*kept, entry]), gone


def revoked(document: Document, key_id: str | None) -> Document:
    """Without one key, or without any. Raises KeyChange for a key that it doesn't list."""
    if key_id is None:
        return _with_keys(document, [])
    ids = key_ids(document)
    if key_id not in ids:
        raise KeyChange(f"expected the id of one of its keys ({', '.join(ids) or 'it has none'}), found {key_id}")
    return _with_keys(document, [key for key in _keys(document) if key.get("id") != key_id])
