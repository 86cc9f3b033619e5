"""What comes between two steps: a file that is cut as it is read, a keyset that is replaced meanwhile, a disk that
fills up; and what is asked of an archive that has nothing of it."""

import errno
import hashlib
import struct
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import msgspec
import pytest

from governed_api.names import ARCHIVE
from governed_serving.archive import __main__ as command
from governed_serving.archive import keysets, service, taking
from governed_serving.archive.backup import snapshot
from governed_serving.archive.backup.snapshot import Snapshot
from governed_serving.archive.client import ArchiveClient
from governed_serving.archive.errors import ArchiveError, Busy, Refused
from governed_serving.archive.fetching import fetch
from governed_serving.archive.ledger.cosignature import Cosigner
from governed_serving.archive.ledger.note import NoteError
from governed_serving.archive.reach import Speaker
from governed_serving.archive.service import OWN_STREAM, Archive
from governed_serving.archive.verify import promise as promises
from governed_serving.archive.verify.findings import Findings
from governed_serving.archive.verify.record import opened_record
from governed_serving.archive.verify.sources import UrlSource
from governed_serving.crypto import DirectoryStore, Keyring, KeysetChanged
from governed_serving.records import AppendRequest, LedgerEntry

from .ledgers import batch, leaf
from .test_app import KEK, MODEL_KEK, Bed, sealed


@pytest.fixture
def bed(tmp_path: Path) -> Iterator[Bed]:
    with closing(Bed(tmp_path)) as made:
        yield made


def document(folder: Path, purpose: str = "data") -> bytes:
    """A keyset of the model's, wrapped by its key."""
    Keyring(MODEL_KEK, DirectoryStore(folder)).keyset(purpose)
    found = DirectoryStore(folder).get(purpose)
    assert found is not None
    return found


# -- the archive's own streams, and its keysets ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "stream", "told"),
    [
        (ARCHIVE, "s", f"what {ARCHIVE} says, only the archive itself says"),
        ("credit", OWN_STREAM, f"stream {OWN_STREAM} is the archive's own"),
    ],
    ids=["in its name", "in its stream"],
)
def test_nobody_speaks_for_the_archive(bed: Bed, model: str, stream: str, told: str) -> None:
    with pytest.raises(Refused, match=told) as refused:
        bed.archive.admit(Speaker(model, None), AppendRequest(stream, 0, [leaf("x", model=model)]))
    assert refused.value.status == 403


def test_a_receipt_waits_until_its_checkpoint_is_in_object_storage(bed: Bed) -> None:
    bed.archive.appender.submit(batch(0, 2)).result(10)
    shown = bed.archive.ledger.checkpoint()
    bed.archive.appender.submit(batch(2, 1)).result(10)
    bed.archive.show = lambda: shown
    assert bed.archive.receipt("credit", "server-0/1").index == 1
    with pytest.raises(Refused, match="with id server-0/2 isn't in object storage yet: retry later") as refused:
        bed.archive.receipt("credit", "server-0/2")
    assert refused.value.status == 404


