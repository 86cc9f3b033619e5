"""What comes back is what left: taken while the archive changes; refused when cut, changed, swapped or older, whatever
a file that calls itself a backup holds."""

import hashlib
import io
import os
import random
import shutil
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from governed_serving.archive import restore as restoring
from governed_serving.archive import service
from governed_serving.archive.__main__ import main
from governed_serving.archive.backup.members import END, MANIFEST, BadBackup, Manifest, header, members, padding
from governed_serving.archive.backup.snapshot import Snapshot
from governed_serving.archive.errors import ArchiveError, Busy, LedgerDamaged
from governed_serving.archive.ledger.entrylog import Batch
from governed_serving.archive.restore import Request, Restored, checked, restore
from governed_serving.archive.service import Archive
from governed_serving.archive.tokens import READER, ROLES_SINCE, older_until
from governed_serving.archive.verify.inspection import Asked, inspect_folder
from governed_serving.crypto import Kek, load_kek
from support.work_folder import MODEL, WorkFolder, made

from .ledgers import leaf
from .test_app import Bed
from .test_app import bed as bed


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> WorkFolder:
    return made(tmp_path_factory.mktemp("work"), requests=60)


@pytest.fixture
def work(pristine: WorkFolder, tmp_path: Path) -> WorkFolder:
    shutil.copytree(pristine.root, tmp_path / "work")
    return WorkFolder(tmp_path / "work")


@pytest.fixture(scope="module")
def whole(pristine: WorkFolder) -> bytes:
    """A backup of the run."""
    return taken(pristine)


def taken(work: WorkFolder) -> bytes:
    with closing(work.opened()) as archive, closing(Snapshot(archive)) as snapshot:
        return b"".join(snapshot.chunks())


def back(data: bytes, folder: Path, work: WorkFolder, *, accept_loss: bool = False, **told: str) -> Restored:
    return restore(io.BytesIO(data), Request(folder, load_kek(work.kek_file), "", told, accept_loss=accept_loss))


def holds(folder: Path) -> dict[str, bytes]:
    """What isn't derived, by its path."""
    kinds = ("ledger/log", "keys", "keysets", "refs", "states", "blobs")
    files = [p for kind in kinds for p in (folder / kind).rglob("*") if p.is_file() and p.name != ".lock"]
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in files}


def assert_empty(folder: Path) -> None:
    assert [p.name for p in folder.iterdir() if p.name != ".lock"] == [], "what was refused leaves nothing"


def members_of(data: bytes) -> list[tuple[str, bytes]]:
    """As another program reads them: the file is a tar."""
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return [(m.name, tar.extractfile(m).read()) for m in tar.getmembers()]  # type: ignore[union-attr]


def put_together(parts: list[tuple[str, bytes]]) -> bytes:
    return b"".join(header(name, len(data)) + data + padding(len(data)) for name, data in parts) + END


def manifest_of(data: bytes) -> Manifest:
    return Manifest.parse(members_of(data)[-1][1])


def test_what_comes_back_is_what_left(work: WorkFolder, tmp_path: Path) -> None:
    done = main(["backup", str(work.archive), str(tmp_path / "b.tar"), "--key-file", str(work.kek_file)])
    assert done == 0
    there, report = tmp_path / "there", work.root / "reports" / "governed-archive.json"
    words = ["restore", str(tmp_path / "b.tar"), str(there), "--key-file", str(work.kek_file)]
    assert main([*words, "--checkpoint", str(report)]) == 0
    assert holds(there) == holds(work.archive)
    found = inspect_folder(there, load_kek(work.kek_file), Asked(earlier=(work.checkpoint,)))
    assert found.findings.status == "verified", found.findings
    assert found.log is not None
    assert found.log.size >= work.entries
    assert (tmp_path / "b.tar").stat().st_mode & 0o777 == 0o600


