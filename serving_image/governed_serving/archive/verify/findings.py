"""What an inspection found: what holds, what is wrong, what is there and couldn't be looked at, and what nothing in a
folder can show."""

from collections.abc import Iterator
from contextlib import contextmanager

import msgspec

from governed_api.printable import printable
from governed_serving.archive.errors import Busy, Unreachable

__all__ = ["EXIT_STATUS", "Finding", "Findings"]

EXIT_STATUS = {"verified": 0, "tampered": 1, "incomplete": 3}
"""Exit status of ``verify`` by what it found; 2 is wrong usage."""


class Finding(msgspec.Struct, frozen=True):
    """``place``: a path below what was inspected, or what it is about; ``problem``: in words."""

    place: str
    problem: str

    def __str__(self) -> str:
        return f"{self.place}: {self.problem}" if self.place else self.problem


class Findings(msgspec.Struct):
    """Filled in by the checks, in the order in which they look."""

    wrong: list[Finding] = []
    """Not what the signed entries say, or not there though they say so."""
    unchecked: list[Finding] = []
    """There, but it couldn't be held against anything: a key or a file is missing, or it isn't signed yet."""
    beyond: list[Finding] = []
    """What no look at these files can show, or what wasn't asked for; none of it counts against them."""
    holds: list[Finding] = []
    """What was looked at and holds."""

    @property
    def status(self) -> str:
        """A key of ``EXIT_STATUS``."""
        if self.wrong:
            return "tampered"
        return "incomplete" if self.unchecked else "verified"

    def fault(self, place: str, problem: str) -> None:
        self.wrong.append(_finding(place, problem))

    def skip(self, place: str, why: str) -> None:
        self.unchecked.append(_finding(place, why))

    def note(self, place: str, why: str) -> None:
        self.beyond.append(_finding(place, why))

    def onto(self, others: "Findings") -> None:
        """Put these behind ``others``."""
        others.wrong += self.wrong
        others.unchecked += self.unchecked
        others.beyond += self.beyond
        others.holds += self.holds

    def hold(self, what: str, how: str) -> None:
        self.holds.append(_finding(what, how))

    @contextmanager
    def looking_at(self, place: str) -> Iterator[None]:
        """Whatever reading ``place`` raises is a finding about it: bytes that were changed may raise anything. What
        can't be read for now (Busy, Unreachable) is unchecked."""
        try:
            yield
        except (Busy, Unreachable) as error:
            self.skip(place, str(error))
        except Exception as error:
            self.fault(place, " ".join(str(error).split()) or f"can't be read ({type(error).__name__})")


def _finding(place: str, problem: str) -> Finding:
    """Names of files, ids and keys are others' words: nothing in them acts on a terminal, or can't be written."""
    return Finding(printable(place), printable(problem))
