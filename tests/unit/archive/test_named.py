"""What lies under a name: replaced in three steps, held against what the log says of it."""

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from governed_serving.archive.errors import Refused
from governed_serving.archive.store import named
from governed_serving.archive.store.blobs import NOT_SEALED
from governed_serving.archive.store.holdings import KINDS, Holding, Holdings
from governed_serving.archive.store.named import NamedFiles, Prepared, check_model, check_name
from governed_serving.archive.store.references import References
from governed_serving.archive.store.states import States
from governed_serving.records import LedgerEntry

from .ledgers import PlainAead

ONE, TWO = hashlib.sha256(b"one").hexdigest(), hashlib.sha256(b"two").hexdigest()


def files(root: Path) -> dict[str, bytes]:
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in root.rglob("*") if p.is_file()}


@pytest.mark.parametrize(
    ("check", "good", "bad"),
    [
        (
            check_model,
            ["a", "0", "a-b", "a.b", "a" * 63],
            ["", "a" * 64, "-a", "a-", "A", "a_b", "a/b", "..", ".a", "a\n"],
        ),
        (
            check_name,
            ["a", "Z9._-", "a.keyset.json", "a" * 128],
            ["", "a" * 129, ".a", "-a", "_a", "a/b", "..", "a b", "ä", "a\n"],
        ),
    ],
)
def test_a_name_names_one_file_below_the_folder(check: Callable[[str], str], good: list[str], bad: list[str]) -> None:
    assert [check(name) for name in good] == good
    for name in bad:
        with pytest.raises(Refused, match=r"^a (model's )?name must be") as refused:
            check(name)
        assert refused.value.status == 400


def test_nothing_is_there_before_anything_was_put(tmp_path: Path) -> None:
    under = NamedFiles(tmp_path / "none")
    assert (under.read("m", "n"), under.models(), under.names("m"), list(under.prepared())) == (None, [], [], [])
    for call in (under.names, lambda model: under.read(model, "n"), lambda model: under.prepare(model, "n", b"", ONE)):
        with pytest.raises(Refused):
            call("../m")
    for call in (lambda name: under.read("m", name), lambda name: under.prepare("m", name, b"", ONE)):
        with pytest.raises(Refused):
            call("../n")
    assert not (tmp_path / "none").exists() or files(tmp_path) == {}


def test_what_is_put_is_prepared_beside_and_then_in_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    real = os.fsync

    def fsync(handle: int) -> None:
        synced.append(Path(os.readlink(f"/proc/self/fd/{handle}")).name)
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    under = NamedFiles(tmp_path / "a" / "top")
    prepared = under.prepare("m", "n.x", b"one", ONE)
    beside = f".n.x.{ONE}"
    assert synced == [beside, "m"]
    assert files(tmp_path) == {f"a/top/m/{beside}": b"one"}
    assert (tmp_path / "a" / "top" / "m" / beside).stat().st_mode & 0o777 == 0o600
    assert (prepared.model, prepared.name, prepared.digest, prepared.read()) == ("m", "n.x", ONE, b"one")
    assert (under.read("m", "n.x"), under.names("m"), under.models()) == (None, [], ["m"])
    (again,) = under.prepared()
    assert (again.model, again.name, again.digest) == ("m", "n.x", ONE)
    synced.clear()
    prepared.put_in_place()
    assert synced == ["m"]
    assert files(tmp_path) == {"a/top/m/n.x": b"one"}
    assert (prepared.read(), list(under.prepared())) == (None, [])
    prepared.discard()
    assert (under.read("m", "n.x"), under.names("m")) == (b"one", ["n.x"])


def test_what_was_left_beside_by_a_kill_is_written_anew(tmp_path: Path) -> None:
    under = NamedFiles(tmp_path)
    under.prepare("m", "n", b"ha", ONE)
    assert under.prepare("m", "n", b"half", ONE).read() == b"half"


def test_nothing_stays_beside_when_the_disk_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(named, "fsync_folder", full)
    with pytest.raises(OSError, match="No space"):
        NamedFiles(tmp_path).prepare("m", "n", b"one", ONE)
    assert files(tmp_path) == {}


def put(under: NamedFiles, model: str, name: str, data: bytes = b"x") -> None:
    under.prepare(model, name, data, ONE).put_in_place()


