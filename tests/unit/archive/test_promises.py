"""Promises held against a ledger: kept, not due yet, broken; what was forged, changed, moved or borrowed is named."""

import asyncio
import base64
import random
import struct
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from governed_serving.archive.__main__ import main
from governed_serving.archive.errors import Refused
from governed_serving.archive.ledger.entrylog import Batch
from governed_serving.archive.ledger.note import NoteError
from governed_serving.archive.ledger.promise import AnnouncedKey, Promise, SignedPromise, encode_key, sign
from governed_serving.archive.service import Archive
from governed_serving.auditor.service.entries import dead_letter, entries_of
from governed_serving.crypto import load_kek
from governed_serving.journal import Journal, JournalReader
from governed_serving.records import LedgerEntry, canonical, timestamp
from governed_serving.server.errors import NotFound
from governed_serving.server.identity import Identity
from governed_serving.server.promises import Promises
from unit.journal.samples import cipher, prediction
from unit.server.planes import until

NOW = 1_700_000_000.0
DELAY = 3600
ID = "id-11-0"


def at(seconds: float) -> str:
    return timestamp(NOW + seconds)


class Bed:
    """A server's journal and promises, an archive into which its frames are shipped when asked, and who verifies."""

    def __init__(self, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.root, self._capsys, self.file = root, capsys, root / "answer.promise"
        (root / "kek").write_bytes(bytes(32))
        (root / "kek").chmod(0o600)
        self.folder, self.now, self._shipped, self._number, self._others = root / "archive", NOW, 0, 0, 0
        self.cipher = cipher(root)
        self.journal = Journal(root / "spool", "server-pod", self.cipher, "PageCache")
        self.promises = Promises(
            Identity("credit", "default", "r1"), self.journal, self, DELAY, clock=lambda: self.now, poll=0.001
        )
        asyncio.run(self._announce())

    async def receipt(self, id: str) -> bytes:
        """What the server asks the archive for."""
        self.ship()
        with self.archive() as archive:
            try:
                return archive.receipt("credit", id).text().encode()
            except Refused as error:
                raise NotFound(str(error)) from None

    async def _announce(self) -> None:
        task = asyncio.create_task(self.promises.run())
        await until(lambda: self.promises._key is not None)
        task.cancel()

    def archive(self) -> closing[Archive]:
        return closing(Archive(self.folder, load_kek(self.root / "kek"), "default"))

    def answer(self, number: int = 11) -> str:
        """A journalled answer's promise, kept in a file."""
        frame = msgspec.structs.replace(
            prediction(number), model="credit", revision="r1", ids=[ID], times=struct.pack("<d", self.now)
        )

        async def recorded() -> dict[str, str]:
            ack = await self.journal.append(frame)
            return await self.promises.give(frame, ack, [ID])

        text = asyncio.run(recorded())[ID]
        self.file.write_text(text)
        return text

    def ship(self, change: Callable[[list[bytes]], list[bytes]] = lambda entries: entries) -> None:
        """What the journal has goes to the archive, as the auditor ships it."""
        chunk = JournalReader(self.root / "spool", "server-pod", self.cipher).chunk(self._shipped)
        if chunk is None:
            return
        entries = change([entry for entry, _ in entries_of(chunk, "default")])
        with self.archive() as archive:
            archive.blobs.put(chunk.digest, chunk.data)
            archive.ledger.append(Batch("credit", "server-pod", self._number, entries))
        self._shipped, self._number = chunk.last_seq + 1, self._number + len(entries)

    def other(self, seconds: float, **fields: Any) -> None:
        """An entry of another time: the ledger went on until then."""
        said = {"type": "label", "namespace": "default", "model": "credit", "id": "x", "time": at(seconds)} | fields
        with self.archive() as archive:
            archive.ledger.append(Batch(said["model"], "others", self._others, [canonical(LedgerEntry(**said))]))
        self._others += 1

    def verify(self, *words: str, against: bool = True) -> tuple[int, str]:
        ledger = ["--against", str(self.folder), "--key-file", str(self.root / "kek")] if against else []
        code = main(["verify", str(self.file), *ledger, *words])
        said = self._capsys.readouterr()
        return code, said.out + said.err


@pytest.fixture
def bed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Bed]:
    made = Bed(tmp_path, capsys)
    yield made
    made.journal.close()


