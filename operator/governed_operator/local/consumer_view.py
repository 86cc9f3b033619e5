"""ModelConsumers as a person reads them."""

from collections.abc import Iterable, Iterator
from datetime import datetime

from governed_api.consumer import instant
from governed_api.json_reading import items, mapping
from governed_api.json_types import Json
from governed_operator.local.consumer_keys import Document

__all__ = ["consumer_lines"]


def consumer_lines(documents: Iterable[Document], now: datetime) -> Iterator[str]:
    """One for each, by name, and one below it for each key; nothing is cut, so that programs may read them as well."""
    for name, spec in sorted((_name(document), mapping(document.get("spec"))) for document in documents):
        keys = [mapping(key) for key in items(spec.get("apiKeys"))]
        roles = ", ".join(map(str, items(spec.get("roles")))) or "call"
        words = [name, _state(spec, keys, now), roles, f"models: {_models(spec)}", str(spec.get("costCentre") or "")]
        yield "  ".join(filter(None, words))
        yield from (f"    {key.get('id')}  {_ends(key, now)}".rstrip() for key in keys)
        yield from (f"    tokens of {text}" for text in _tokens(spec))


def _state(spec: dict[str, Json], keys: list[dict[str, Json]], now: datetime) -> str:
    if spec.get("suspend"):
        return "suspended"
    if _past(spec.get("expires"), now):
        return "expired"
    if any(_tokens(spec)):
        return "in force"
    if not keys:
        return "no key"
    return "in force" if any(not _past(key.get("expires"), now) for key in keys) else "keys expired"


def _tokens(spec: dict[str, Json]) -> Iterator[str]:
    """Whose tokens are accepted, and of whom they speak."""
    oidc = mapping(spec.get("oidc"))
    if oidc:
        claim = mapping(oidc.get("claim"))
        whom = f"{claim.get('name')}={claim.get('value')}" if claim else str(oidc.get("subject"))
        yield f"{oidc.get('issuer')} for {oidc.get('audience')}: {whom}"
    account = mapping(spec.get("serviceAccount"))
    if account:
        where = f"{account.get('namespace')}/{account.get('name')}"
        yield f"ServiceAccount {where} for {account.get('audience')}"


def _ends(key: dict[str, Json], now: datetime) -> str:
    if not key.get("expires"):
        return ""
    return f"{'ended' if _past(key.get('expires'), now) else 'until'} {key['expires']}"


def _past(text: Json, now: datetime) -> bool:
    ends = instant(text) if isinstance(text, str) else None
    return ends is not None and ends <= now


def _models(spec: dict[str, Json]) -> str:
    chosen = mapping(spec.get("models"))
    labels = mapping(mapping(chosen.get("selector")).get("matchLabels"))
    return ", ".join([*map(str, items(chosen.get("names"))), *(f"{k}={v}" for k, v in labels.items())]) or "none"


def _name(document: Document) -> str:
    return str(mapping(document.get("metadata")).get("name"))
