"""Files that derive from the entries: damaged, deleted or older, they are made anew or refused, never believed."""

import re
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import httpx
import pytest
from cryptography.exceptions import InvalidTag

from governed_serving.archive import serve
from governed_serving.archive.errors import LedgerDamaged, Refused
from governed_serving.archive.ledger import entrylog
from governed_serving.archive.ledger.ledger import Ledger
from governed_serving.archive.ledger.merkle import hash_leaf, verify_inclusion
from governed_serving.archive.service import ANCHOR, Archive
from governed_serving.crypto import CryptoError, Kek
from governed_serving.records import LedgerEntry, canonical
from governed_serving.report.writer import ReportWriter
from support.work_folder import WorkFolder, made

from .ledgers import SIGNER, PlainAead, batch, opened

COUNT = 600


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A ledger of three tiles and a bit, closed in order."""
    ledger = opened(tmp_path)
    for first in range(0, COUNT, 50):
        ledger.append(batch(first, 50))
    ledger.close()
    return tmp_path


def flip(path: Path, place: int = -1) -> None:
    data = bytearray(path.read_bytes())
    data[place if place >= 0 else len(data) // 2] ^= 1
    path.write_bytes(data)


def proves_and_finds(ledger: Ledger) -> None:
    """Every proof verifies, every id is found."""
    assert ledger.size >= COUNT
    root = ledger.root_hash(COUNT)
    for index, entry in enumerate(batch(0, COUNT).entries):
        verify_inclusion(hash_leaf(entry), index, COUNT, ledger.inclusion(index, COUNT), root)
        assert [f.index for f in ledger.find("credit", f"server-0/{index}")] == [index]


DERIVED: dict[str, str] = {
    "tile": "tile/0/000",
    "second tile": "tile/0/001",
    "index": "index/*.run",
    "state": "state",
    "key of the index": "index-key",
}
HARMS: dict[str, Callable[[Path], None]] = {
    "flipped": flip,
    "flipped at its beginning": lambda path: flip(path, 0),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "emptied": lambda path: path.write_bytes(b""),
    "deleted": Path.unlink,
}


@pytest.mark.parametrize("harm", HARMS)
@pytest.mark.parametrize("which", DERIVED)
def test_a_damaged_file_is_made_anew_at_the_start(root: Path, which: str, harm: str) -> None:
    (path,) = root.glob(DERIVED[which])
    HARMS[harm](path)
    ledger = opened(root)
    proves_and_finds(ledger)
    if harm != "deleted" or which in ("tile", "second tile", "index"):
        assert ledger.rebuilt >= 1
        assert ledger.said
    ledger.close()
    again = opened(root)
    proves_and_finds(again)
    assert again.rebuilt == 0, "mended on the disk as well"


@pytest.mark.parametrize("which", ["tile", "second tile", "index", "state"])
def test_a_file_that_is_damaged_while_the_archive_serves_is_noticed(root: Path, which: str) -> None:
    ledger = opened(root)
    proves_and_finds(ledger)
    (path,) = root.glob(DERIVED[which])
    flip(path)
    place = ledger.inspect(0, 256)
    while place:
        place = ledger.inspect(place, 256)
    assert ledger.rebuilt == 1
    proves_and_finds(ledger)
    assert not ledger.faults
    ledger.close()
    assert opened(root).rebuilt == 0


def test_a_changed_log_is_a_fault_that_is_named_and_only_once(root: Path) -> None:
    ledger = opened(root)
    (segment,) = (root / "log").glob("*.seg")
    data = segment.read_bytes()
    flip(segment)
    for _ in range(2):
        place = ledger.inspect(0)
        assert place == 0
    (fault,) = ledger.faults.values()
    assert "don't decrypt" in fault
    assert "backup" in fault
    segment.write_bytes(data)
    ledger.inspect(0)
    assert not ledger.faults


def test_a_tile_above_others_is_made_anew(tmp_path: Path) -> None:
    ledger = opened(tmp_path)
    for first in range(0, 66_000, 6_000):
        ledger.append(batch(first, 6_000))
    ledger.close()
    for path in ("tile/1/000", "tile/0/007", "tile/0/099"):
        flip(tmp_path / path)
    again = opened(tmp_path)
    root = again.root_hash(66_000)
    for index in (0, 7 * 256 + 3, 99 * 256, 65_535):
        (entry,) = again.entries(index, index + 1)
        verify_inclusion(hash_leaf(entry), index, 66_000, again.inclusion(index, 66_000), root)
    assert again.rebuilt == 3
    flip(tmp_path / "tile/1/000")
    again.inspect(63_232, 256)
    assert again.rebuilt == 3, "the tile above is looked at with the last one below it"
    again.inspect(65_280, 256)
    assert (again.rebuilt, again.said[-1]) == (4, "tile/1/000 wasn't what the entries make: it was made anew")


def test_a_snapshot_of_an_older_version_is_taken(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("governed_serving.archive.ledger.idindex.IdIndex.sums", [])
    ledger = opened(root)
    ledger.append(batch(COUNT, 5))
    ledger.close()
    monkeypatch.undo()
    again = opened(root)
    assert again.rebuilt == 0
    proves_and_finds(again)


def test_a_segment_that_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entrylog, "_SEGMENT_ENTRIES", 100)
    ledger = opened(tmp_path)
    for first in range(0, 500, 50):
        ledger.append(batch(first, 50))
    ledger.close()
    sorted((tmp_path / "log").glob("*.seg"))[1].unlink()
    with pytest.raises(LedgerDamaged, match="entries 100 to 199 are missing"):
        opened(tmp_path)


def test_a_bad_frame_before_good_ones_is_no_torn_tail(tmp_path: Path) -> None:
    """Also above the last checkpoint: those behind it had been answered."""
    ledger = opened(tmp_path)
    for first in range(0, 50, 10):
        ledger.append(batch(first, 10))
    (segment,) = (tmp_path / "log").glob("*.seg")
    flip(segment)
    with pytest.raises(LedgerDamaged, match="no torn write"):
        opened(tmp_path)


# -- less than was signed ----------------------------------------------------------------------------------------------

KEK = Kek(bytes(range(32)))


def entry(number: int) -> bytes:
    return canonical(
        LedgerEntry("label", "default", "credit", f"request-{number}", "2026-01-01T00:00:00.000Z", frame=number)
    )


def archive(root: Path, told: dict[str, str] | None = None, *, accept_loss: bool = False) -> Archive:
    return Archive(root, KEK, "default", told=told, accept_loss=accept_loss)


def filled(root: Path, count: int = 30, first: int = 0) -> str:
    """An archive of some entries; its last checkpoint."""
    one = archive(root)
    for number in range(first, first + count):
        from governed_serving.archive.ledger.entrylog import Batch

        one.ledger.append(Batch("credit", "server-0", number, [entry(number)]))
    note = one.ledger.checkpoint()
    one.close()
    return note


def delete_ledger(root: Path, _: Path) -> None:
    shutil.rmtree(root / "ledger")


def older_ledger(root: Path, older: Path) -> None:
    shutil.rmtree(root / "ledger")
    shutil.copytree(older / "ledger", root / "ledger")


def delete_log(root: Path, _: Path) -> None:
    shutil.rmtree(root / "ledger" / "log")


def cut_log_and_delete_checkpoint(root: Path, _: Path) -> None:
    (segment,) = (root / "ledger" / "log").glob("*.seg")
    segment.write_bytes(segment.read_bytes()[: segment.stat().st_size // 2])
    (root / "ledger" / "checkpoint").unlink()


LOSSES = [delete_ledger, older_ledger, delete_log, cut_log_and_delete_checkpoint]


@pytest.mark.parametrize("anchor", ["beside the ledger", "in the report"])
@pytest.mark.parametrize("lose", LOSSES)
def test_a_smaller_ledger_is_refused_with_words_what_to_do(
    tmp_path: Path, lose: Callable[[Path, Path], None], anchor: str
) -> None:
    root, older = tmp_path / "archive", tmp_path / "older"
    filled(root, 10)
    shutil.copytree(root, older)
    note = filled(root, 20, 10)
    lose(root, older)
    told = None
    if anchor == "in the report":
        (root / ANCHOR).unlink()
        told = {"GovernanceReport": note}
    with pytest.raises(LedgerDamaged, match=r"restore .* or serve it with --accept-loss"):
        archive(root, told)
    with pytest.raises(LedgerDamaged, match="accept-loss"):
        archive(root, told)  # looking changed nothing
    one = archive(root, told, accept_loss=True)
    (said,) = one.ledger.find("governed-archive", type="loss")
    assert b'"signed":30' in said.entry
    one.close()
    again = archive(root)  # by now the report has the new checkpoint
    assert len(again.ledger.find("governed-archive", type="loss")) == 1
    again.close()


def test_a_loss_is_accepted_in_a_cluster_by_the_code_that_its_refusal_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An annotation is good for one loss: the next one has another code."""
    reported: dict[str, object] = {}

    def answer(_: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json=reported) if reported else httpx.Response(403, json={})

    quick = partial(ReportWriter, account=tmp_path, transport=httpx.MockTransport(answer))
    (tmp_path / "token").write_text("t")
    monkeypatch.setattr(serve, "ReportWriter", quick)
    root = tmp_path / "archive"
    settings = serve.ArchiveSettings(
        namespace="default",
        port=0,
        public_port=0,
        folder=root,
        kek_file=tmp_path / "kek",
        root=b"r" * 32,
        report="http://api/report/status",
        witnesses=serve.WitnessPolicy(),
    )
    monkeypatch.setattr(serve, "load_kek", lambda _: KEK)

    def code() -> str:
        with pytest.raises(LedgerDamaged) as refused:
            serve._opened(settings, {}, accept_loss=False)
        found = re.search(r"kubectl annotate .* greport governed-archive (\S+)=([0-9a-f]{12})$", str(refused.value))
        assert found
        assert found[1] == "governedmodels.io/accept-loss"
        return found[2]

    filled(root, 30)
    shutil.rmtree(root / "ledger")
    wanted = code()
    assert code() == wanted, "the same at each start"
    for other in ("", "0" * 12, "true"):
        reported |= {"metadata": {"annotations": {"governedmodels.io/accept-loss": other}}}
        assert code() == wanted
    reported |= {"metadata": {"annotations": {"governedmodels.io/accept-loss": wanted}}}
    one = serve._opened(settings, {}, accept_loss=False)
    assert len(one.ledger.find("governed-archive", type="loss")) == 1
    one.close()
    filled(root, 10, 30)
    shutil.rmtree(root / "ledger")
    assert code() != wanted, "what is lost later isn't accepted by it"