def test_what_comes_back_is_its_owners_alone(whole: bytes, pristine: WorkFolder, tmp_path: Path) -> None:
    back(whole, tmp_path / "new" / "there", pristine)
    folder = tmp_path / "new" / "there"
    places = [folder, folder / "keys", *(folder / kind / MODEL for kind in ("keysets", "refs", "states"))]
    assert {place.stat().st_mode & 0o777 for place in places} == {0o700}


def test_a_backup_holds_no_key_and_no_plaintext(whole: bytes, pristine: WorkFolder) -> None:
    for secret in (pristine.root / "secrets").rglob("*"):
        if secret.is_file():
            assert secret.read_bytes() not in whole
    assert b"req-1" not in whole


def test_it_is_of_one_moment_although_the_archive_goes_on(work: WorkFolder, tmp_path: Path) -> None:
    with closing(work.opened()) as archive:
        snapshot = Snapshot(archive)
        size = archive.ledger.size
        before = holds(work.archive)
        chunks = snapshot.chunks()
        data = next(chunks)
        # all that a running archive does: entries, a blob, a replaced state and reference, a new keyset, rotated keys
        late = b"GMSEAL1\nlate"
        archive.blobs.put(hashlib.sha256(late).hexdigest(), late)
        archive.appender.submit(Batch(MODEL, "late", 0, [leaf("late", model=MODEL)])).result(30)
        archive.put_state(MODEL, "counts", b"GMSEAL1\n" + os.urandom(50))
        archive.put_reference(MODEL, "artefact-1", b'{"blob": "cd"}')
        ring = work.model_keys(archive)
        ring.rotate("journal")
        ring.keyset("masking-tokens")
        work._now += 10 * 86_400.0
        assert archive.rotate(), "the case is made with a new signing key"
        assert archive.sweep() == 0, "no payload goes while a backup may still want it"
        data += b"".join(chunks)
        snapshot.close()
        assert archive.sweep() > 0, "and then it does"
    done = back(data, tmp_path / "there", work)
    assert done.size == size == manifest_of(data).size
    found = holds(tmp_path / "there")
    del found[f"blobs/{hashlib.sha256(late).hexdigest()[:2]}/{hashlib.sha256(late).hexdigest()}"]
    assert found.keys() == before.keys()
    assert all(before[p].startswith(found[p]) if p.startswith("ledger/log/") else found[p] == before[p] for p in found)