def test_a_kept_promise_is_verified_by_the_ledger_alone(bed: Bed) -> None:
    bed.answer()
    bed.ship()
    code, said = bed.verify("--id", ID)
    assert code == 0, said
    assert "signature   holds, by the key of default/credit; entry 0 announces key" in said
    assert f"kept: entry 1 is the promised record's (prediction {ID}" in said
    assert "is the promised record, bit for bit" in said


def test_without_a_ledger_nothing_tells_who_signed(bed: Bed) -> None:
    bed.answer()
    code, said = bed.verify(against=False)
    assert (code, "name the ledger" in said) == (3, True)


def test_not_due_yet_is_undecided_and_late_is_broken(bed: Bed) -> None:
    bed.answer()
    bed.other(DELAY)
    code, said = bed.verify()
    assert (code, "not included yet, and not due in this ledger" in said) == (3, True), said
    bed.other(DELAY + 599)
    assert bed.verify()[0] == 3, "clocks may differ by ten minutes"
    bed.other(DELAY + 601)
    code, said = bed.verify()
    assert (code, "broken promise: not included within 3,600 s" in said) == (1, True), said
    assert "root" in said
    bed.ship()
    code, said = bed.verify()
    assert (code, "broken promise: entry 4 came when the ledger had reached" in said) == (1, True), said


def test_a_bundle_of_the_whole_log_does_as_well_and_one_of_chosen_entries_shows_no_absence(bed: Bed) -> None:
    bed.answer()
    bed.other(2 * DELAY)
    key, bundle = ("--key-file", str(bed.root / "kek")), str(bed.root / "bundle.tar")
    assert main(["export", str(bed.folder), bundle, *key, "--blobs"]) == 0
    assert main(["verify", str(bed.file), "--against", bundle]) == 1
    assert main(["export", str(bed.folder), bundle, *key, "--id", "x"]) == 0
    bed._capsys.readouterr()
    assert main(["verify", str(bed.file), "--against", bundle]) == 3, "its key may be among the others"
    bed.ship()
    assert main(["export", str(bed.folder), bundle, *key]) == 0
    assert main(["verify", str(bed.file), "--against", bundle]) == 1, "late"


def test_a_promise_for_another_answer_is_named(bed: Bed) -> None:
    bed.answer()
    bed.ship()
    code, said = bed.verify("--id", "another")
    assert (code, "expected another: it was given for another answer" in said) == (1, True)


def signed(bed: Bed, private: Ed25519PrivateKey | None = None, kid: str = "", **changed: Any) -> None:
    """The bed's promise with other words, by the server's own key unless another is given."""
    key, text = bed.promises._key, bed.file.read_text()
    assert key is not None
    promise = msgspec.structs.replace(SignedPromise.parse(text).promise, **changed)
    bed.file.write_text(sign(promise, kid or key.id, private or key.private))


def announce(bed: Bed, private: Ed25519PrivateKey, **fields: Any) -> None:
    times = fields.pop("times", (at(-1), at(86_400)))
    summary = msgspec.to_builtins(AnnouncedKey(encode_key(private), *times))
    bed.other(fields.pop("seconds", 0.0), **({"type": "promiseKey", "id": "other-key", "summary": summary} | fields))


