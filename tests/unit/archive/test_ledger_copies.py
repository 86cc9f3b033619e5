"""The ledger in object storage: what comes back is what left or is refused, two archives never write on in silence, and
nothing is acknowledged before it is there."""

import asyncio
import hashlib
import os
import time
from collections.abc import Callable
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import obstore
import pytest
from obstore.store import MemoryStore

from governed_api import runtime
from governed_serving.archive import recovery, serve
from governed_serving.archive.app import create_app
from governed_serving.archive.errors import ArchiveError, Busy, LedgerDamaged, Unreachable, Unverified
from governed_serving.archive.ledger.note import Checkpoint
from governed_serving.archive.metrics import ArchiveMetrics
from governed_serving.archive.mirror import manifest, mirror
from governed_serving.archive.mirror.copying import Copying
from governed_serving.archive.mirror.manifest import RECOVERED, newest, numbers
from governed_serving.archive.mirror.mirror import Mirror, Superseded
from governed_serving.archive.service import Archive
from governed_serving.archive.store.objects import Bucket, Place
from governed_serving.archive.tokens import OLDER_SECONDS, Tokens, older_until
from governed_serving.archive.verify import held_blobs
from governed_serving.archive.verify.inspection import Asked, inspect_folder
from governed_serving.crypto import SUBJECT, DirectoryStore, Kek, Keyring, load_kek
from governed_serving.records import Erasure

from .ledgers import batch
from .test_app import KEK, MODEL_KEK, ROOT, Bed, Loopback

PLACE = "s3://ledgers/team/default?endpoint=http://127.0.0.1:9"


class MemoryBucket(Bucket):
    """The real one over a store in memory. ``down``: it can't be reached."""

    def __init__(self, place: str = PLACE) -> None:
        self.down = False
        self.folders: dict[str, MemoryBucket] = {}
        super().__init__(Place.parse(place))

    def _opened(self, ca: Path | None) -> Any:  # noqa: ARG002
        return MemoryStore()

    def _asking(self) -> Any:
        if self.down:
            raise Busy(f"{self.place}: expected object storage to answer, found nothing")
        return super()._asking()

    def below(self, folder: str) -> "MemoryBucket":
        if folder not in self.folders:
            self.folders[folder] = MemoryBucket(f"s3://ledgers/team/default/{folder}?endpoint=http://127.0.0.1:9")
        return self.folders[folder]

    def paths(self) -> list[str]:
        return sorted(found["path"] for page in obstore.list(self._store) for found in page)

    def content(self, path: str) -> bytes:
        return bytes(obstore.get(self._store, path).bytes())

    def put_in(self, path: str, data: bytes) -> None:
        obstore.put(self._store, path, data)

    def take(self, path: str) -> None:
        obstore.delete(self._store, path)

    def copied(self) -> dict[str, bytes]:
        return {path: self.content(path) for path in self.paths()}

    def become(self, objects: dict[str, bytes]) -> None:
        for path in self.paths():
            self.take(path)
        for path, data in objects.items():
            self.put_in(path, data)