def test_streams_go_on_after_a_loss_once(tmp_path: Path) -> None:
    from governed_serving.archive.ledger.entrylog import Batch

    root = tmp_path / "archive"
    filled(root, 30)
    shutil.rmtree(root / "ledger")
    one = archive(root, accept_loss=True)
    one.ledger.append(Batch("credit", "server-0", 30, [entry(30)]))
    with pytest.raises(Refused, match="entries between are missing"):
        one.ledger.append(Batch("credit", "server-0", 32, [entry(32)]))
    one.close()
    again = archive(root)
    assert again.ledger.append(Batch("credit", "server-1", 7, [entry(7)])).size == again.ledger.size
    again.close()


def test_an_anchor_that_is_none_holds_nothing_up(tmp_path: Path) -> None:
    root = tmp_path / "archive"
    filled(root)
    flip(root / ANCHOR)
    one = archive(root, {"GovernanceReport": "anything"})
    assert one.ledger.size == 30
    assert sum("no checkpoint of ours" in said for said in one.ledger.said) == 2
    one.close()


@pytest.mark.parametrize("name", [ANCHOR, "ledger/checkpoint"])
def test_a_note_that_was_taken_away_is_told_and_written_anew(tmp_path: Path, name: str) -> None:
    root = tmp_path / "archive"
    filled(root)
    archive(root).close()
    (root / name).unlink()
    one = archive(root)
    said = [said for said in one.ledger.said if "took it away" in said]
    assert len(said) == 1
    assert said[0].startswith(f"{Path(name).name} isn't there though 30 entries are")
    one.ledger.checkpoint()
    one.close()
    assert (root / name).is_file()
    again = archive(root)
    assert not again.ledger.said
    again.close()