FORGED: dict[str, tuple[Callable[[Bed], None], str]] = {
    "by another key": (lambda b: signed(b, Ed25519PrivateKey.generate()), "was forged or changed"),
    "by a key that nobody announced": (
        lambda b: (b.other(601.0), signed(b, Ed25519PrivateKey.generate(), "nobody"))[0],
        "no entry announces key nobody",
    ),
    "by another model's key": (
        lambda b: (announce(b, KEY, model="other", revision="r1"), signed(b, KEY, "other-key"))[0],
        "for another model (default/other)",
    ),
    "by another revision's key": (
        lambda b: (announce(b, KEY, revision="r0"), signed(b, KEY, "other-key"))[0],
        "for revision 'r0', the promise is of 'r1'",
    ),
    "by a key past its time": (
        lambda b: (announce(b, KEY, revision="r1", times=(at(-9), at(-1))), signed(b, KEY, "other-key"))[0],
        "outside of the key's time",
    ),
    "announced behind its use": (
        lambda b: (announce(b, KEY, revision="r1"), signed(b, KEY, "other-key"))[0],
        "not before it was used",
    ),
    "a clock that jumped": (lambda b: signed(b, time=at(1000.0)), "a clock jumped between them"),
    "a time without a zone": (lambda b: signed(b, time=at(0.0).removesuffix("Z")), "is no time"),
    "a time that is none": (lambda b: signed(b, time="yesterday"), "is no time"),
    "another record": (lambda b: signed(b, record="0" * 64), "another record took its place"),
    "another time of the record": (lambda b: signed(b, recorded=at(1.0)), "not what was promised"),
    "another place": (lambda b: (signed(b, frame=7), b.other(2 * DELAY))[0], "1 other entries have its id"),
    "another id": (lambda b: (signed(b, id="id-12-0"), b.other(2 * DELAY))[0], "not included within"),
    "another model's name": (lambda b: signed(b, model="other"), "may promise nothing of this one"),
}
KEY = Ed25519PrivateKey.from_private_bytes(bytes(32))


@pytest.mark.parametrize("name", sorted(FORGED))
def test_what_was_forged_is_named(bed: Bed, name: str) -> None:
    act, told = FORGED[name]
    bed.answer()
    bed.ship()
    act(bed)
    code, said = bed.verify()
    assert (code, told in said) == (1, True), said


def test_a_ledger_older_than_the_promise_decides_nothing(bed: Bed) -> None:
    bed.answer()
    signed(bed, KEY, "to-come", time=at(5000.0), recorded=at(5000.0))
    code, said = bed.verify()
    assert (code, "before the promise was made or about then: take a newer" in said) == (3, True), said


def test_a_ledger_that_was_copied_about_when_the_promise_was_made_accuses_nobody(bed: Bed) -> None:
    """A pod that had just started: its key came behind the copy, whose newest entry is minutes old, or ahead."""
    bed.answer()
    signed(bed, KEY, "announced-since", time=at(300.0), recorded=at(300.0))
    assert bed.verify()[0] == 3
    bed.other(900.0)
    assert bed.verify()[0] == 3, "clocks may differ by ten minutes"
    bed.other(901.0)
    code, said = bed.verify()
    assert (code, "no entry announces key announced-since" in said) == (1, True), said


def test_a_damaged_frame_and_a_dead_letter_are_told_apart(bed: Bed) -> None:
    bed.answer()
    bed.ship(lambda entries: [dead_letter(entries[0], "400 refused", "server-pod.x", 1)])
    code, said = bed.verify()
    assert (code, "a dead letter stands in its place" in said, "bit for bit" in said) == (0, True, True), said
    bed.answer(12)
    summary = {"stream": "server-pod.abcdef", "first": 2, "last": 2, "frames": 1}
    bed.other(0.0, type="unreadable", id="", summary=summary)
    code, said = bed.verify()
    assert (code, "says that frame 2 of server-pod can't be read" in said) == (1, True), said


