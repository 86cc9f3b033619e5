"""Reads JSON that another process wrote: what isn't of the expected kind is absent."""

from governed_api.json_types import Json

__all__ = ["items", "mapping", "mappings", "text_of"]


def mapping(value: Json) -> dict[str, Json]:
    return value if isinstance(value, dict) else {}


def items(value: Json) -> list[Json]:
    return value if isinstance(value, list) else []


def mappings(value: Json) -> list[dict[str, Json]]:
    return [one for one in items(value) if isinstance(one, dict)]


def text_of(value: Json) -> str:
    return "" if value is None else str(value)
