"""Building blocks of the page: section, table, definition list, verdict pill, digest."""

from collections.abc import Iterable, Sequence

from governed_api.page.markup import Safe, tag, text

__all__ = ["card", "digest", "facts", "figure", "number", "percent", "pill", "section", "table"]

_KINDS = {
    "pass": "good",
    "true": "good",
    "verified": "good",
    "succeeded": "good",
    "primary": "good",
    "fail": "bad",
    "failed": "bad",
    "does not verify": "bad",
    "unknown": "warn",
    "no evidence": "warn",
}


def section(id: str, title: str, *children: object, lead: object = None) -> Safe:
    """A numbered section (the number comes from CSS)."""
    return tag("section", tag("h2", title), tag("p", lead, class_="lead") if lead else None, *children, id=id)


def table(
    headings: Sequence[str],
    rows: Iterable[Sequence[object]],
    caption: str = "",
    numeric: Iterable[int] = (),
    narrow: bool = False,
) -> Safe:
    """A table; ``numeric`` columns are set right with tabular figures."""
    right = set(numeric)
    head = tag("tr", [tag("th", h, scope="col", class_="n" if i in right else None) for i, h in enumerate(headings)])
    body = [tag("tr", [_cell(i, value, i in right) for i, value in enumerate(row)]) for row in rows]
    return tag(
        "div",
        tag(
            "table",
            tag("caption", caption) if caption else None,
            tag("thead", head),
            tag("tbody", body),
            class_="narrow" if narrow else None,
        ),
        class_="scroll",
    )


def _cell(place: int, value: object, right: bool) -> Safe:
    if place == 0:
        return tag("th", value, scope="row")
    return tag("td", value, class_="n" if right else None)


def facts(pairs: Iterable[tuple[str, object]]) -> Safe:
    """Definition list; pairs without a value are left out."""
    shown = [(k, v) for k, v in pairs if v not in (None, "", [])]
    return tag("dl", [[tag("dt", k), tag("dd", v)] for k, v in shown], class_="facts") if shown else Safe("")


def figure(plot: Safe, caption: object) -> Safe:
    """A plot under its caption; nothing when there is no plot."""
    return tag("figure", tag("figcaption", caption), plot) if plot else Safe("")


def pill(verdict: object) -> Safe:
    """A verdict in a coloured frame; the word itself says it too."""
    return tag("span", verdict, class_=f"pill {_KINDS.get(str(verdict).lower(), 'plain')}")


def card(title: str, value: object, note: object = None) -> Safe:
    """One of the figures at the top."""
    return tag(
        "div", tag("div", title, class_="t"), tag("div", value, class_="v"), tag("div", note, class_="m"), class_="card"
    )


def digest(value: str, length: int = 16) -> Safe:
    """A digest cut for reading, whole in the title and in print's data."""
    if not value:
        return text("–")
    name = value.removeprefix("sha256:")
    return tag("code", name[:length] + ("…" if len(name) > length else ""), title=value)


def number(value: object, digits: int = 4) -> str:
    """A figure for a table; – when there is none."""
    if value is None or isinstance(value, bool):
        return "–" if value is None else str(value)
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.{digits}g}".replace("-", "−") if value else "0"
    return str(value)


def percent(value: float | None) -> str:
    """A share."""
    return "–" if value is None else f"{float(value) * 100:.1f} %"
