"""Names in a text: pieces to the stage, tags back to places of the text."""

import secrets
from collections import Counter
from collections.abc import Sequence
from contextlib import AbstractContextManager
from hashlib import blake2b

from governed_api.governance import Names
from governed_api.quantities import seconds
from governed_serving.privacy.names.pieces import MOST_CHARACTERS, OVERLAP, Seen, sentence_end
from governed_serving.privacy.names.places import finds
from governed_serving.privacy.names.stage import Stage
from governed_serving.privacy.names.tagged import Tag, Tagger
from governed_serving.privacy.scores import Find

__all__ = ["NameFinder", "opened"]

_REMEMBERED = 8192


def opened(names: Names) -> "NameFinder":
    """What ``names`` asks for. Raises ValueError, which says what to install."""
    from governed_serving.privacy.names.lac import lac

    return NameFinder(lac(), names.entities, seconds(names.budget))


class NameFinder:
    """Finds ``entities`` by ``tagger``. Thread-safe. Pieces that come again, as those of a conversation do with each
    turn, aren't read again: their tags are remembered by a hash with a key of this process."""

    def __init__(self, tagger: Tagger, entities: Sequence[str], budget: float) -> None:
        self._stage, self._tagger, self._entities = Stage(tagger, budget), tagger, frozenset(entities)
        self._key = secrets.token_bytes(32)
        self._known: dict[bytes, list[Tag]] = {}

    @property
    def failures(self) -> Counter[str]:
        """Texts that could not be searched, by reason."""
        return self._stage.failures

    @property
    def waiting(self) -> int:
        """Texts that wait for a thread."""
        return self._stage.waiting

    def request(self) -> AbstractContextManager[None]:
        """What this thread searches within shares one budget."""
        return self._stage.request()

    def undecided(self, text: str, start: int) -> int:
        """The place from which a growing text may hold a name that isn't at its end yet, at least ``start``: behind its
        last whole sentence; of one that goes on and on, its end."""
        place = start + sentence_end(text[start:])
        if len(text) - place > MOST_CHARACTERS:
            place = len(text) - OVERLAP
        return place if self._tagger.reads(Seen(text[place:]).text) else len(text)

    def find(self, text: str) -> list[Find]:
        """In order and not overlapping. Raises NamesFailed."""
        if text.isascii() and not self._tagger.reads(text) and "\\" not in text and "&" not in text:
            return []
        seen = Seen(text)
        if not self._tagger.reads(seen.text):
            return []
        tags = [tag for tag in finds(seen.text, self._tags(seen)) if tag.entity in self._entities]
        return [Find(t.entity, seen.start(t.start), seen.end(t.end - 1), t.score, self._tagger.rule) for t in tags]

    def _tags(self, seen: Seen) -> list[Tag]:
        """By places of what is seen, in order; those of parts that overlap may do so."""
        places = [place for place in seen.pieces() if self._tagger.reads(seen.text[slice(*place)])]
        pieces = [seen.text[start:end] for start, end in places]
        keys = [blake2b(piece.encode(errors="surrogatepass"), key=self._key).digest() for piece in pieces]
        remembered = self._known
        known = {key: tags for key in keys if (tags := remembered.get(key)) is not None}
        new = {key: piece for key, piece in zip(keys, pieces, strict=True) if key not in known}
        if new:
            known |= zip(new, self._stage.tags(list(new.values())), strict=True)
            self._remember({key: known[key] for key in new})
        tags = [
            tag._replace(start=start + tag.start, end=start + tag.end)
            for (start, _), key in zip(places, keys, strict=True)
            for tag in known[key]
        ]
        return sorted(tags, key=lambda tag: (tag.start, tag.end))

    def _remember(self, found: dict[bytes, list[Tag]]) -> None:
        if len(found) > _REMEMBERED:
            return
        if len(self._known) + len(found) > _REMEMBERED:
            self._known = {}
        self._known |= found
