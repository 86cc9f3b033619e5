"""Which page an address is, and what of the upstream it needs."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib.resources import files
from typing import TypeVar

from governed_api.json_reading import items, text_of
from governed_api.json_types import Json
from governed_api.page import style
from governed_api.page.markup import Safe, tag
from governed_api.printable import printable
from governed_operator.console.document import LIMIT, away_note, clean, document, link, reading_note, section
from governed_operator.console.model_pages import Shown, model_page, models_page
from governed_operator.console.proof_pages import clauses_of, decision_page, ledger_of, search_form
from governed_operator.console.server import Answer, Asked
from governed_operator.console.upstream import Away, Facts, Kept, Patience, Upstream
from governed_operator.console.words import Words, chosen
from governed_operator.local.overview import Overview, Summary

__all__ = ["Console"]

T = TypeVar("T")
READERS = 4
"""Threads that read upstream."""
SUBSCRIBERS = 16
"""Windows that are told of changes; others show what they showed."""
LOOK = 5.0
"""Seconds between two looks for changes; nobody looks while no window is open."""
MOST_MODELS = 50
"""Whose ledgers a page about all of them shows."""
MOST_TOGETHER = 5
"""Whose whole ledger or clauses are on one page: of more, one is chosen."""
MOST_CHOICES = 500
"""Models that a form offers."""
AROUND = 4 << 10
"""Bytes of a page beside its content."""
PATIENCE = 6.0
"""Seconds that a page waits for what is being recomputed."""
READING = 20.0
"""Seconds after which a page about all models is shown with those that were read."""
MOST_ID = 256
RELOADED = "4"
"""Seconds after which a browser asks again for what is being recomputed."""


class Console:
    """Answers every request with a page; what can't be read is said on it."""

    def __init__(self, upstream: Upstream, *, look: float = LOOK, report: Callable[[str], None] = print):
        self._upstream, self._look, self._report = upstream, look, report
        self._kept, self._facts = Kept(), Facts(upstream)
        self._pool = ThreadPoolExecutor(READERS, thread_name_prefix="console")
        self._subscribers = 0
        self._state, self._changed = "", asyncio.Condition()
        self._watcher: asyncio.Task[None] | None = None
        self._assets = {
            "style.css": Answer(f"{style()}{_asset('console.css')}".encode(), "text/css; charset=utf-8"),
            "refresh.js": Answer(_asset("refresh.js").encode(), "text/javascript; charset=utf-8"),
            "favicon.ico": Answer(b"", "image/x-icon"),
        }

    async def __call__(self, asked: Asked) -> Answer:
        if asked.path == ("changes",):
            return self._changes()
        if len(asked.path) == 1 and asked.path[0] in self._assets:
            return self._assets[asked.path[0]]
        given = asked.query.get("lang", "")
        language = chosen(given, asked.headers.get("accept-language", ""))
        words = Words(language, asked=given == language, model=asked.query.get("model", ""))
        try:
            answer = await asyncio.get_running_loop().run_in_executor(self._pool, self._page, words, asked)
        except Exception as error:  # a page that can't be made is said, never shown as it failed
            self._report(f"console: {'/'.join(asked.path)[:200]!r}: {type(error).__name__}: {error}"[:600])
            away = Away(type(error).__name__, "governed status")
            return Answer(document(words, words("console"), "", away_note(words, away)))
        if words.incomplete:
            return replace(answer, headers={**answer.headers, "refresh": RELOADED})
        return answer

    def stop(self) -> None:
        self._facts.stop()
        self._upstream.stop()
        self._pool.shutdown(wait=False, cancel_futures=True)
        if self._watcher is not None:
            self._watcher.cancel()

    def _page(self, words: Words, asked: Asked) -> Answer:
        match asked.path:
            case ():
                return self._home(words)
            case ("models", key):
                return self._model(words, key)
            case ("models", key, "report"):
                return self._whole_report(words, key)
            case ("decisions",) | ("decisions", ""):
                return self._search(words, asked)
            case ("decisions", id):
                return self._decision(words, id)
            case ("ledger",):
                return self._each(words, "ledger", self._ledger)
            case ("clauses",):
                return self._each(words, "clauses", self._clauses)
        return _no_page(words)

    def _home(self, words: Words) -> Answer:
        models, patience = self._models(), Patience(READING)
        shown = [self._shown(key, one, patience, words) for key, one in models[:MOST_MODELS]]
        parts = models_page(words, shown)
        if (more := len(models) - MOST_MODELS) > 0:
            parts.append(tag("p", words("more models", more=more)))
        return Answer(document(words, words("console"), "models", *parts))

    def _models(self) -> Sequence[tuple[str, Summary]]:
        return self._kept.answer(("models",), self._upstream.models)

    def _named(self, key: str) -> Summary | None:
        return next((summary for known, summary in self._models() if known == key), None)

    def _shown(self, key: str, summary: Summary, patience: Patience, words: Words) -> Shown:
        if not patience.left():
            return Shown(key, summary.name, Away(words("not in time")))
        overview = self._asked_of(("overview", key), lambda: self._upstream.overview(key))
        shown = Shown(key, summary.name, overview)
        shown.facts = self._facts_of(key, 0)
        return shown

    def _facts_of(self, key: str, patience: float) -> dict[str, Json] | Away | None:
        return self._tried(lambda: self._facts.of(key, patience=patience))

    def _asked_of(self, question: tuple[str, ...], ask: Callable[[], T]) -> T | Away:
        return self._tried(lambda: self._kept.answer(question, ask))

    def _tried(self, ask: Callable[[], T]) -> T | Away:
        """One part that can't be read takes no other with it."""
        try:
            return ask()
        except Away as away:
            return away
        except Exception as error:
            self._report(f"console: {type(error).__name__}: {error}"[:600])
            return Away(type(error).__name__, "governed status")

    def _model(self, words: Words, key: str) -> Answer:
        summary = self._named(key)
        if summary is None:
            return _no_page(words)
        shown = self._shown(key, summary, Patience(READING), words)
        if isinstance(shown.overview, Overview):
            verdict = self._asked_of(("verdict", key), lambda: self._upstream.verdict(key))
            shown.verdict = None if isinstance(verdict, Away) else verdict
            shown.contests = self._asked_of(("contests", key), lambda: self._upstream.contests(key))
        return Answer(document(words, clean(summary.name), "models", *model_page(words, shown)))

    def _whole_report(self, words: Words, key: str) -> Answer:
        summary = self._named(key)
        if summary is None:
            return _no_page(words)
        known, title = self._facts_of(key, PATIENCE), clean(summary.name)
        if isinstance(known, Away):
            return Answer(document(words, title, "models", away_note(words, known)))
        if known is None:
            return Answer(document(words, title, "models", reading_note(words)))
        # made and escaped by the serving side's own renderer, for which what turns text round is text
        page = Safe(printable(text_of(known.get("page")), keep="\n\t"))
        if len(page.encode()) > LIMIT - AROUND:
            told = Away(words("too long", limit=LIMIT >> 10), f"governed report {summary.name}")
            return Answer(document(words, title, "models", away_note(words, told)))
        return Answer(document(words, title, "models", tag("div", page, id="content", lang="en"), plain=True))

    def _search(self, words: Words, asked: Asked) -> Answer:
        id, model = asked.query.get("id", "").strip(), asked.query.get("model", "")
        if id:
            return Answer(b"", status=303, headers={"location": link(words, "decisions", id, model=model)})
        return Answer(document(words, words("decisions"), "decisions", self._form(words)))

    def _form(self, words: Words, id: str = "", model: str = "") -> Safe:
        return search_form(words, [(key, _named(key, one)) for key, one in self._models()[:MOST_CHOICES]], id, model)

    def _decision(self, words: Words, id: str) -> Answer:
        models, patience = self._models(), Patience(PATIENCE)
        keys = [key for key, _ in models if key == words.model] if words.model else [key for key, _ in models]
        if len(id) > MOST_ID or not id.isprintable() or (words.model and not keys):
            return Answer(document(words, words("no page"), "decisions", self._form(words)), status=404)
        parts: list[Safe] = []
        waits = False
        for key in keys[:MOST_MODELS]:
            try:
                known = self._facts.of(key, id, patience.left())
            except Away as away:
                parts.append(away_note(words, away))
                continue
            if known is None:
                waits = True
                continue
            if items(known.get("entries")):
                parts, waits = decision_page(words, known), False
                break
        parts += [reading_note(words)] if waits else []
        found = parts or [tag("p", words("not found", id=clean(id)), class_="callout")]
        if not parts and len(keys) > MOST_MODELS:
            found.append(tag("p", words("some searched", some=MOST_MODELS, all=len(keys)), class_="callout"))
        title = f"{words('request')} {clean(id)}"
        return Answer(document(words, title, "decisions", *found, self._form(words, id, words.model)))

    def _each(self, words: Words, page: str, part: Callable[[Words, str, Summary, Patience], Safe]) -> Answer:
        """Of every model, or of that in the address; of too many for a page, one is chosen."""
        models, patience = [one for one in self._models() if words.model in ("", one[0])], Patience(PATIENCE)
        if words.model and not models:
            return _no_page(words)
        if len(models) <= MOST_TOGETHER:
            parts = [part(words, key, summary, patience) for key, summary in models]
            return Answer(document(words, words(page), page, *(parts or [tag("p", words("no models"))])))
        links = [
            tag("a", clean(_named(key, one)), href=link(words, page, model=key)) for key, one in models[:MOST_CHOICES]
        ]
        return Answer(
            document(words, words(page), page, tag("p", words("choose")), tag("ul", [tag("li", one) for one in links]))
        )

    def _ledger(self, words: Words, key: str, summary: Summary, patience: Patience) -> Safe:
        overview = self._asked_of(("overview", key), lambda: self._upstream.overview(key))
        if isinstance(overview, Away):
            return section(clean(summary.name), away_note(words, overview))
        return ledger_of(words, summary.name, overview.archive, self._facts_of(key, patience.left()))

    def _clauses(self, words: Words, key: str, summary: Summary, patience: Patience) -> Safe:
        return clauses_of(words, summary.name, self._facts_of(key, patience.left()))

    def _changes(self) -> Answer:
        """A stream of events: that something changed, never what."""
        if self._subscribers >= SUBSCRIBERS:
            return Answer(b"enough windows are told of changes\n", "text/plain; charset=utf-8", 503)
        return Answer(b"retry: 15000\n\n", "text/event-stream", stream=self._told())

    async def _told(self) -> AsyncIterator[bytes]:
        self._subscribers += 1
        try:
            if self._watcher is None or self._watcher.done():
                self._watcher = asyncio.create_task(self._watch())
            seen = self._state
            while True:
                async with self._changed:
                    await self._changed.wait()
                if self._state != seen:
                    seen = self._state
                    yield b"event: changed\ndata:\n\n"
                else:
                    yield b":\n\n"  # so that a window that has gone is noticed
        finally:
            self._subscribers -= 1

    async def _watch(self) -> None:
        """One look for all windows, while there are any."""
        while self._subscribers:
            self._state = await asyncio.get_running_loop().run_in_executor(self._pool, self._digest)
            async with self._changed:
                self._changed.notify_all()
            await asyncio.sleep(self._look)

    def _digest(self) -> str:
        try:
            return hashlib.sha256(repr(self._models()).encode("utf-8", "replace")).hexdigest()
        except Exception as error:  # the page says it: a window is to be told
            return repr(error)


def _named(key: str, summary: Summary) -> str:
    """Apart from another run of the same model."""
    return summary.name if summary.name == key else f"{summary.name} ({key})"


def _no_page(words: Words) -> Answer:
    return Answer(document(words, words("no page"), ""), status=404)


def _asset(name: str) -> str:
    return files("governed_operator.console").joinpath(name).read_text(encoding="utf-8")