def test_models_and_names_are_sorted_and_hide_what_is_beside(tmp_path: Path) -> None:
    under = NamedFiles(tmp_path)
    for model, name in (("b", "z"), ("b", "a"), ("a", "n")):
        put(under, model, name)
    under.prepare("b", "c", b"", TWO)
    (tmp_path / "file").touch()
    assert (under.models(), under.names("b"), under.names("none")) == (["a", "b"], ["a", "z"], [])


def test_what_was_interrupted_is_finished_when_it_was_said_and_undone_otherwise(tmp_path: Path) -> None:
    under = NamedFiles(tmp_path)
    put(under, "m", "said", b"old")
    put(under, "m", "unsaid", b"old")
    under.prepare("m", "said", b"one", ONE)
    under.prepare("m", "unsaid", b"one", ONE)
    under.prepare("k", "new", b"two", TWO)
    (tmp_path / "m" / ".stranger").write_bytes(b"x")
    (tmp_path / "m" / f".short.{ONE[:-1]}").write_bytes(b"x")
    last = {("m", "said"): ONE, ("m", "unsaid"): TWO, ("k", "new"): TWO}
    done = under.settle(lambda model, name: last[model, name], Prepared.put_in_place)
    assert done == ["new of k", "said of m"]
    assert files(tmp_path) == {
        "m/said": b"one", "m/unsaid": b"old", "k/new": b"two", "m/.stranger": b"x", f"m/.short.{ONE[:-1]}": b"x",
    }  # fmt: skip
    assert under.settle(lambda *_: "", Prepared.put_in_place) == []


def test_one_name_is_settled_without_the_others(tmp_path: Path) -> None:
    under = NamedFiles(tmp_path)
    for model, name in (("m", "a"), ("m", "a.b"), ("n", "a")):
        under.prepare(model, name, b"one", ONE)
    assert [(p.model, p.name) for p in under.prepared("m", "a")] == [("m", "a")]
    assert [(p.model, p.name) for p in under.prepared("m")] == [("m", "a"), ("m", "a.b")]
    assert under.settle(lambda *_: ONE, Prepared.put_in_place, "m", "a") == ["a of m"]
    assert sorted(files(tmp_path)) == [f"m/.a.b.{ONE}", "m/a", f"n/.a.{ONE}"]


# -- references and states ---------------------------------------------------------------------------------------------


def referred(references: References, name: str, value: object, model: str = "m") -> None:
    data = json.dumps(value).encode()
    references.put_in_place(references.prepare(model, name, data, hashlib.sha256(data).hexdigest()))


def test_a_reference_is_sealed_for_its_place(tmp_path: Path) -> None:
    references = References(tmp_path, PlainAead())
    referred(references, "n", {"a": 1})
    (sealed,) = files(tmp_path).values()
    assert PlainAead().open(sealed, b"governed reference 1\0m\0n") == b'{"a": 1}'
    assert references.get("m", "n") == references.opened("m", "n", sealed) == b'{"a": 1}'
    assert references.get("m", "other") is references.opened("m", "n", None) is None
    assert References.MAX_BYTES == 16_384


def test_a_number_of_a_reference_is_remembered_until_it_changes(tmp_path: Path) -> None:
    references = References(tmp_path, PlainAead())
    assert references.number("m", "n", "a") == 0.0
    referred(references, "n", {"a": 1.5, "b": 2, "c": "3", "d": None})
    referred(references, "o", {"a": 7})
    referred(references, "n", {"a": 8}, "other")
    names = ("a", "b", "c", "d", "e")
    assert [references.number("m", "n", field) for field in names] == [1.5, 2.0, 0.0, 0.0, 0.0]
    assert (references.number("m", "o", "a"), references.number("other", "n", "a")) == (7.0, 8.0)
    for path in (tmp_path / "m" / "n", tmp_path / "m" / "o"):
        path.unlink()
    assert (references.number("m", "n", "a"), references.number("m", "o", "a")) == (1.5, 7.0), "from memory"
    referred(references, "n", {"a": 9})
    assert [references.number("m", "n", field) for field in ("a", "b")] == [9.0, 0.0]
    assert (references.number("m", "o", "a"), references.number("other", "n", "a")) == (7.0, 8.0)


