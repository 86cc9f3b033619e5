"""Names in a text: pieces to the stage, tags back to places of the text."""

import secrets
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from hashlib import blake2b

from governed_api.governance import Names
from governed_api.quantities import seconds
from governed_serving.privacy.folding import unescaped
from governed_serving.privacy.names.pieces import MOST_CHARACTERS, OVERLAP, Seen, dotted_end, has_han, sentence_end
from governed_serving.privacy.names.places import finds
from governed_serving.privacy.names.stage import Stage
from governed_serving.privacy.names.tagged import Tag, Tagger
from governed_serving.privacy.scores import Find

__all__ = ["NameFinder", "opened"]

_REMEMBERED = 8192
_ESCAPES = frozenset("\\&%")
"""Begin what stands for another character."""


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
        if text.isascii() and not self._tagger.reads(text) and _ESCAPES.isdisjoint(text):
            return []
        seen = Seen(text)
        if not self._tagger.reads(seen.text):
            return []
        found = _apart(self._finds(seen, finds(seen.text, self._tags(seen, [*seen.pieces()]))))
        joined = seen.joined() if "PERSON" in self._entities else None
        if joined is None:
            return found
        tags = self._tags(joined, [place for place in joined.pieces() if joined.is_joint(*place)])
        return _with(text, found, self._finds(joined, (tag for tag in tags if _is_parted(joined, tag))))

    def _finds(self, seen: Seen, tags: Iterable[Tag]) -> Iterator[Find]:
        for tag in tags:
            if tag.entity in self._entities:
                end = dotted_end(seen.text, tag.end) if tag.entity == "PERSON" else tag.end
                place = seen.start(tag.start), seen.end(end - 1)
                yield Find(tag.entity, *place, tag.score, self._tagger.rule)

    def _tags(self, seen: Seen, places: Sequence[tuple[int, int]]) -> list[Tag]:
        """By places of what is seen, in order; those of parts that overlap may do so."""
        places = [place for place in places if self._tagger.reads(seen.text[slice(*place)])]
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


def _apart(found: Iterable[Find]) -> list[Find]:
    """In order, those that lie within the one before left out."""
    kept: list[Find] = []
    for one in sorted(found, key=lambda one: (one.start, -one.end)):
        if not kept or one.start >= kept[-1].end:
            kept.append(one)
        elif one.end > kept[-1].end:
            kept.append(one._replace(start=kept[-1].end))
    return kept


def _is_parted(seen: Seen, tag: Tag) -> bool:
    return tag.entity == "PERSON" and seen.is_joint(tag.start, tag.end)


def _with(text: str, found: Sequence[Find], parted: Iterable[Find]) -> list[Find]:
    """``found`` and those of ``parted`` that show more of a name than was found, as one where they overlap."""
    ends, more = [one.end for one in found], list[Find]()
    for one in parted:
        first = last = bisect_right(ends, one.start)
        while last < len(found) and found[last].start < one.end:
            last += 1
        beside = found[first:last]
        rest = "".join(text[k] for k in range(one.start, one.end) if not any(o.start <= k < o.end for o in beside))
        if has_han(unescaped(rest)) and all(other.entity == "PERSON" for other in beside):
            more.append(one)
    merged: list[Find] = []
    for one in sorted([*found, *more], key=lambda one: one.start):
        if merged and one.start < merged[-1].end:
            merged[-1] = merged[-1]._replace(end=max(one.end, merged[-1].end))
        else:
            merged.append(one)
    return merged