def test_a_keyset_that_is_replaced_as_it_is_read_is_read_again(
    bed: Bed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = document(tmp_path / "pod")
    bed.archive.create_keyset("credit", "data", whole)
    read, answers = bed.archive._keyset, [b"what was there before"]
    monkeypatch.setattr(bed.archive, "_keyset", lambda *of: answers.pop() if answers else read(*of))
    assert bed.archive.keyset("credit", "data") == whole


def test_a_keyset_that_another_process_changed_is_not_replaced(
    bed: Bed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = document(tmp_path / "pod")
    bed.archive.create_keyset("credit", "data", whole)

    def changed(*_: object) -> None:
        raise KeysetChanged("it was replaced meanwhile")

    store = SimpleNamespace(get=lambda _: whole, replace=changed)
    monkeypatch.setattr(bed.archive, "_store", lambda _: store)
    with pytest.raises(Refused, match="it was replaced meanwhile") as refused:
        bed.archive.replace_keyset("credit", "data", document(tmp_path / "other"), hashlib.sha256(whole).hexdigest())
    assert refused.value.status == 412


def test_a_key_is_erased_again_where_it_is_there(bed: Bed, tmp_path: Path) -> None:
    assert bed.archive.erase_again("credit", "data") is False, "there is none"
    bed.archive.create_keyset("credit", "data", document(tmp_path / "pod"))
    assert bed.archive.erase_again("credit", "data") is True
    assert bed.archive.erase_again("credit", "data") is False, "it was destroyed"
    with pytest.raises(Refused, match="destroyed"):
        bed.archive.keyset("credit", "data")


def test_without_an_archive_keys_of_persons_lie_in_the_spool_and_with_one_nowhere_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keysets.subject_keys(KEK, tmp_path / "spool", "credit", "", "").digest("north")
    assert {path.parent.name for path in (tmp_path / "spool").rglob("*.json")} == {"keysets"}
    made: list[tuple[object, ...]] = []

    def client(url: str, token: str, model: str, *, patience: float) -> Any:
        made.append((url, token, model, patience))
        return SimpleNamespace(keysets=lambda: DirectoryStore(tmp_path / "archive"))

    monkeypatch.setattr(keysets, "ArchiveClient", client)
    keysets.subject_keys(KEK, tmp_path / "other", "credit", "http://archive", "token").digest("north")
    assert made == [("http://archive", "token", "credit", 5.0)]
    assert not (tmp_path / "other").exists(), "no copy, where a destroyed key would live on"
    assert list((tmp_path / "archive").glob("*.json"))


# -- backups -----------------------------------------------------------------------------------------------------------


def test_a_snapshot_that_can_not_be_made_lets_retention_go_on(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(**_: object) -> Any:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(snapshot, "tempfile", SimpleNamespace(TemporaryFile=full))
        with pytest.raises(OSError, match="No space left"):
            Snapshot(bed.archive)
    with monkeypatch.context() as patched:
        patched.setattr(snapshot, "read_regular", lambda _: full())
        with pytest.raises(OSError, match="No space left"):
            Snapshot(bed.archive)
    monkeypatch.setattr(service, "_PATIENCE", 0.01)
    with closing(Snapshot(bed.archive)), pytest.raises(Busy, match="a backup of this archive is under way"):
        Snapshot(bed.archive)
    Snapshot(bed.archive).close()


def test_a_file_that_is_cut_as_it_is_backed_up_ends_the_backup(bed: Bed) -> None:
    bed.archive.appender.submit(batch(0, 9)).result(10)
    with closing(Snapshot(bed.archive)) as made:
        (segment,) = (bed.root / "ledger" / "log").glob("*.seg")
        size = segment.stat().st_size
        segment.write_bytes(segment.read_bytes()[: size - 5])
        with pytest.raises(OSError, match=rf"ledger/log/.*: expected {size} bytes, found {size - 5}: it was cut"):
            b"".join(made.chunks())


@pytest.mark.parametrize(
    ("number", "error"), [(errno.ENOSPC, ArchiveError), (errno.EIO, OSError)], ids=["full", "broken"]
)
def test_a_disk_that_is_full_is_told_with_what_to_do_and_another_fault_as_it_is(
    number: int, error: type[Exception], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: object) -> None:
        raise OSError(number, "no luck")

    monkeypatch.setattr(taking, "take", failing)
    with pytest.raises(error, match="no luck") as told:
        taking.take_file("http://archive", tmp_path / "b.tar", taking.Asked("", None, None, ""))
    assert ("Free space on its disk" in str(told.value)) is (number == errno.ENOSPC)
    assert list(tmp_path.iterdir()) == [], "no half of a backup stays"


def test_of_what_killed_backups_left_only_files_are_taken_away(tmp_path: Path) -> None:
    (tmp_path / ".b.tar.aa.partial").write_bytes(b"half")
    (tmp_path / ".b.tar.bb.partial").mkdir()
    (tmp_path / ".c.tar.aa.partial").write_bytes(b"another's")
    taking._discard_killed(tmp_path / "b.tar")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".b.tar.bb.partial", ".c.tar.aa.partial"]


def test_a_backup_into_a_pipe_is_written_whole_however_little_the_pipe_takes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    taken: list[bytes] = []

    def write(handle: int, data: Any) -> int:
        assert handle == 1
        taken.append(bytes(data[:3]))
        return min(3, len(data))

    def take(source: str, sink: Callable[[bytes], object], asked: taking.Asked) -> None:
        assert (source, asked) == ("archive", taking.Asked("", None, None, ""))
        sink(b"12345678")
        sink(b"9")

    monkeypatch.setattr(command.os, "write", write)
    monkeypatch.setattr(taking, "take", take)
    monkeypatch.chdir(tmp_path)
    assert command.main(["backup", "archive", "-"]) == 0
    assert taken == [b"123", b"456", b"78", b"9"]


def test_a_volume_without_a_bucket_moves_nothing_out(bed: Bed) -> None:
    bed.client().put_blob(sealed())
    assert bed.archive.blobs.move_out() == 0
    assert len(list(bed.archive.blobs.addresses())) == 1


# -- what readers of a ledger find -------------------------------------------------------------------------------------


def test_findings_are_put_behind_others() -> None:
    first, second = Findings(), Findings()
    for number, findings in enumerate((first, second)):
        findings.fault("wrong", f"{number}")
        findings.skip("unchecked", f"{number}")
        findings.note("beyond", f"{number}")
        findings.hold("holds", f"{number}")
    second.onto(first)
    for kind in ("wrong", "unchecked", "beyond", "holds"):
        assert [(one.place, one.problem) for one in getattr(first, kind)] == [(kind, "0"), (kind, "1")]
        assert len(getattr(second, kind)) == 1


ENTRY = LedgerEntry("prediction", "default", "credit", "a", "2026-01-01T00:00:00.000Z", frame=3, blob="ab" * 32)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"blob": ""}, r"entry a \(prediction\) has no journalled content; all it says is in the entry itself"),
        ({"frame": None}, r"entry a \(prediction\) has no journalled content"),
        ({}, "the content of entry a can't be opened: "),
    ],
    ids=["no blob", "no frame", "a blob that isn't there"],
)
def test_an_entry_without_content_says_so(change: dict[str, Any], told: str, tmp_path: Path) -> None:
    Keyring(MODEL_KEK, DirectoryStore(tmp_path)).keyset("journal")

    def gone(_: str) -> bytes:
        raise FileNotFoundError("it isn't here")

    source: Any = SimpleNamespace(keysets=lambda _: DirectoryStore(tmp_path), blob_bytes=gone)
    with pytest.raises(ArchiveError, match=told):
        opened_record(source, MODEL_KEK, msgspec.structs.replace(ENTRY, **change))


