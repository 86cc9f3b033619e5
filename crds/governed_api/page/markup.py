"""HTML and SVG as nested calls; every text and attribute is escaped unless it was made here."""

from collections.abc import Iterable
from html import escape

__all__ = ["Safe", "tag", "text"]

_EMPTY = {"meta", "br", "hr", "line", "circle", "rect", "path", "polyline", "polygon", "col", "link", "input"}


class Safe(str):
    """Markup that is known to be escaped."""

    __slots__ = ()


def text(value: object) -> Safe:
    """``value`` escaped; markup passes, None is nothing, lists are joined."""
    if isinstance(value, Safe):
        return value
    if value is None:
        return Safe("")
    if isinstance(value, Iterable) and not isinstance(value, str | bytes | dict):
        return Safe("".join(text(part) for part in value))
    return Safe(escape(str(value), quote=True))


def tag(name: str, /, *children: object, **attributes: object) -> Safe:
    """``<name …>children</name>``. Attributes: ``class_`` is class, ``_`` becomes ``-``, None and False are left
    out."""
    words = [name]
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        shown = key.rstrip("_").replace("_", "-")
        words.append(shown if value is True else f'{shown}="{escape(_number(value), quote=True)}"')
    inside = "".join(text(child) for child in children)
    if name in _EMPTY and not inside:
        return Safe(f"<{' '.join(words)}/>")
    return Safe(f"<{' '.join(words)}>{inside}</{name}>")


def _number(value: object) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