def test_a_state_is_sealed_and_of_bounded_size(tmp_path: Path) -> None:
    heads: list[bytes] = []
    states = States(tmp_path, lambda head: (heads.append(head), head.startswith(b"S"))[1])
    states.check(b"S" * (32 << 20))
    assert heads == [b"S" * 64]
    with pytest.raises(Refused, match=r"at most 33554432 bytes, found 33554433") as refused:
        states.check(b"S" * ((32 << 20) + 1))
    assert refused.value.status == 413
    with pytest.raises(Refused, match=NOT_SEALED) as refused:
        states.check(b"plain")
    assert refused.value.status == 415


def test_a_digest_of_a_state_is_remembered_until_it_changes(tmp_path: Path) -> None:
    states = States(tmp_path, lambda _: True)
    assert states.digest("m", "n") is states.get("m", "n") is None
    for name, data, digest in (("n", b"one", ONE), ("o", b"two", TWO)):
        states.put_in_place(states.prepare("m", name, data, digest))
        assert (states.digest("m", name), states.get("m", name)) == (digest, data)
        (tmp_path / "m" / name).unlink()
    assert (states.digest("m", "n"), states.digest("m", "o")) == (ONE, TWO), "from memory"
    states.put_in_place(states.prepare("m", "n", b"two", TWO))
    assert (states.digest("m", "n"), states.digest("m", "o")) == (TWO, TWO)


# -- holdings ----------------------------------------------------------------------------------------------------------


def said(type: str, id: str, digest: str, model: str = "m") -> LedgerEntry:
    return LedgerEntry(type, "default", model, id, "2026-01-01T00:00:00.000Z", digest=digest)


HELD = [Holding("ref", "m", "n", ONE), Holding("state", "m", "n", TWO), Holding("key", "m", "journal", ONE)]


def test_what_no_entry_names_is_told() -> None:
    assert KINDS == {"ref": "reference", "state": "state", "key": "keyset"}
    held = Holdings(HELD)
    assert len(held) == 3
    assert held.unnamed() == HELD
    held.add(said("ref", "n", TWO))
    held.add(said("state", "n", ONE))
    held.add(said("ref", "n", ONE, "other"))
    held.add(said("ref", "other", ONE))
    held.add(said("verdict", "n", ONE))
    held.add(said("key", "data:created", ONE))
    assert held.unnamed() == HELD
    held.add(said("ref", "n", ONE))
    assert held.unnamed() == HELD[1:]
    held.add(said("state", "n", TWO))
    held.add(said("key", "journal:created", ONE))
    assert held.unnamed() == []


def test_what_the_last_entry_says_is_to_be_there() -> None:
    held = Holdings(HELD)
    held.add(said("ref", "n", ""))
    held.add(said("verdict", "x", ONE))
    held.add(said("key", "data:created", TWO))
    assert held.differing() == [], "a keyset's entries also come from those who use it"
    for digest in (TWO, ONE, TWO):
        held.add(said("ref", "n", digest))
        assert held.differing() == ([Holding("ref", "m", "n", TWO)] if digest == TWO else [])
    held.add(said("state", "gone", ONE))
    held.add(said("state", "b", TWO))
    assert held.differing() == [
        Holding("ref", "m", "n", TWO), Holding("state", "m", "b", TWO), Holding("state", "m", "gone", ONE),
    ]  # fmt: skip
    held.add(said("ref", "n", ONE))
    held.add(said("ref", "n", ""))
    assert [one.name for one in held.differing()] == ["b", "gone"]


def test_what_is_just_being_replaced_was_not_put_back() -> None:
    held = Holdings(HELD)
    asked: list[str] = []

    def put_back(now: list[Holding], coming: list[Holding]) -> list[Holding]:
        asked.clear()
        return held.put_back(lambda: (asked.append("look"), now)[1], lambda: (asked.append("prepared"), coming)[1])

    assert put_back([], []) == []
    assert asked == [], "nothing differs, nobody is asked"
    held.add(said("ref", "n", TWO))
    older = Holding("ref", "m", "n", TWO)
    assert put_back(HELD, []) == [older]
    assert asked == ["prepared", "look"]
    assert put_back(HELD, [older]) == []
    assert put_back(HELD, [Holding("ref", "m", "n", ONE)]) == [older]
    assert put_back([older], []) == [], "it has just been replaced"
    held.add(said("state", "gone", ONE))
    assert put_back(HELD, [older]) == [Holding("state", "m", "gone", ONE)]
    assert put_back([*HELD, Holding("state", "m", "gone", ONE)], [older]) == []