def test_a_blob_that_is_gone_leaves_the_entry(bed: Bed) -> None:
    bed.answer()
    bed.ship()
    bundle = str(bed.root / "bundle.tar")
    assert main(["export", str(bed.folder), bundle, "--key-file", str(bed.root / "kek")]) == 0
    bed._capsys.readouterr()
    assert main(["verify", str(bed.file), "--against", bundle]) == 0
    assert "the entry alone was compared" in bed._capsys.readouterr().out


def test_a_tampered_ledger_shows_nothing(bed: Bed) -> None:
    bed.answer()
    bed.ship()
    (segment,) = (bed.folder / "ledger" / "log").glob("*.seg")
    data = bytearray(segment.read_bytes())
    data[-5] ^= 1
    segment.write_bytes(data)
    code, said = bed.verify()
    assert (code, "it shows nothing" in said) == (1, True), said


def test_whatever_is_changed_in_a_promise_it_is_not_verified(bed: Bed) -> None:
    """Each byte of each part; whatever the change, no traceback."""
    text, rng, unsaid = bed.answer().encode(), random.Random(7), []
    bed.ship()
    places = rng.sample(range(len(text)), 60)
    changes = [text[:n] + bytes([text[n] ^ 1 << rng.randrange(7)]) + text[n + 1 :] for n in places]
    changes += [text[: rng.randrange(21, len(text))] for _ in range(10)]
    changes += [text + b"x", text + b".x", text + b"=", text + b"\n\n\x00", text * 2, text + b"A" * 9000]
    parts = text.split(b".")
    changes += [b".".join([parts[0], parts[1], parts[1]]), b".".join([parts[1], parts[0], parts[2]])]
    for changed in changes:
        bed.file.write_bytes(changed)
        code, said = bed.verify()
        if code == 0 or "Traceback" in said:
            unsaid.append((changed, said))
    assert not unsaid


def encoded(data: str) -> str:
    return base64.urlsafe_b64encode(data.encode()).rstrip(b"=").decode()


@pytest.mark.parametrize(
    ("header", "told"),
    [
        ('{"alg":"none","kid":"k","typ":"governed-promise"}', "by EdDSA"),
        ('{"alg":"HS256","kid":"k","typ":"governed-promise"}', "by EdDSA"),
        ('{"alg":"EdDSA","kid":"k","typ":"JWT"}', "format governed-promise"),
        ('{"alg":"EdDSA","jwk":{},"kid":"k","typ":"governed-promise"}', "jwk"),
        ('{"alg":"EdDSA","kid":"k", "typ":"governed-promise"}', "one form"),
        ('{"alg":"EdDSA","kid":"\\u001b[2J","typ":"governed-promise"}', "made to deceive"),
        ("[]", "version 1"),
    ],
    ids=["none", "hmac", "typ", "jwk", "space", "control", "list"],
)
def test_another_header_is_refused(bed: Bed, header: str, told: str) -> None:
    _, payload, signature = bed.answer().split(".")
    with pytest.raises(NoteError, match=told):
        SignedPromise.parse(f"{encoded(header)}.{payload}.{signature}")


@pytest.mark.parametrize("changed", [{"v": 2}, {"frame": -1}, {"index": -1}, {"delay": 0}, {"delay": 1 << 60}])
def test_numbers_that_cant_be_are_refused(bed: Bed, changed: dict[str, int]) -> None:
    promise: Promise = SignedPromise.parse(bed.answer()).promise
    with pytest.raises(NoteError):
        SignedPromise.parse(sign(msgspec.structs.replace(promise, **changed), "k", KEY))


def test_a_key_of_a_length_that_none_has_is_no_traceback(bed: Bed) -> None:
    bed.answer()
    for key in ("", "AAAA", "é", "A" * 43):
        summary = {"algorithm": "Ed25519", "publicKey": key, "notBefore": at(0), "notAfter": at(9)}
        bed.other(0.0, type="promiseKey", id=f"k{len(key)}", summary=summary)
        signed(bed, KEY, f"k{len(key)}")
        code, said = bed.verify()
        assert (code, "Traceback" in said) == (1, False), said
