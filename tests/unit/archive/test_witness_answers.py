"""How often a witness is asked, and what comes of each of its answers, with a client that answers as the test says."""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from governed_serving.archive.ledger.cosignature import Cosignature, Cosigner
from governed_serving.archive.ledger.note import Checkpoint, Signer
from governed_serving.archive.service import Archive
from governed_serving.archive.witness import asking
from governed_serving.archive.witness.asking import Witnessing
from governed_serving.archive.witness.client import Conflict, Inconsistent, WitnessProblem
from governed_serving.archive.witness.policy import Witness, WitnessPolicy
from governed_serving.crypto import Kek

from .ledgers import batch

KEK = Kek(bytes(32))
COSIGNER = Cosigner("w1", bytes(32))
Answer = Exception | Callable[[], Any]


class Bed:
    """``answers``: of the requests to come, in order; ``keeps``: what the witness shows of the log."""

    def __init__(self, root: Path) -> None:
        self.now, self.asked = 1000.0, list[tuple[int, int]]()
        self.answers: list[Answer] = []
        self.keeps: Answer = lambda: ""
        self.archive = Archive(root, KEK, "default")
        self.archive.ledger.append(batch(0, 5))
        client: Any = SimpleNamespace(add_checkpoint=self._add, kept=self._kept)
        policy = WitnessPolicy((Witness(COSIGNER, "http://w1"),), 1)
        self.asking = Witnessing(self.archive, policy, client=lambda _: client, clock=lambda: self.now, period=5.0)
        (self.standing,) = self.archive.witnessed.standings

    async def _add(self, old: int, proof: list[bytes], note: str) -> Cosignature:
        assert Checkpoint.unverified(note).size == self.archive.ledger.size
        self.asked.append((old, len(proof)))
        found = self.answers.pop(0) if self.answers else cosigned
        if isinstance(found, Exception):
            raise found
        answer: Cosignature = found()
        return answer

    async def _kept(self, origin: str) -> str:
        assert origin == self.archive.ledger.origin
        if isinstance(self.keeps, Exception):
            raise self.keeps
        text: str = self.keeps()
        return text

    def round(self, *answers: Answer, later: float = 0.0) -> str:
        """One round, ``later`` seconds after the last one; the problem."""
        self.now += later
        self.answers = list(answers)
        asyncio.run(self.asking.round())
        return self.standing.problem


def cosigned(ahead: float = 0.0) -> Cosignature:
    return Cosignature(f"— w1 line{ahead}", int(time.time() + ahead))


@pytest.fixture
def bed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bed]:
    monkeypatch.setattr(asking.JITTER, "uniform", lambda _, most: most)
    made = Bed(tmp_path)
    with closing(made.archive):
        yield made


def test_a_witness_is_asked_again_when_something_came_or_an_hour_passed(bed: Bed) -> None:
    assert bed.round() == ""
    assert bed.asked == [(0, 0)]
    bed.round(later=3599.9)
    assert len(bed.asked) == 1, "nothing came, and its view is fresh"
    bed.round(later=0.1)
    assert bed.asked == [(0, 0), (5, 0)]
    bed.archive.ledger.append(batch(5, 5))
    bed.round()
    assert [old for old, _ in bed.asked] == [0, 5, 5]
    assert bed.asked[-1][1] > 0, "with a proof that the log goes on"
    assert bed.standing.answers["cosigned"] == 3


def test_one_that_fails_is_left_alone_for_longer_each_time_and_no_longer_than_five_minutes(bed: Bed) -> None:
    waited = []
    for _ in range(8):
        assert bed.round(WitnessProblem("timeout", "no answer")) == "no answer"
        waited.append(bed.asking._asked[0].pause)
        bed.round(later=waited[-1] - 0.1)
        bed.now += 0.1
    assert waited == [5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 300.0, 300.0]
    assert len(bed.asked) == 8, "not before its pause was over"
    assert bed.standing.answers["timeout"] == 8
    assert bed.round() == ""
    assert bed.asking._asked[0].pause == 0.0
    bed.round(WitnessProblem("timeout", "no answer"), later=3600)
    assert bed.asking._asked[0].pause == 5.0, "it begins anew"


def _ours(size: int) -> Callable[[Bed], str]:
    """A checkpoint by the log's own key over another tree."""

    def made(bed: Bed) -> str:
        signer = bed.archive.ledger._signer
        return signer.sign(Checkpoint(signer.name, size, bytes(32)).text())

    return made


def _anothers(bed: Bed) -> str:
    origin = bed.archive.ledger.origin
    return Signer(origin, bytes(range(32))).sign(Checkpoint(origin, 3, bytes(32)).text())


