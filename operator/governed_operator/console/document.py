"""The document around each page: head, landmarks, the address of every link, and how a missing part is said."""

from collections.abc import Sequence
from urllib.parse import quote, urlencode

from governed_api.page.markup import Safe, tag, text
from governed_api.page.parts import table
from governed_api.printable import printable
from governed_operator.console.upstream import Away
from governed_operator.console.words import LANGUAGES, Words

__all__ = ["LIMIT", "away_note", "clean", "document", "link", "reading_note", "section", "wide_table"]

LIMIT = 200 << 10
"""Bytes of a page."""
MOST_ROWS = 120
"""Of a table."""
CUT = 600
"""Characters of a text of others."""
_PAGES = (("models", ()), ("decisions", ("decisions",)), ("ledger", ("ledger",)), ("clauses", ("clauses",)))


def clean(value: object) -> str:
    """A text of others: nothing in it acts, and it is cut where it is long."""
    words = printable("" if value is None else str(value))
    return words if len(words) <= CUT else words[:CUT] + "…"


def link(words: Words, *segments: str, **query: str) -> str:
    """Address of a page; it keeps the language that was asked for."""
    asked = {name: value for name, value in query.items() if value}
    if words.asked:
        asked["lang"] = words.language
    path = "/" + "/".join(quote(one, safe="") for one in segments)
    return path + (f"?{urlencode(asked)}" if asked else "")


def away_note(words: Words, away: Away) -> Safe:
    """Which part can't be read, and what to do."""
    what = tag("p", words("unreadable", what=clean(away)))
    then = tag("p", words("do next", command=clean(away.command))) if away.command else None
    return tag("div", what, then, class_="callout", role="note")


def reading_note(words: Words) -> Safe:
    """A part is being recomputed: the browser is to ask again."""
    words.incomplete = True
    return tag("p", words("reading"))


def section(title: str, *children: object) -> Safe:
    return tag("section", tag("h2", title), *children)


def wide_table(
    words: Words, caption: str, headings: Sequence[str], rows: Sequence[Sequence[object]], numeric: Sequence[int] = ()
) -> Safe:
    """A table that scrolls by itself where the window is narrow, by keyboard as well; of too many rows it says so."""
    inner = table(headings, rows[:MOST_ROWS], caption, numeric)
    shown = tag("div", inner, role="region", aria_label=caption, tabindex="0", class_="scroll")
    left = len(rows) - MOST_ROWS
    return shown if left <= 0 else text([shown, tag("p", words("more rows", more=f"{left:,}"), class_="small")])


def document(words: Words, title: str, here: str, *children: object, plain: bool = False) -> bytes:
    """The whole page. ``here``: the page's key in the navigation; ``plain``: its content has a ``main`` of its own."""
    name = words("console")
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("title", title if title == name else f"{title} · {name}"),
        tag("link", rel="stylesheet", href="/style.css"),
        tag("script", src="/refresh.js", defer=True) if not plain else None,
    )
    main = text(children) if plain else tag("main", tag("h1", title), *children, id="content", class_="page")
    foot = None if plain else tag("footer", words("footer"), class_="page")
    top = tag("header", tag("div", tag("strong", name), _contents(words, here), _languages(words)), class_="bar")
    skip = tag("a", words("skip"), href="#content", class_="skip")
    page = tag("html", head, tag("body", skip, top, main, foot), lang="zh-CN" if words.language == "zh" else "en")
    written = f"<!doctype html>\n{page}\n".encode()
    if len(written) <= LIMIT or not children:
        return written
    return document(words, title, here, tag("p", words("too long", limit=LIMIT >> 10), class_="callout"))


def _contents(words: Words, here: str) -> Safe:
    entries = [
        tag("li", tag("a", words(key), href=link(words, *at), aria_current="page" if key == here else None))
        for key, at in _PAGES
    ]
    return tag("nav", tag("ol", entries), aria_label=words("pages"))


def _languages(words: Words) -> Safe:
    names = {"en": "English", "zh": "中文"}
    kept = {"model": words.model} if words.model else {}
    entries = [
        tag("li", tag("a", names[one], href=f"?{urlencode(kept | {'lang': one})}", lang=one)) for one in LANGUAGES
    ]
    return tag("nav", tag("ol", entries), aria_label=words("language"))
