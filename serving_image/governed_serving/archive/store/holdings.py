"""What lies in an archive under a name (references, states, keysets), held against what the log says was put there."""

from collections.abc import Callable, Iterable
from typing import NamedTuple

from governed_serving.records import LedgerEntry

__all__ = ["KINDS", "Holding", "Holdings"]

KINDS = {"ref": "reference", "state": "state", "key": "keyset"}
"""Type of the entries that tell of it → what it is called."""
_Place = tuple[str, str, str]


class Holding(NamedTuple):
    """``type``: of the entries that tell of it; ``digest``: SHA-256 (hex) of what is there now, "" where a ``problem``
    keeps that from being known."""

    type: str
    model: str
    name: str
    digest: str
    problem: str = ""


class Holdings:
    """Fed with every entry, in order; memory grows with the names, not with the log."""

    def __init__(self, found: Iterable[Holding]) -> None:
        held = list(found)
        self.problems = [h.problem for h in held if h.problem]
        self._found: dict[_Place, str] = {h[:3]: h.digest for h in held}
        self._named: set[_Place] = set()
        self._last: dict[_Place, str] = {}

    def __len__(self) -> int:
        return len(self._found)

    def add(self, entry: LedgerEntry) -> None:
        """What an entry tells: before anything is put in place, an entry names its digest."""
        if entry.type not in KINDS or not entry.digest:
            return
        place = _place(entry)
        if entry.digest == self._found.get(place):
            self._named.add(place)
        if entry.type != "key":  # a keyset's entries also come from those who use it
            self._last[place] = entry.digest

    def unnamed(self) -> list[Holding]:
        """What no entry names."""
        return [Holding(*place, digest) for place, digest in self._found.items() if digest and place not in self._named]

    def differing(self) -> list[Holding]:
        """What isn't what the last entry about it says, or isn't there at all: with the digest that it should have."""
        return [Holding(*p, last) for p, last in sorted(self._last.items())
                if self._found.get(p) not in (last, "")]  # fmt: skip

    def put_back(
        self, look: Callable[[], Iterable[Holding]], prepared: Callable[[], Iterable[Holding]]
    ) -> list[Holding]:
        """Those of :meth:`differing` that nobody is just replacing: what is ``prepared`` will be in place in a moment,
        or at the archive's next start, and what ``look`` now finds to be another has just been replaced."""
        differ = self.differing()
        coming = set(prepared()) if differ else set()
        now = {h[:3]: h.digest for h in look()} if differ else {}
        return [h for h in differ if h not in coming and now.get(h[:3]) == self._found.get(h[:3])]


def _place(entry: LedgerEntry) -> _Place:
    name = entry.id.rpartition(":")[0] if entry.type == "key" else entry.id
    return entry.type, entry.model, name