def test_a_prefix_over_several_segments_comes_back(
    work: WorkFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("governed_serving.archive.ledger.entrylog._SEGMENT_ENTRIES", 50)
    work.grow(120)
    with closing(work.opened()) as archive:
        size = archive.ledger.size
        with closing(Snapshot(archive)) as snapshot:
            for number in range(120):  # the segment that is written to is full and the next one begun
                entry = leaf(f"late-{number}", model=MODEL)
                archive.appender.submit(Batch(MODEL, "late", number, [entry])).result(30)
            data = b"".join(snapshot.chunks())
    segments = [name for name, _ in members_of(data) if name.startswith("ledger/log/")]
    assert len(segments) >= 2
    assert back(data, tmp_path / "there", work).size == size


def test_an_archive_without_entries_comes_back(tmp_path: Path) -> None:
    kek = Kek(bytes(32))
    with closing(Archive(tmp_path / "a", kek, "default")) as archive, closing(Snapshot(archive)) as snapshot:
        data = b"".join(snapshot.chunks())
    assert restore(io.BytesIO(data), Request(tmp_path / "b", kek)).size == 0


# -- not what was written ---------------------------------------------------------------------------------------------


def _renamed(name: str) -> Callable[[bytes], bytes]:
    def act(data: bytes) -> bytes:
        parts = members_of(data)
        return put_together([(name, b"x"), *parts])

    return act


def _typed(kind: bytes, linkname: str = "/etc/passwd") -> Callable[[bytes], bytes]:
    def act(data: bytes) -> bytes:
        info = tarfile.TarInfo("keys/evil.keyset.json")
        info.type, info.linkname = kind, linkname
        return info.tobuf(tarfile.GNU_FORMAT) + data

    return act


def _pax(data: bytes) -> bytes:
    info = tarfile.TarInfo("keys/evil.keyset.json")
    info.pax_headers = {"path": "../../evil", "comment": "x" * 5000}
    return info.tobuf(tarfile.PAX_FORMAT) + data


def _long_name(data: bytes) -> bytes:
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 1 << 40
    return info.tobuf(tarfile.GNU_FORMAT) + data


def _long_way_out(data: bytes) -> bytes:
    return header("states/" + "../" * 60 + "evil", 0) + data


def _swapped(data: bytes) -> bytes:
    parts = members_of(data)
    one, two = [i for i, (name, _) in enumerate(parts) if name.startswith("blobs/")][:2]
    parts[one], parts[two] = (parts[one][0], parts[two][1]), (parts[two][0], parts[one][1])
    return put_together(parts)


def _without(prefix: str) -> Callable[[bytes], bytes]:
    def act(data: bytes) -> bytes:
        parts = members_of(data)
        gone = next(name for name, _ in parts if name.startswith(prefix))
        return put_together([p for p in parts if p[0] != gone])

    return act


def _honest_without(prefix: str) -> Callable[[bytes], bytes]:
    """As :func:`_without`, by somebody who makes the manifest fit."""

    def act(data: bytes) -> bytes:
        parts = members_of(_without(prefix)(data))
        manifest = Manifest.parse(parts[-1][1])
        kept = {name for name, _ in parts}
        blobs = [d for n, d in parts if n.startswith("blobs/")]
        files = [f for f in manifest.files if f.path in kept]
        fitting = msgspec.structs.replace(manifest, files=files, blobs=len(blobs), blob_bytes=sum(map(len, blobs)))
        return put_together([*parts[:-1], (MANIFEST, msgspec.json.encode(fitting))])

    return act


def _honest_other(prefix: str, content: bytes) -> Callable[[bytes], bytes]:
    """A file is exchanged, and the manifest made to fit."""

    def act(data: bytes) -> bytes:
        parts = members_of(data)
        at = next(i for i, (name, _) in enumerate(parts) if name.startswith(prefix))
        parts[at] = (parts[at][0], content)
        manifest = Manifest.parse(parts[-1][1])
        digest = hashlib.sha256(content).hexdigest()
        files = [
            msgspec.structs.replace(f, bytes=len(content), sha256=digest) if f.path == parts[at][0] else f
            for f in manifest.files
        ]
        return put_together(
            [*parts[:-1], (MANIFEST, msgspec.json.encode(msgspec.structs.replace(manifest, files=files)))]
        )

    return act


def _cut_log(data: bytes) -> bytes:
    """Fewer entries, in a manifest that says so."""
    parts = members_of(data)
    at = next(i for i, (name, _) in enumerate(parts) if name.startswith("ledger/log/"))
    return _honest_other("ledger/log/", parts[at][1][: len(parts[at][1]) // 2])(data)


def _of_size(size: int, name: str = "keys/evil.keyset.json", kind: bytes = tarfile.REGTYPE) -> Callable[[bytes], bytes]:
    """Base-256, as GNU writes what octal digits can't hold: also what is below nothing."""

    def act(data: bytes) -> bytes:
        info = tarfile.TarInfo(name)
        info.type, info.size = kind, size
        return info.tobuf(tarfile.GNU_FORMAT) + data

    return act


HOSTILE: dict[str, Callable[[bytes], bytes]] = {
    "a way out of the folder": _renamed("../evil"),
    "a way out below a model": _renamed("states/../../evil"),
    "an absolute path": _renamed("/tmp/evil"),
    "a hidden file": _renamed("keysets/credit/.lock"),
    "a place that is nobody's": _renamed("ledger/tile/0/000"),
    "a blob in another's folder": _renamed(f"blobs/ab/{'cd' * 32}"),
    "a name with a zero": _renamed("states/credit/a\0b"),
    "a symbolic link": _typed(tarfile.SYMTYPE),
    "a hard link": _typed(tarfile.LNKTYPE, "ledger/checkpoint"),
    "a folder": _typed(tarfile.DIRTYPE, ""),
    "a device": _typed(tarfile.CHRTYPE, ""),
    "a pipe": _typed(tarfile.FIFOTYPE, ""),
    "an extended header": _pax,
    "a name of a terabyte": _long_name,
    "a file of less than nothing": _of_size(-512),
    "a file of the least there is": _of_size(-(1 << 62)),
    "a name of less than nothing": _of_size(-1, "././@LongLink", tarfile.GNUTYPE_LONGNAME),
    "a manifest of less than nothing": _of_size(-512, MANIFEST),
    "a file of eight exbibytes": _of_size(1 << 63),
    "a manifest of a terabyte": _of_size(1 << 40, MANIFEST),
    "a long link": _of_size(40, "././@LongLink", tarfile.GNUTYPE_LONGLINK),
    "a sparse file": _typed(tarfile.GNUTYPE_SPARSE, ""),
    "a file of one piece": _typed(tarfile.CONTTYPE, ""),
    "a word about all that follows": _typed(tarfile.XGLTYPE, ""),
    "a volume's continuation": _typed(b"M", ""),
    "a long way out": _long_way_out,
    "a file twice": lambda data: put_together([members_of(data)[0], *members_of(data)]),
    "two blobs swapped": _swapped,
    "a blob left out": _without("blobs/"),
    "a blob left out, the manifest made to fit": _honest_without("blobs/"),
    "a keyset left out, the manifest made to fit": _honest_without("keysets/"),
    "a state left out, the manifest made to fit": _honest_without("states/"),
    "the archive's keys left out, the manifest made to fit": _honest_without("keys/ledger.keyset"),
    "another state, the manifest made to fit": _honest_other("states/", b"GMSEAL1\nother"),
    "half of the log, the manifest made to fit": _cut_log,
    "no manifest": lambda data: put_together(members_of(data)[:-1]),
    "something behind the manifest": lambda data: data + b"x",
    "another backup behind it": lambda data: data + data,
    "nothing": lambda _: b"",
    "zeros": lambda _: bytes(4096),
    "a gzipped one": lambda data: __import__("gzip").compress(data),
}


@pytest.mark.parametrize("act", HOSTILE.values(), ids=HOSTILE.keys())
def test_nothing_comes_of_what_is_no_whole_backup(
    act: Callable[[bytes], bytes], whole: bytes, pristine: WorkFolder, tmp_path: Path
) -> None:
    folder = tmp_path / "in" / "there"
    with pytest.raises(Exception) as caught:  # noqa: PT011 - its kind is told by the next line
        back(act(whole), folder, pristine)
    assert isinstance(caught.value, (ArchiveError, *_crypto())), repr(caught.value)
    assert_empty(folder)
    assert sorted(p.name for p in tmp_path.rglob("*") if "evil" in p.name) == []


def test_the_longest_name_of_a_model_and_a_state_is_read() -> None:
    name = f"states/{'m' * 63}/{'s' * 128}"
    member = next(members(io.BytesIO(header(name, 3) + b"abc" + padding(3))))
    assert (member.name, b"".join(member.chunks())) == (name, b"abc")


@pytest.mark.parametrize(
    ("length", "told"),
    [(511, "is no file that a backup of ours holds"), (512, "name may have at most 512 bytes, found 513")],
)
def test_a_members_name_has_so_many_bytes_with_its_zero_at_most(length: int, told: str) -> None:
    with pytest.raises(BadBackup, match=told):
        next(members(io.BytesIO(header("x" * length, 0))))


class Counting(io.BytesIO):
    """Remembers how much was asked for at once."""

    most = 0

    def read(self, size: int | None = -1, /) -> bytes:
        assert size is not None
        assert size >= 0, "all at once"
        self.most = max(self.most, size)
        return super().read(size)


@pytest.mark.parametrize("act", HOSTILE.values(), ids=HOSTILE.keys())
def test_no_header_makes_it_read_much_at_once(
    act: Callable[[bytes], bytes], whole: bytes, pristine: WorkFolder, tmp_path: Path
) -> None:
    file = Counting(act(whole))
    with pytest.raises((ArchiveError, *_crypto())):
        restore(file, Request(tmp_path / "there", load_kek(pristine.kek_file)))
    assert file.most <= 1 << 20


def test_of_two_restores_at_once_one_is_done(whole: bytes, pristine: WorkFolder, tmp_path: Path) -> None:
    """Whoever comes later finds the folder in use, or full; what is there is the first one's, whole."""
    done: list[object] = []

    def one() -> None:
        try:
            done.append(back(whole, tmp_path / "there", pristine))
        except ArchiveError as error:
            done.append(str(error))

    threads = [threading.Thread(target=one) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(isinstance(one, Restored) for one in done) == 1
    assert all("in use" in one or "isn't empty" in one for one in done if isinstance(one, str))
    found = inspect_folder(tmp_path / "there", load_kek(pristine.kek_file), Asked())
    assert found.findings.wrong == []
    assert not list((tmp_path / "there").glob(".restoring-*"))


def _crypto() -> tuple[type[Exception], ...]:
    from governed_serving.archive.ledger.note import NoteError
    from governed_serving.crypto import CryptoError

    return (CryptoError, NoteError)


def test_it_is_refused_wherever_it_was_cut(whole: bytes, pristine: WorkFolder, tmp_path: Path) -> None:
    places = {*range(0, len(whole) - len(END), len(whole) // 20), len(whole) - len(END) - 1}
    for place in sorted(places):
        with pytest.raises(ArchiveError):
            back(whole[:place], tmp_path / "there", pristine)
        assert_empty(tmp_path / "there")


def test_a_flipped_byte_anywhere_is_noticed_or_changes_nothing(
    whole: bytes, pristine: WorkFolder, tmp_path: Path
) -> None:
    chance, untouched = random.Random(13), 0
    (tmp_path / "b.tar").write_bytes(whole)
    expected = checked(tmp_path / "b.tar")
    for number in range(60):
        place = chance.randrange(len(whole))
        data = bytearray(whole)
        data[place] ^= 1 << chance.randrange(8)
        folder = tmp_path / f"there-{number}"
        try:
            done = back(bytes(data), folder, pristine)
        except (ArchiveError, *_crypto()):
            assert_empty(folder)
        else:
            untouched += 1
            assert (done.size, done.blobs) == (expected.size, expected.blobs)
            assert holds(folder) == holds(pristine.archive), f"byte {place}"
    assert untouched < 10, "headers alone have bytes that mean nothing"


def test_another_archives_key_opens_nothing(whole: bytes, tmp_path: Path) -> None:
    from governed_serving.crypto import WrongKek

    with pytest.raises(WrongKek, match="mount the right key"):
        restore(io.BytesIO(whole), Request(tmp_path / "there", Kek(bytes(32))))
    assert_empty(tmp_path / "there")


def test_a_disk_that_fills_leaves_nothing(
    whole: bytes, pristine: WorkFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened, left = restoring.open_new, [6]

    def filling(path: Path) -> io.BufferedWriter:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(28, "No space left on device", str(path))
        return opened(path)  # type: ignore[return-value]

    monkeypatch.setattr(restoring, "open_new", filling)
    with pytest.raises(OSError, match="No space left"):
        back(whole, tmp_path / "there", pristine)
    assert_empty(tmp_path / "there")
    monkeypatch.undo()
    assert back(whole, tmp_path / "there", pristine).size > 0


def test_a_full_disk_leaves_the_older_backup(
    work: WorkFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["backup", str(work.archive), str(tmp_path / "b.tar"), "--key-file", str(work.kek_file)]
    assert main(words) == 0
    before = (tmp_path / "b.tar").read_bytes()

    def full(*_: object) -> Iterator[bytes]:
        yield b"GM"
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Snapshot, "chunks", full)
    assert main(words) == 1
    assert "No space left" in capsys.readouterr().err
    assert [p.name for p in tmp_path.glob("*b.tar*")] == ["b.tar"]
    assert (tmp_path / "b.tar").read_bytes() == before


def test_a_folder_that_holds_something_stays_as_it_is(whole: bytes, work: WorkFolder, tmp_path: Path) -> None:
    before = holds(work.archive)
    with pytest.raises(ArchiveError, match=r"isn't empty.*move what is there away"):
        back(whole, work.archive, work)
    assert holds(work.archive) == before
    (tmp_path / "there" / ".restoring-abc").mkdir(parents=True)
    (tmp_path / "there" / ".restoring-abc" / "half").touch()
    assert back(whole, tmp_path / "there", work).size > 0, "what a kill left of a restore is none"
    assert not list((tmp_path / "there").glob(".restoring-*"))


def test_a_folder_in_use_is_refused(whole: bytes, work: WorkFolder, tmp_path: Path) -> None:
    with closing(Archive(tmp_path / "there", Kek(bytes(32)), "default")), pytest.raises(ArchiveError, match="in use"):
        back(whole, tmp_path / "there", work)


# -- older, or less ---------------------------------------------------------------------------------------------------


def test_an_older_backup_is_refused_and_says_what_was_let_go(whole: bytes, work: WorkFolder, tmp_path: Path) -> None:
    work.grow(30)
    size = manifest_of(whole).size
    with pytest.raises(ArchiveError, match=rf"report signed {work.entries} entries, the backup has {size}"):
        back(whole, tmp_path / "there", work, report=work.checkpoint)
    assert_empty(tmp_path / "there")
    done = back(whole, tmp_path / "there", work, accept_loss=True, report=work.checkpoint)
    assert any("report: signed" in str(finding) for finding in done.accepted)
    with closing(Archive(tmp_path / "there", load_kek(work.kek_file), "default")) as archive:
        (loss,) = archive.ledger.find("governed-archive", type="loss")
    assert b'"signed":%d' % work.entries in loss.entry


def test_a_checkpoint_of_another_history_is_refused(whole: bytes, tmp_path: Path, pristine: WorkFolder) -> None:
    other = made(tmp_path / "other", rounds=1, requests=10)
    with pytest.raises(Exception, match=r"key|sign"):
        back(whole, tmp_path / "there", pristine, report=other.checkpoint)
    assert_empty(tmp_path / "there")


def test_what_the_archive_lacks_is_said_by_backup_and_restore(
    work: WorkFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with closing(work.opened()) as archive:
        artefact = msgspec.json.decode(archive.ledger.find(MODEL, type="artefact")[-1].entry)["blob"]
        held = {d: data for d, data in holds(work.archive).items() if d.startswith("blobs/") and data}  # not let go
        damaged = next(d for d in held if not d.endswith(artefact))
    (work.archive / "blobs" / artefact[:2] / artefact).unlink()
    (work.archive / damaged).write_bytes(b"GMSEAL1\nrotten")
    assert main(["backup", str(work.archive), str(tmp_path / "b.tar"), "--key-file", str(work.kek_file)]) == 3
    said = capsys.readouterr().err
    assert f"its blob {artefact} is missing" in said
    assert f"blob {damaged[-64:]} has SHA-256" in said
    words = ["restore", str(tmp_path / "b.tar"), str(tmp_path / "there"), "--key-file", str(work.kek_file)]
    assert main(words) == 1
    assert_empty(tmp_path / "there")
    assert main([*words, "--accept-loss"]) == 0
    assert "accepted: " in capsys.readouterr().err
    assert not (tmp_path / "there" / damaged).exists()


def test_retention_reaches_backups(work: WorkFolder, tmp_path: Path) -> None:
    """A kill between receipt and deletion: the backup holds a payload that its ledger says was deleted."""
    digest = next((work.archive / "blobs" / "expired").glob("??/*")).name
    assert digest not in {name[-64:] for name, _ in members_of(taken(work))}
    with closing(work.opened()) as archive:
        due = next(d for d in sorted(archive.retention._state.waiting))
        content = b"".join(archive.blobs.read(due))
        work._now += 10 * 86_400.0
        assert archive.sweep() > 0
    (work.archive / "blobs" / due[:2] / due).write_bytes(content)
    (work.archive / "blobs" / "expired" / due[:2] / due).unlink()
    data = taken(work)
    assert due in {name[-64:] for name, _ in members_of(data)}, "the case is made"
    done = back(data, tmp_path / "there", work)
    assert done.deleted == 1
    assert not (tmp_path / "there" / "blobs" / due[:2] / due).exists()
    with closing(Archive(tmp_path / "there", load_kek(work.kek_file), "default")) as archive:
        assert archive.blobs.expired(due)
        assert archive.blobs.expired(digest)


# -- over HTTP --------------------------------------------------------------------------------------------------------


def test_the_reader_takes_it_from_a_running_archive(bed: Bed, tmp_path_factory: pytest.TempPathFactory) -> None:
    bed.client().append_batch("s", 0, [leaf("a"), leaf("b")])
    data = b"".join(bed.client(READER, model="").backup())
    there = tmp_path_factory.mktemp("there")
    assert restore(io.BytesIO(data), Request(there, Kek(bytes(32)))).size == 2
    with pytest.raises(ArchiveError, match="may not take a backup; it takes that of reader"):
        b"".join(bed.client().backup())


def test_one_at_a_time(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "_PATIENCE", 0.01)
    with closing(Snapshot(bed.archive)), pytest.raises(Busy, match="under way"):
        Snapshot(bed.archive)
    with closing(Snapshot(bed.archive)):
        pass


def test_a_client_that_goes_holds_up_nothing(bed: Bed) -> None:
    bed.client().append_batch("s", 0, [leaf("a")])
    reader = bed.client(READER, model="").backup()
    next(reader)
    reader.close()
    assert b"".join(bed.client(READER, model="").backup())
    assert not bed.archive._payloads.locked()


def test_names_may_be_replaced_from_many_threads_meanwhile(work: WorkFolder, tmp_path: Path) -> None:
    stop = threading.Event()

    def change(archive: Archive, name: str) -> None:
        while not stop.is_set():
            archive.put_state(MODEL, name, b"GMSEAL1\n" + os.urandom(64))

    with closing(work.opened()) as archive:
        threads = [threading.Thread(target=change, args=(archive, f"pod-{n}")) for n in range(3)]
        for thread in threads:
            thread.start()
        taken_meanwhile = []
        try:
            for _ in range(3):
                with closing(Snapshot(archive)) as snapshot:
                    taken_meanwhile.append(b"".join(snapshot.chunks()))
        finally:
            stop.set()
            for thread in threads:
                thread.join()
    for number, data in enumerate(taken_meanwhile):
        assert back(data, tmp_path / str(number), work).size == manifest_of(data).size


def test_an_older_log_is_not_served_where_the_report_knows_more(whole: bytes, work: WorkFolder, tmp_path: Path) -> None:
    """Restored without a checkpoint at hand, it is held against the report as it starts."""
    work.grow(30)
    back(whole, tmp_path / "there", work)
    with pytest.raises(LedgerDamaged, match=r"w(ere|as) signed"):
        Archive(tmp_path / "there", load_kek(work.kek_file), "default", told={"GovernanceReport": work.checkpoint})


def test_older_tokens_are_taken_no_longer_after_a_restore(work: WorkFolder, tmp_path: Path) -> None:
    """Their week begins once, not with every folder."""
    since = "2026-01-01T00:00:00.000Z"
    (work.archive / ROLES_SINCE).write_text(since)
    data, now = taken(work), time.time()
    back(data, tmp_path / "there", work)
    assert (tmp_path / "there" / ROLES_SINCE).read_text() == since
    assert older_until(tmp_path / "there", now) == older_until(work.archive, now) < now
    (work.archive / ROLES_SINCE).unlink()
    older = taken(work)
    back(older, tmp_path / "older", work)
    assert (tmp_path / "older" / ROLES_SINCE).read_text() == manifest_of(older).time, "at the latest as it was taken"