def test_a_running_archive_is_read_by_its_api(bed: Bed) -> None:
    client = bed.client()
    digest = client.put_blob(sealed())
    client.append_batch("s", 0, [leaf("a", blob=digest)])
    source = UrlSource(client)
    assert source.blob_bytes(digest) == sealed()
    with pytest.raises(FileNotFoundError, match="is not here"):
        source.blob_bytes("ab" * 32)
    assert (list(source.addresses()), list(source.holdings()), list(source.prepared())) == ([], [], [])
    Keyring(MODEL_KEK, source.keysets("credit")).keyset("journal")
    assert bed.archive.purposes("credit") == ["journal"]
    with pytest.raises(ArchiveError, match=r"the keysets of other need its own token: give --model other"):
        source.keysets("other")


PROMISE: Any = SimpleNamespace(stream="server-pod", frame=5)
COVERED: dict[str, tuple[dict[str, Any], bool]] = {
    "the frame itself": ({"stream": "server-pod.1", "first": 5, "last": 5}, True),
    "frames around it": ({"stream": "server-pod.1", "first": 4, "last": 6}, True),
    "frames before it": ({"stream": "server-pod.1", "first": 3, "last": 4}, False),
    "frames behind it": ({"stream": "server-pod.1", "first": 6, "last": 9}, False),
    "another stream": ({"stream": "server-other.1", "first": 5, "last": 5}, False),
    "no stream": ({"first": 5, "last": 5}, False),
    "a frame in words": ({"stream": "server-pod.1", "first": "5", "last": 5}, False),
    "no end": ({"stream": "server-pod.1", "first": 5}, False),
}


