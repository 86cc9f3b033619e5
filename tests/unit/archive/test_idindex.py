"""The index of ids on disk: which runs there are, what is found in them, and which damage is noticed."""

import hashlib
import os
from pathlib import Path

import numpy as np
import pytest

from governed_serving.archive.ledger import idindex
from governed_serving.archive.ledger.idindex import PAIR, IdIndex, IndexDamaged, id_hash

KEY = bytes(range(32))


def opened(root: Path, runs: tuple[str, ...] = (), sums: tuple[bytes, ...] = ()) -> IdIndex:
    return IdIndex(root / "a" / "index", KEY, runs, sums)


def flushed(index: IdIndex, *pairs: tuple[int, int]) -> None:
    for key, entry in pairs:
        index.add(key, entry)
    index.flush()


def lengths(index: IdIndex) -> list[int]:
    return [int(name.removesuffix(".run").rpartition("-")[2]) for name in index.runs]


def names(root: Path) -> list[str]:
    return sorted(path.name for path in (root / "a" / "index").iterdir())


def test_an_id_is_stored_under_a_keyed_hash_of_64_bits(tmp_path: Path) -> None:
    digest = hashlib.blake2b(b"credit\0req-1", digest_size=8, key=KEY).digest()
    assert id_hash(KEY, "credit", "req-1") == int.from_bytes(digest, "little")
    assert opened(tmp_path).hash("credit", "req-1") == id_hash(KEY, "credit", "req-1")


def test_a_run_is_named_for_what_it_holds_and_sorted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[tuple[str, int]] = []

    def fsync(handle: int) -> None:
        path = Path(os.readlink(f"/proc/self/fd/{handle}"))
        synced.append((path.name, path.stat().st_size))

    monkeypatch.setattr(os, "fsync", fsync)
    index = opened(tmp_path)
    index.flush()
    assert (index.runs, index.sums, names(tmp_path)) == ([], [], [])
    flushed(index, (9, 4), (2, 5), (9, 6), (2**64 - 1, 7))
    name = f"{4:020d}-{7:020d}-4.run"
    data = np.array([(2, 5), (9, 4), (9, 6), (2**64 - 1, 7)], dtype=PAIR).tobytes()
    assert PAIR.itemsize == 16
    assert (tmp_path / "a" / "index" / name).read_bytes() == data
    assert (index.runs, index.sums) == ([name], [hashlib.sha256(data).digest()])
    assert synced == [(name, 64)]


def test_what_waits_and_what_is_on_disk_is_found_ascending(tmp_path: Path) -> None:
    index = opened(tmp_path)
    flushed(index, *((key, entry) for entry, key in enumerate([5, 1, 5, 9, 0, 9, 9, 9])))
    flushed(index, (5, 8), (5, 8))
    index.add(5, 9)
    index.add(5, 9)
    index.add(7, 10)
    assert len(index.runs) == 2
    everything = {0: [4], 1: [1], 5: [0, 2, 8, 9], 7: [10], 9: [3, 5, 6, 7], 4: [], 2**64 - 1: []}
    assert {key: index.find(key) for key in everything} == everything
    index.flush()
    again = opened(tmp_path, tuple(index.runs), tuple(index.sums))
    assert {key: again.find(key) for key in everything} == everything


def test_runs_of_like_size_are_merged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(idindex, "_MERGED_MAXIMUM", 22)
    index, entry, seen = opened(tmp_path), 0, []
    for count in (4, 2, 2, 1, 4, 1, 2, 16, 12, 10, 11):
        flushed(index, *((entry + i, entry + i) for i in range(count)))
        entry += count
        seen.append(lengths(index))
        index.sweep()
        assert names(tmp_path) == sorted(index.runs)
    assert seen == [
        [4],
        [6],  # 4 is twice 2
        [6, 2],  # 6 is more than that
        [9],  # 2 is twice 1, and 6 twice 3
        [9, 4],
        [9, 4, 1],
        [16],
        [16, 16],  # together more than the greatest length
        [16, 16, 12],
        [16, 16, 22],
        [16, 16, 22, 11],
    ]
    assert [index.find(key) for key in range(entry)] == [[key] for key in range(entry)]


def test_merged_runs_stay_until_the_snapshot_that_doesnt_name_them(tmp_path: Path) -> None:
    index = opened(tmp_path)
    flushed(index, (1, 0))
    before = tuple(index.runs), tuple(index.sums)
    flushed(index, (2, 1))
    assert len(names(tmp_path)) == 3
    assert opened(tmp_path, *before).find(1) == [0]
    assert names(tmp_path) == list(before[0]), "what the snapshot doesn't name is taken away"


def test_a_sweep_takes_what_is_not_named(tmp_path: Path) -> None:
    index = opened(tmp_path)
    flushed(index, (1, 0))
    flushed(index, (2, 1))
    (tmp_path / "a" / "index" / "kept").touch()
    index.sweep()
    assert names(tmp_path) == [*index.runs, "kept"]
    flushed(index, (3, 2), (4, 3))
    assert len(index.sums) == len(index.runs) == 1


@pytest.mark.parametrize("known", [True, False], ids=["with sums", "of an older version"])
@pytest.mark.parametrize("harm", ["flip", "cut", "longer", "delete"])
def test_a_run_that_is_not_what_was_written_is_noticed(tmp_path: Path, harm: str, known: bool) -> None:
    index = opened(tmp_path)
    flushed(index, *((key, key) for key in range(5)))
    path = tmp_path / "a" / "index" / index.runs[0]
    data = path.read_bytes()
    index.check(path.name)
    match harm:
        case "flip":
            path.write_bytes(bytes([data[0] ^ 1]) + data[1:])
        case "cut":
            path.write_bytes(data[:-1])
        case "longer":
            path.write_bytes(data + b"x")
        case "delete":
            path.unlink()
    words = rf"index run {path.name} (isn't what was written|is missing|has the wrong length)"
    with pytest.raises(IndexDamaged, match=words):
        index.check(path.name)
    if harm == "flip" and not known:
        assert opened(tmp_path, tuple(index.runs)).runs == index.runs, "only its length can be compared"
        return
    with pytest.raises(IndexDamaged, match=words):
        opened(tmp_path, tuple(index.runs), tuple(index.sums) if known else ())


def test_a_run_of_an_older_snapshot_is_compared_with_its_first_look(tmp_path: Path) -> None:
    index = opened(tmp_path)
    flushed(index, (1, 0))
    again = opened(tmp_path, tuple(index.runs))
    assert again.sums == index.sums
    path = tmp_path / "a" / "index" / index.runs[0]
    path.write_bytes(bytes(16))
    with pytest.raises(IndexDamaged, match="isn't what was written"):
        again.check(path.name)