class Site:
    """An archive of namespace ``default``, its key, and the storage that it is copied to."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.bucket, self.folder, self.kek_file = MemoryBucket(), root / "archive", root / "kek"
        self.kek_file.write_bytes(bytes(range(32)))
        self.kek_file.chmod(0o600)
        self.kek = load_kek(self.kek_file)
        monkeypatch.setattr(recovery, "bucket_from_environment", lambda _: self.bucket)
        monkeypatch.setattr(held_blobs, "kept_in", lambda _: self.bucket)

    @property
    def volume(self) -> MemoryBucket:
        return self.bucket.below(manifest.FOLDER)

    def archive(self, folder: Path | None = None, told: dict[str, str] | None = None, **more: Any) -> Archive:
        return Archive(folder or self.folder, self.kek, "default", bucket=self.bucket, told=told, **more)

    def mirror(self, archive: Archive, **more: Any) -> Mirror:
        return Mirror(archive, self.bucket, **more)

    def recover(self, folder: Path | None = None, namespace: str = "default") -> Any:
        variables = {
            runtime.ARCHIVE_DIR: str(folder or self.folder),
            runtime.KEK_FILE: str(self.kek_file),
            runtime.NAMESPACE: namespace,
        }
        return recovery.recover(variables)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    return Site(tmp_path, monkeypatch)


def with_key(archive: Archive, purpose: str = "journal") -> bytes:
    """A keyset of the model's, stored by the archive's own rules."""
    aside = archive.root.parent / f"pod-{purpose}"
    keyring = Keyring(MODEL_KEK, DirectoryStore(aside))
    keyring.keyset(purpose)
    document = DirectoryStore(aside).get(purpose)
    assert document is not None
    assert archive.create_keyset("credit", purpose, document) is None
    return document


def filled(place: Site, entries: int = 300) -> str:
    with closing(place.archive()) as archive:
        with_key(archive)
        archive.appender.submit(batch(0, entries)).result(10)
        archive.put_reference("credit", "artefact", b'{"digest":"d"}')
        made = place.mirror(archive)
        made.round()
        return made.checkpoint


def test_an_archive_over_an_empty_volume_goes_on_from_what_is_stored(place: Site, tmp_path: Path) -> None:
    signed = Checkpoint.unverified(filled(place))
    done = place.recover(tmp_path / "other")
    assert (done.size, done.accepted) == (signed.size, [])
    with closing(place.archive(tmp_path / "other")) as archive:
        assert (archive.ledger.size, archive.ledger.root_hash()) == (signed.size, signed.root)
        assert archive.reference("credit", "artefact") == b'{"digest":"d"}'
        assert archive.keyset("credit", "journal")
        answer = archive.appender.submit(batch(300, 5)).result(10)
        assert answer.size == signed.size + 5
        again = place.mirror(archive)
        again.round()
        assert (again.size, numbers(place.volume)) == (signed.size + 5, [2])
    (tmp_path / "other" / RECOVERED).unlink()
    found = inspect_folder(tmp_path / "other", place.kek, Asked())
    assert found.findings.status == "verified", found.findings


def test_a_recovery_renews_no_token_of_the_older_form(place: Site, tmp_path: Path) -> None:
    """Since when the archive knows roles comes back with the ledger: a lost volume gives nobody another week."""
    since = 1_700_000_000.0
    with closing(place.archive()) as archive:
        assert older_until(place.folder, since) == since + OLDER_SECONDS
        archive.appender.submit(batch(0, 3)).result(10)
        place.mirror(archive).round()
    place.recover(tmp_path / "other")
    assert older_until(tmp_path / "other", since + 30 * 86_400) == since + OLDER_SECONDS


def test_a_clock_that_is_ahead_deletes_nothing_that_another_is_putting_there(place: Site) -> None:
    """An archive whose clock is a century ahead beside the one in its place: what that stored would be gone."""
    filled(place, 20)
    data = b"just put, named by the next manifest"
    address = hashlib.sha256(data).hexdigest()
    place.volume.put_in(f"{address[:2]}/{address}", data)
    with closing(place.archive()) as archive:
        archive.appender.submit(batch(20, 3)).result(10)
        place.mirror(archive, clock=lambda: 4e9).round()
    assert f"{address[:2]}/{address}" in place.volume.paths()


def test_what_was_recovered_is_kept_before_anything_is_appended(
    place: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(place, 20)
    other = tmp_path / "other"
    place.recover(other)
    synced: list[tuple[str, bool]] = []
    fsync = os.fsync

    def noted(handle: int) -> None:
        synced.append((os.readlink(f"/proc/self/fd/{handle}"), (other / RECOVERED).exists()))
        fsync(handle)

    monkeypatch.setattr(os, "fsync", noted)
    serve._keep(other)
    assert (str(other), False) in synced, "the mark's end is durable"
    serve._keep(other)
    assert place.recover(other) is None


def test_nothing_is_recovered_where_something_lies_or_nothing_was_stored(place: Site, tmp_path: Path) -> None:
    assert place.recover() is None, "nothing was ever stored"
    filled(place)
    before = sorted(p.name for p in place.folder.iterdir())
    assert place.recover() is None
    assert sorted(p.name for p in place.folder.iterdir()) == before
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "notes").write_text("mine")
    assert place.recover(tmp_path / "odd") is None
    (tmp_path / "disk" / "lost+found").mkdir(parents=True)
    assert place.recover(tmp_path / "disk").size > 300, "as a new disk is"


def test_an_older_state_of_the_storage_is_refused_and_filled_anew_once_the_newest_is_back(
    place: Site, tmp_path: Path
) -> None:
    filled(place, 100)
    older = place.volume.copied()
    with closing(place.archive()) as archive:
        archive.appender.submit(batch(100, 100)).result(10)
        made = place.mirror(archive)
        made.round()
    newest_, told = place.volume.copied(), {"GovernanceReport": made.checkpoint}
    place.volume.become(older)
    other = tmp_path / "other"
    assert place.recover(other).size < made.size
    with pytest.raises(LedgerDamaged, match=r"a checkpoint over 202 was signed"):
        place.archive(other, told)
    assert (other / RECOVERED).read_bytes() == b""
    place.volume.become(newest_)
    assert place.recover(other).size == made.size, "what was filled from less is filled anew"
    with closing(place.archive(other, told)) as archive:
        assert archive.ledger.size == made.size


def test_every_object_matters(place: Site, tmp_path: Path) -> None:
    filled(place, 50)
    whole = place.volume.copied()
    assert len(whole) > 10
    for number, path in enumerate(whole):
        for damage in ("flipped", "missing", "cut"):
            place.volume.become(whole)
            if damage == "missing":
                place.volume.take(path)
            else:
                data = bytearray(whole[path])
                data[len(data) // 2] ^= 1
                place.volume.put_in(path, bytes(data) if damage == "flipped" else whole[path][:-1])
            folder = tmp_path / f"{number}-{damage}"
            if damage == "missing" and path.startswith("manifest/"):
                assert place.recover(folder) is None
                continue
            with pytest.raises((ArchiveError, ValueError)) as raised:
                place.recover(folder)
            assert len(str(raised.value)) > 40, (path, damage)
            assert sorted(p.name for p in folder.iterdir() if p.name != ".lock") == [] if folder.exists() else True


@pytest.mark.parametrize(
    ("edit", "expected"),
    [
        ({"format": "other-9"}, "expected a governed-ledger-copy-1, found a 'other-9'"),
        ({"number": 7}, "says that it is number 7"),
        ({"segments": {"../../etc/passwd": []}}, "is no segment of a ledger"),
        ({"segments": {f"{0:020d}.seg": [manifest.Piece(5, 9, "0" * 64)]}}, "don't follow each other"),
        ({"segments": {f"{0:020d}.seg": [manifest.Piece(0, 9, "../x")]}}, "don't follow each other"),
        ({"segments": {f"{0:020d}.seg": [manifest.Piece(0, 1 << 40, "0" * 64)]}}, "don't follow each other"),
        ({"lists": ["../../secret"]}, "addresses of another form"),
        ({"lists": ["0" * 64]}, "a list of files.*it is missing"),
        ({"origin": "governedmodels.io/archive/other"}, "give each a place of its own"),
    ],
)
def test_a_manifest_that_was_put_together_is_refused(
    place: Site, tmp_path: Path, edit: dict[str, Any], expected: str
) -> None:
    filled(place, 5)
    found = newest(place.volume)
    assert found is not None
    path = manifest.manifest_name(found.number)
    place.volume.put_in(path, msgspec.json.encode(msgspec.structs.replace(found, **edit)))
    with pytest.raises(ArchiveError, match=expected):
        place.recover(tmp_path / "other")
    for data in (b"", b"{", b"[1]", b"\xff\xfe", b'{"number":1}', b"[" * 5000):
        place.volume.put_in(path, data)
        with pytest.raises(Unverified, match="is damaged"):
            place.recover(tmp_path / "other")


@pytest.mark.parametrize("where", ["../../up", "/etc/passwd", "blobs/ab/" + "ab" * 32, "ledger/checkpoint", "keys/x"])
def test_a_file_that_no_copy_has_is_not_written(place: Site, tmp_path: Path, where: str) -> None:
    filled(place, 5)
    found = newest(place.volume)
    assert found is not None
    data = b"mine"
    address = hashlib.sha256(data).hexdigest()
    listed = msgspec.json.encode(manifest.FileList([mirror.Stored(where, len(data), address)]))
    list_address = hashlib.sha256(listed).hexdigest()
    place.volume.put_in(f"{address[:2]}/{address}", data)
    place.volume.put_in(f"{list_address[:2]}/{list_address}", listed)
    forged = msgspec.structs.replace(found, lists=[list_address])
    place.volume.put_in(manifest.manifest_name(found.number), msgspec.json.encode(forged))
    with pytest.raises(Unverified, match="is no file that a copy of ours has"):
        place.recover(tmp_path / "other")


def test_a_list_that_is_none_and_a_file_that_comes_twice_are_refused(place: Site, tmp_path: Path) -> None:
    filled(place, 5)
    found = newest(place.volume)
    assert found is not None
    path = manifest.manifest_name(found.number)

    def forged(data: bytes, times: int = 1) -> None:
        address = hashlib.sha256(data).hexdigest()
        place.volume.put_in(f"{address[:2]}/{address}", data)
        lists = [*found.lists, *[address] * times]
        place.volume.put_in(path, msgspec.json.encode(msgspec.structs.replace(found, lists=lists)))

    forged(b'{"files": 7}')
    with pytest.raises(Unverified, match=r"\(a list of files\): Expected `array`, got `int`"):
        place.recover(tmp_path / "other")
    twice = place.volume.content(f"{found.lists[0][:2]}/{found.lists[0]}")
    forged(twice)
    with pytest.raises(Unverified, match="comes twice in what was stored: it was put together"):
        place.recover(tmp_path / "other")


def test_an_object_that_goes_as_it_is_fetched_is_named(
    place: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(place, 5)

    def gone(*_: object, **__: object) -> None:
        raise FileNotFoundError("gone")

    monkeypatch.setattr(place.volume, "fetch", gone)
    with pytest.raises(Unverified, match=r"it is missing; put the bucket's earlier version of it back, or restore a"):
        place.recover(tmp_path / "other")


def test_another_log_under_the_place_is_neither_taken_nor_overwritten(place: Site, tmp_path: Path) -> None:
    filled(place, 20)
    before = place.volume.copied()
    with pytest.raises(ArchiveError, match=r"is governedmodels\.io/archive/other: give each a place of its own"):
        place.recover(tmp_path / "other", namespace="other")
    with closing(Archive(tmp_path / "theirs", place.kek, "other", bucket=place.bucket)) as theirs:
        theirs.appender.submit(batch(0, 3)).result(10)
        with pytest.raises(Superseded, match="give each a place of its own"):
            place.mirror(theirs).round()
    with closing(Archive(tmp_path / "same-name", Kek(bytes(32)), "default", bucket=place.bucket)) as theirs:
        theirs.appender.submit(batch(0, 300)).result(10)
        with pytest.raises(Superseded, match="that another key signed"):
            place.mirror(theirs).round()
    assert place.volume.copied() == before


def test_of_two_archives_one_stops(place: Site, tmp_path: Path) -> None:
    filled(place, 20)
    with closing(place.archive()) as first:
        ours = place.mirror(first)
        ours.round()
        place.recover(tmp_path / "other")
        with closing(place.archive(tmp_path / "other")) as second:
            theirs = place.mirror(second)
            second.appender.submit(batch(20, 2)).result(10)
            theirs.round()
            first.appender.submit(batch(0, 5, "server-1")).result(10)
            with pytest.raises(Superseded, match="another archive made manifest 2"):
                ours.round()
            for count in range(3):
                second.appender.submit(batch(22 + count, 1)).result(10)
                theirs.round()
            assert numbers(place.volume) == [5]
            with pytest.raises(Superseded, match="another archive made manifest 5"):
                ours.round()  # into the place of a manifest that was deleted meanwhile
            assert numbers(place.volume) == [5]
            assert place.recover(tmp_path / "third").size == theirs.size
        with pytest.raises(Superseded, match=r"this volume's ledger of .* doesn't go on from"):
            place.mirror(first).round()
        let_go = place.mirror(first, accept_loss=True)
        let_go.round()
        assert newest(place.volume).size == first.ledger.size  # type: ignore[union-attr]


def test_an_answer_that_was_lost_isn_t_taken_for_another_archive(place: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(place.archive()) as archive:
        archive.appender.submit(batch(0, 2)).result(10)
        made = place.mirror(archive)
        create = place.volume.create
        monkeypatch.setattr(place.volume, "create", lambda name, data: create(name, data) and False)
        made.round()
        assert made.size == archive.ledger.size


def test_pieces_stay_few_and_each_byte_is_sent_a_few_times(place: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mirror, "PIECE_BYTES", 20_000)
    sent = 0
    with closing(place.archive()) as archive:
        made = place.mirror(archive)
        put = place.volume.put_bytes

        def counted(address: str, data: bytes) -> None:
            nonlocal sent
            sent += len(data)
            put(address, data)

        monkeypatch.setattr(place.volume, "put_bytes", counted)
        for first in range(0, 240, 2):
            archive.appender.submit(batch(first, 2)).result(10)
            made.round()
        found = newest(place.volume)
        assert found is not None
        pieces = found.segments[f"{0:020d}.seg"]
        length = pieces[-1].end
        assert length > 25_000
        assert all(piece.end - piece.start <= 20_000 for piece in pieces)
        assert len(pieces) <= length // 10_000 + 8
        assert sent < 12 * length
        assert set(place.volume.addresses()) == made._referenced, "nothing is left of earlier rounds"


def test_what_is_taken_away_there_is_put_there_again(place: Site, tmp_path: Path) -> None:
    clock = 1000.0
    with closing(place.archive()) as archive:
        archive.appender.submit(batch(0, 200)).result(10)
        made = place.mirror(archive, clock=lambda: clock)
        made.round()
        there = set(place.volume.addresses())
        for address in sorted(there)[::2]:
            place.volume.take(f"{address[:2]}/{address}")
        clock += 3600
        made.round()
        assert set(place.volume.addresses()) == there
    assert place.recover(tmp_path / "other").size == made.size


LISTS: dict[str, Callable[[bytes], bytes | None]] = {
    "missing": lambda _: None,
    "no list": lambda _: b"{",
    "an empty list": lambda _: msgspec.json.encode(manifest.FileList([])),
    "too large": lambda data: data + b" " * 2000,
}


@pytest.mark.parametrize("name", LISTS)
def test_a_list_that_was_damaged_there_is_written_anew(
    name: str, place: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(place)
    found = newest(place.volume)
    assert found is not None
    address = found.lists[0]
    path = f"{address[:2]}/{address}"
    whole = place.volume.content(path)
    monkeypatch.setattr(mirror, "PIECE_BYTES", 2000)
    place.volume.take(path)
    if (data := LISTS[name](whole)) is not None:
        place.volume.put_in(path, data)
    with closing(place.archive()) as archive:
        made = place.mirror(archive)
        made.round()
        assert place.volume.content(path) == whole
        told = place.volume.copied()
        made.round()
        assert place.volume.copied() == told, "once"
    assert place.recover(tmp_path / "other").size == made.size


def test_a_storage_that_is_away_as_lists_are_read_is_asked_again(place: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(place)

    def away(*_: object) -> bytes:
        raise Busy("no answer")

    with closing(place.archive()) as archive:
        made, read = place.mirror(archive), place.volume.read
        monkeypatch.setattr(place.volume, "read", lambda name, most: read(name, most) if "manifest" in name else away())
        with pytest.raises(Busy, match="no answer"):
            made.round()
        monkeypatch.undo()
        made.round()
        assert made.size == archive.ledger.size


def test_a_copy_is_of_what_was_signed_or_is_made_later(place: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(place.archive()) as archive:
        with_key(archive)
        archive.appender.submit(batch(0, 20)).result(10)
        made = place.mirror(archive)
        ((name, end),) = archive.ledger.extent(archive.ledger.size)
        with pytest.raises(OSError, match=rf"{name}: expected {end + 9} bytes, found {end}"):
            made._pieces(name, end + 9)
        changed = mirror.Stored("keysets/credit/journal.keyset.json", 1, "ab" * 32)
        with pytest.raises(Busy, match=r"keysets/credit/journal.keyset.json was replaced while it was copied"):
            made._put_missing({changed.sha256}, {}, [changed], {})
        monkeypatch.setattr(place.volume, "create", lambda *_: True)
        with pytest.raises(Busy, match="was taken and isn't there: whatever answers isn't that storage"):
            made.round()
        monkeypatch.undo()
        made.round()
        assert made.size == archive.ledger.size


def test_an_erased_person_s_key_doesn_t_stay_there(place: Site, tmp_path: Path) -> None:
    purpose = f"{SUBJECT}{'ab' * 16}-journal"
    with closing(place.archive()) as archive:
        document = with_key(archive, purpose)
        made = place.mirror(archive)
        made.round()
        before = place.volume.copied()
        assert document in before.values()
        receipt = msgspec.json.encode(Erasure(predictions=0, reason="asked", time="2026-01-01T00:00:00.000Z"))
        archive.destroy_keyset("credit", purpose, receipt)
        made.round()
        assert document not in place.volume.copied().values()
    # A kill between the manifest and the deletion leaves it; it goes an hour later.
    address = hashlib.sha256(document).hexdigest()
    place.volume.put_in(f"{address[:2]}/{address}", document)
    place.recover(tmp_path / "other")
    with closing(place.archive(tmp_path / "other")) as archive:
        now, passed = [time.time()], [0.0]
        later = place.mirror(archive, clock=lambda: now[0], passing=lambda: passed[0])
        for seconds in (0.0, 1800.0):
            now[0], passed[0] = now[0] + seconds, passed[0] + seconds
            later.round()
            assert document in place.volume.copied().values()
        now[0], passed[0] = now[0] + 1801.0, passed[0] + 1801.0
        later.round()
        assert document not in place.volume.copied().values()


def test_what_a_kill_left_long_ago_by_the_storages_clock_goes_at_once(
    place: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(place, 20)
    address = hashlib.sha256(b"left").hexdigest()
    place.volume.put_in(f"{address[:2]}/{address}", b"left")
    found = place.volume.modified()
    found[address] -= timedelta(minutes=61)
    monkeypatch.setattr(place.volume, "modified", lambda: found)
    with closing(place.archive()) as archive:
        place.mirror(archive).round()
    assert f"{address[:2]}/{address}" not in place.volume.paths()


def copied(place: Site, root: Path, body: Callable[[Bed, Copying], None], pace: float = 0.01) -> None:
    """A bed whose archive is copied to the storage while ``body`` runs."""
    bed = Bed(root)
    bed.close()
    bed.archive = Archive(root, KEK, "default", bucket=place.bucket)
    made = Copying(bed.archive, Mirror(bed.archive, place.bucket), pace)
    bed.transport = Loopback(create_app(bed.archive, Tokens(ROOT, "default"), ArchiveMetrics("default"), copying=made))

    async def begin() -> "asyncio.Task[None]":
        return asyncio.create_task(made.run())

    async def end(task: "asyncio.Task[None]") -> None:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    running = asyncio.run_coroutine_threadsafe(begin(), bed.transport.loop).result(20)
    try:
        body(bed, made)
    finally:
        asyncio.run_coroutine_threadsafe(end(running), bed.transport.loop).result(20)
        bed.close()


def test_nothing_is_acknowledged_before_it_is_stored(place: Site, tmp_path: Path) -> None:
    def body(bed: Bed, made: Copying) -> None:
        with bed.client() as client:
            client.append("server-0", batch(0, 3).entries, 0)
            assert newest(place.volume).size == bed.archive.ledger.size  # type: ignore[union-attr]
            assert client.checkpoint() == newest(place.volume).checkpoint  # type: ignore[union-attr]
            stored = made._mirror.size
            place.volume.down = True
            with pytest.raises(Unreachable, match=r"not in object storage yet: .* expected object storage to answer"):
                client.append("server-0", batch(3, 3).entries, 3)
            assert Checkpoint.unverified(client.checkpoint()).size == stored, "shown is what is stored"
            assert made.behind == bed.archive.ledger.size - stored > 0
            assert made.seconds > 0
            place.volume.down = False
            client.append("server-0", batch(3, 3).entries, 3)
            assert newest(place.volume).size == bed.archive.ledger.size  # type: ignore[union-attr]

    copied(place, tmp_path / "a", body)


def test_a_ledger_that_may_be_behind_acknowledges_from_the_volume(place: Site, tmp_path: Path) -> None:
    place.bucket = MemoryBucket(f"{PLACE}&ledger=behind")

    def body(bed: Bed, made: Copying) -> None:
        place.volume.down = True
        with bed.client() as client:
            client.append("server-0", batch(0, 3).entries, 0)
            assert Checkpoint.unverified(client.checkpoint()).size == bed.archive.ledger.size
        assert made.behind == bed.archive.ledger.size > 0

    copied(place, tmp_path / "a", body)


async def test_who_asks_after_the_last_round_is_told_at_once(place: Site) -> None:
    """A round that nobody asked for may be the one that finds it, before who appended asks."""
    filled(place, 3)
    with closing(place.archive()) as archive:
        mirror = place.mirror(archive)
        made = Copying(archive, mirror, 0.01)
        mirror.round()
        found = newest(place.volume)
        assert found is not None
        theirs = msgspec.structs.replace(found, number=found.number + 1, writer="other-pod")
        place.volume.put_in(manifest.manifest_name(theirs.number), msgspec.json.encode(theirs))
        archive.appender.submit(batch(3, 3)).result(20)
        await asyncio.wait_for(made.run(), 60)
        with pytest.raises(Busy, match=r"not in object storage yet: .* another archive made manifest"):
            await made.stored()


def test_an_archive_that_another_one_replaced_takes_nothing(place: Site, tmp_path: Path) -> None:
    def body(bed: Bed, made: Copying) -> None:
        with bed.client() as client:
            client.append("server-0", batch(0, 3).entries, 0)
            found = newest(place.volume)
            assert found is not None
            theirs = msgspec.structs.replace(found, number=found.number + 1, writer="other-pod")
            place.volume.put_in(manifest.manifest_name(theirs.number), msgspec.json.encode(theirs))
            with pytest.raises(Unreachable, match="another archive made manifest"):
                client.append("server-0", batch(3, 3).entries, 3)
            with pytest.raises(Unreachable, match=r"nothing is appended: .* two write to one place"):
                client.append("server-0", batch(3, 3).entries, 3)
        assert "two write to one place" in made.problem

    copied(place, tmp_path / "a", body)