@pytest.mark.parametrize("name", COVERED)
def test_which_unreadable_frames_stand_for_a_promised_one(name: str) -> None:
    summary, covered = COVERED[name]
    assert promises._covers(msgspec.structs.replace(ENTRY, type="unreadable", summary=summary), PROMISE) is covered


def test_a_promise_of_other_bytes_than_ascii_is_refused(tmp_path: Path) -> None:
    (tmp_path / "p").write_bytes("é".encode())
    with pytest.raises(NoteError, match="a promise must be ASCII: it was changed"):
        promises.read_promise(tmp_path / "p")


def test_a_time_beyond_all_calendars_is_still_told() -> None:
    assert promises._shown(1e300).endswith(" s after 1970")
    assert promises._shown(0.0).startswith(("1970-01-01", "1969-12-31"))


def test_a_cosignature_of_another_length_is_none() -> None:
    with pytest.raises(NoteError, match="must have 76 bytes, that by witness has 4"):
        Cosigner("witness", bytes(32))._checked("text", struct.pack(">I", 1))


# -- the command -------------------------------------------------------------------------------------------------------


def test_what_was_fetched_is_said_and_ends_with_0(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(fetch, "fetch", lambda: "3 files")
    assert command.main(["fetch"]) == 0
    assert capsys.readouterr().err == "fetch: 3 files\n"


def test_serving_recovers_first_and_then_serves_where_it_is_told_to(monkeypatch: pytest.MonkeyPatch) -> None:
    from governed_serving import hosting
    from governed_serving.archive import recovery, serve

    done: list[tuple[object, ...]] = []

    async def served(address: str, *, accept_loss: bool) -> None:
        done.append(("serve", address, accept_loss))

    def run(name: str, start: Any, errors: Any) -> int:
        import asyncio

        done.append((name, ArchiveError in errors))
        asyncio.run(start())
        return 7

    monkeypatch.setattr(hosting, "run", run)
    monkeypatch.setattr(recovery, "recover", lambda: done.append(("recover",)))
    monkeypatch.setattr(serve, "serve", served)
    monkeypatch.delenv("GOVERNED_HOST", raising=False)
    assert command.main(["serve"]) == 7
    assert command.main(["serve", "--host", "::1", "--accept-loss"]) == 7
    assert done == [
        ("archive", True), ("recover",), ("serve", "0.0.0.0", False),
        ("archive", True), ("recover",), ("serve", "::1", True),
    ]  # fmt: skip


# -- over HTTP ---------------------------------------------------------------------------------------------------------


def test_an_archive_is_ready_once_it_has_started_and_until_it_leaves(tmp_path: Path) -> None:
    import asyncio

    from governed_serving.archive.app import create_app
    from governed_serving.archive.metrics import ArchiveMetrics
    from governed_serving.archive.tokens import Tokens

    from .test_app import ROOT

    leaving = [False]
    archive = Archive(tmp_path / "archive", KEK, "default")
    app = create_app(archive, Tokens(ROOT, "default"), ArchiveMetrics("default"), leaving=lambda: leaving[0])

    async def answers() -> list[tuple[int, Any]]:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://archive") as client:

            async def ask(path: str = "/healthz/ready") -> tuple[int, Any]:
                answer = await client.get(path)
                return answer.status_code, answer.json()

            found = [await ask()]
            async with app.router.lifespan_context(app):
                found += [await ask(), await ask("/healthz/live")]
                archive.blobs.away = "the bucket doesn't answer"
                found.append(await ask())
                archive.blobs.away = ""
                leaving[0] = True
                found.append(await ask())
                leaving[0] = False
            return [*found, await ask()]

    stopping = (503, {"error": "the archive is stopping"})
    away = (503, {"error": "the bucket doesn't answer"})
    assert asyncio.run(answers()) == [
        stopping, (200, {"ready": True}), (200, {"live": True}), away, stopping, stopping,
    ]  # fmt: skip


def test_a_receipt_is_asked_for_over_http(bed: Bed) -> None:
    client: ArchiveClient = bed.client()
    client.append_batch("s", 0, [leaf("a")])
    text = client._ask("GET", "/v1/ledger/receipt?id=a").text
    assert text == bed.archive.receipt("credit", "a").text()
