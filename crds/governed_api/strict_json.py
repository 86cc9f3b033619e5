"""JSON that has one reading: what parsers take differently (RFC 8259, 4: names twice; numbers that aren't finite) is
refused."""

import json

from governed_api.json_types import Json

__all__ = ["strict_json"]


def strict_json(text: bytes | str) -> Json:
    """The value of ``text``, UTF-8 where it is bytes. Raises ValueError, and nothing else."""
    decoded = text.decode("utf-8") if isinstance(text, bytes) else text
    try:
        value: Json = json.loads(decoded, object_pairs_hook=_once, parse_constant=_no_number)
    except RecursionError:
        raise ValueError("it nests too deeply") from None
    return value


def _once(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("a name stands twice in an object")
    return made


def _no_number(text: str) -> Json:
    raise ValueError(f"{text} is no number")