def test_who_was_killed_before_it_ever_signed_misses_nothing(tmp_path: Path) -> None:
    root = tmp_path / "archive"
    filled(root)
    for name in (ANCHOR, "ledger/checkpoint", "ledger/edge", "ledger/state"):
        (root / name).unlink(missing_ok=True)
    one = archive(root)
    assert not [said for said in one.ledger.said if "took it away" in said]
    one.close()


def test_a_damaged_checkpoint_is_taken_from_its_copy(tmp_path: Path) -> None:
    root = tmp_path / "archive"
    filled(root)
    flip(root / "ledger" / "checkpoint")
    one = archive(root)
    assert one.ledger.size == 30
    assert any("checkpoint couldn't be read" in said for said in one.ledger.said)
    one.close()
    (root / ANCHOR).unlink()
    flip(root / "ledger" / "checkpoint")
    with pytest.raises(LedgerDamaged, match="accept-loss"):
        archive(root)


def test_another_key_still_opens_nothing_and_changes_nothing(root: Path) -> None:
    before = {p: p.read_bytes() for p in root.rglob("*") if p.is_file()}
    with pytest.raises(InvalidTag):
        Ledger(root, PlainAead(bytes([1]) * 32), SIGNER)
    assert {p: p.read_bytes() for p in root.rglob("*") if p.is_file()} == before


@pytest.mark.parametrize("what", ["retention", "states/credit/counts", "keysets/credit/journal.keyset.json"])
def test_what_lies_beside_the_ledger_is_held_against_it(tmp_path: Path, what: str) -> None:
    made(tmp_path, rounds=2, requests=10)
    work = WorkFolder(tmp_path)
    flip(work.archive / what)
    one = work.opened()
    try:
        if what == "retention":
            assert any("retention couldn't be read" in said for said in one.ledger.said)
        else:
            read = one.keyset if "keyset" in what else one.state
            with pytest.raises(LedgerDamaged, match="isn't what any of its ledger entries says"):
                read("credit", Path(what).name.partition(".")[0])
    finally:
        one.close()


def test_an_archive_that_could_not_start_lets_go_of_its_folder(tmp_path: Path) -> None:
    made(tmp_path, rounds=2, requests=10)
    work = WorkFolder(tmp_path)
    path = work.archive / "keys" / "references.keyset.json"
    kept = path.read_bytes()
    flip(path)
    for _ in range(2):
        with pytest.raises(CryptoError, match="'references' keyset"):
            work.opened()
    path.write_bytes(kept)
    work.opened().close()