AFTER = "the ledger 5; it shows no checkpoint of ours that contradicts the ledger"
PROBLEMS: dict[str, tuple[list[Answer], Any, str, str]] = {
    # name: (answers, what the witness keeps, outcome, words at the beginning)
    "it stands elsewhere, twice": (
        [Conflict(3), Conflict(4)], "", "garbage", "answered 409 twice, the second time with 4",
    ),
    "it has more than we": ([Conflict(9)], "", "conflict", f"it has cosigned 9 entries, {AFTER}"),
    "it has more than we, and can't be examined": (
        [Conflict(9)], WitnessProblem("timeout", "no answer"), "conflict",
        "it has cosigned 9 entries, the ledger 5; it can't be examined: no answer",
    ),
    "it has more than we, by our key": (
        [Conflict(9)], _ours(9), "contradicted", "witness w1 has a checkpoint over 9 entries (root 0000000000000000…)",
    ),
    "it doesn't take our proof": ([Inconsistent("conflict", "no proof")], "", "conflict", f"no proof, {AFTER}"),
    "it keeps what another signed": (
        [Conflict(9)], _anothers, "conflict", "it has cosigned 9 entries, the ledger 5; it can't be examined: the ",
    ),
    "its clock is ahead": ([lambda: cosigned(400)], "", "garbage", "cosigned at a time to come ("),
}  # fmt: skip


@pytest.mark.parametrize("name", PROBLEMS)
def test_what_a_witness_answers_amiss_is_told_and_counted_by_its_outcome(
    name: str, bed: Bed, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[tuple[str, str, dict[str, Any]]] = []
    monkeypatch.setattr(asking, "log", lambda level, words, **more: said.append((level, words, more)))
    answers, keeps, outcome, words = PROBLEMS[name]
    bed.keeps = keeps if isinstance(keeps, Exception) else lambda: keeps(bed) if callable(keeps) else keeps
    problem = bed.round(*answers)
    assert problem.startswith(words)
    assert dict(bed.standing.answers) == {outcome: 1}
    level = "error" if outcome == "contradicted" else "warning"
    assert said == [(level, "a witness doesn't cosign", {"witness": "w1", "problem": problem})]
    bed.round(*answers, later=5.0)
    assert len(said) == 1, "once, as long as it stays so"


@pytest.mark.parametrize(
    ("outcome", "texts", "told"),
    [
        ("garbage", ["a time to come (1796024968)", "a time to come (1796024973)"], 1),
        ("garbage", ["a time to come (5)", "no signature of line 5"], 2),
        ("contradicted", ["3 entries are others", "4 entries are others"], 2),
        ("contradicted", ["3 entries are others", "3 entries are others"], 1),
    ],
)
def test_other_numbers_are_another_problem_only_where_they_prove_something(
    bed: Bed, monkeypatch: pytest.MonkeyPatch, outcome: str, texts: list[str], told: int
) -> None:
    said: list[str] = []
    monkeypatch.setattr(asking, "log", lambda *_, **more: said.append(more["problem"]))
    for text in texts:
        assert bed.round(WitnessProblem(outcome, text), later=600.0) == text, "the newest one stands"
    assert said == texts[:told]


def test_one_that_stands_elsewhere_is_asked_once_more_from_there(bed: Bed) -> None:
    bed.archive.ledger.append(batch(5, 5))
    assert bed.round(Conflict(5)) == ""
    assert [old for old, _ in bed.asked] == [0, 5]
    assert bed.asked[1][1] > 0


def test_a_clock_may_be_ahead_by_five_minutes(bed: Bed) -> None:
    assert bed.round(lambda: cosigned(295)) == ""


def test_a_greeting_that_fails_is_told_and_stops_nothing(bed: Bed) -> None:
    bed.keeps = WitnessProblem("timeout", "no answer")
    asyncio.run(bed.asking.greet())
    assert bed.standing.problem == "no answer"
    bed.keeps = lambda: _anothers(bed)
    asyncio.run(bed.asking.greet())
    assert bed.standing.problem.startswith("the checkpoint that it keeps isn't signed by this log: ")
    assert dict(bed.standing.answers) == {"timeout": 1, "garbage": 1}


def test_what_was_cosigned_and_changed_on_the_disk_is_written_anew(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bed.archive.witnessed, "restored", lambda: True)
    bed.round()
    assert bed.archive.ledger.said[-1] == "witnessed wasn't what was cosigned: it was written anew"


def test_asking_goes_on_whatever_a_round_raises(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[tuple[str, str, dict[str, Any]]] = []
    monkeypatch.setattr(asking, "log", lambda level, words, **more: said.append((level, words, more)))
    rounds: list[float] = []

    class Enough(BaseException):
        pass

    async def failing() -> None:
        raise OSError("no room")

    async def sleep(seconds: float) -> None:
        rounds.append(seconds)
        if len(rounds) == 2:
            raise Enough

    monkeypatch.setattr(bed.asking, "round", failing)
    monkeypatch.setattr(asking.asyncio, "sleep", sleep)
    with pytest.raises(Enough):
        asyncio.run(bed.asking.run())
    assert rounds == [5.0, 5.0]
    assert said == [("error", "cosignatures weren't kept, retrying", {"error": "no room"})] * 2
