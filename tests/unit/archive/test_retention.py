"""Payloads past their window are gone, the ledger says so, and verification tells this from a loss."""

import hashlib
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from governed_api.lifetimes import Lifetimes
from governed_serving.archive.app import create_app
from governed_serving.archive.client import ArchiveClient
from governed_serving.archive.errors import Refused
from governed_serving.archive.ledger.entrylog import Batch
from governed_serving.archive.metrics import ArchiveMetrics
from governed_serving.archive.reach import Speaker
from governed_serving.archive.service import Archive
from governed_serving.archive.tokens import Tokens, model_token
from governed_serving.archive.verify.bundle import export
from governed_serving.archive.verify.sources import BundleSource, DirectorySource, UrlSource
from governed_serving.archive.verify.verification import BadEntry, verify
from governed_serving.crypto import Kek
from governed_serving.records import RETENTION, ROTATION, AppendRequest, LedgerEntry, canonical, timestamp

from .test_app import ROOT, Loopback

KEK = Kek(bytes(range(32)))
DAY = 86400.0
START = 1_800_000_000.0


class Bed:
    """An archive whose clock is ours; chunks of one request each, one a day."""

    def __init__(self, root: Path) -> None:
        self.root, self.now = root, START
        self.archive = Archive(root, KEK, "default", clock=lambda: self.now)
        self._seq: dict[str, int] = {}

    def again(self) -> None:
        self.archive.close()
        self.archive = Archive(self.root, KEK, "default", clock=lambda: self.now)

    def keep(self, seconds: float | None, model: str = "credit") -> None:
        self.archive.put_reference(model, RETENTION, msgspec.json.encode({"payloads": seconds}))

    def chunk(self, *types: str, model: str = "credit", days: float = 0, frame: int | None = 0) -> str:
        """A blob with one entry of each type, ``days`` after START; its address."""
        seq = self._seq.get(model, 0)
        body = b"GMSEAL1\n" + f"{model}/{seq}".encode() * 20
        digest = hashlib.sha256(body).hexdigest()
        self.archive.blobs.put(digest, body)
        entries = [
            canonical(
                LedgerEntry(
                    kind,
                    "default",
                    model,
                    f"{kind}-{seq + i}",
                    timestamp(START + days * DAY),
                    "r1",
                    digest,
                    frame=frame,
                )
            )
            for i, kind in enumerate(types)
        ]
        self.archive.appender.submit(Batch(model, "s", seq, entries)).result(10)
        self._seq[model] = seq + len(entries)
        return digest

    def there(self, digest: str) -> bool:
        return self.archive.blobs.size(digest) is not None

    def sweep(self, days: float) -> int:
        self.now = START + days * DAY
        return self.archive.sweep()

    def source(self) -> DirectorySource:
        self.archive.ledger.checkpoint()
        return DirectorySource(self.root, KEK)


@pytest.fixture
def bed(tmp_path: Path):
    made = Bed(tmp_path / "archive")
    yield made
    made.archive.close()


@pytest.mark.parametrize("seconds", [b"345600000000", b"1e18", b"1" + b"0" * 400, b"-1" + b"0" * 400, b"true", b"0"])
def test_a_time_that_no_date_can_be_reckoned_with_is_for_ever(bed: Bed, seconds: bytes) -> None:
    """Of "4000000d" in one manifest: it ended retention and rotation of all models of the namespace."""
    old, other = bed.chunk("prediction"), bed.chunk("prediction", model="other")
    bed.archive.put_reference("credit", RETENTION, b'{"payloads": ' + seconds + b"}")
    bed.archive.put_reference("credit", ROTATION, b'{"keys": ' + seconds + b"}")
    bed.keep(30 * DAY, "other")
    assert (bed.sweep(31), bed.archive.rotate(), bed.archive.pause()) == (1, [], 10.0)
    assert [bed.there(d) for d in (old, other)] == [True, False]


def test_a_window_of_less_than_a_century_counts(bed: Bed) -> None:
    bed.keep(99 * 365 * DAY)
    digest = bed.chunk("prediction")
    assert (bed.sweep(98 * 365), bed.sweep(99 * 365 + 1), bed.there(digest)) == (0, 1, False)


def test_payloads_go_after_their_window_with_a_receipt_and_the_rest_stays(bed: Bed) -> None:
    bed.keep(30 * DAY)
    old, young = bed.chunk("prediction", "explanation"), bed.chunk("prediction", days=20)
    verdict, artefact = bed.chunk("verdict"), bed.chunk("artefact", frame=None)
    other = bed.chunk("prediction", model="other")
    assert bed.sweep(29) == 0
    assert bed.sweep(31) == 1
    assert [bed.there(d) for d in (old, young, verdict, artefact, other)] == [False, True, True, True, True]
    (receipt,) = bed.archive.ledger.find("credit", type="deletion")
    entry = msgspec.json.decode(receipt.entry, type=LedgerEntry)
    assert entry.summary["blobs"] == [old]
    assert entry.summary["before"] == timestamp(START + DAY)
    assert entry.summary["reason"] == "governance.privacy.retention.payloads"
    found = verify(bed.source(), id="prediction-0")
    assert (found.deleted, found.blobs) == (1, 4)
    assert bed.sweep(31) == 0


def test_what_is_deleted_while_it_is_verified_is_no_loss(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    bed.keep(30 * DAY)
    old, source = bed.chunk("prediction"), bed.source()
    look = source.blob

    def meanwhile(digest: str) -> str | None:
        if bed.there(old):
            bed.sweep(31)
            bed.archive.ledger.checkpoint()
        return look(digest)

    monkeypatch.setattr(source, "blob", meanwhile)
    assert verify(source).deleted == 1


def test_a_loss_is_no_deletion(bed: Bed) -> None:
    bed.keep(30 * DAY)
    deleted, lost = bed.chunk("prediction"), bed.chunk("prediction", days=20)
    bed.sweep(31)
    verify(bed.source())
    bed.archive.blobs.path(lost).unlink()
    with pytest.raises(BadEntry, match=rf"its blob {lost} is missing, and no deletion receipt covers it"):
        verify(bed.source())
    assert not bed.there(deleted)


@pytest.mark.parametrize(
    ("kind", "frame", "model", "before", "message"),
    [
        ("prediction", 0, "credit", 0, "was deleted too early"),
        ("prediction", 0, "other", 1, "no deletion receipt covers it"),
        ("artefact", None, "credit", 1, "no deletion receipt covers it"),
    ],
)
def test_a_receipt_covers_only_old_payloads_of_its_model(
    bed: Bed, kind: str, frame: int | None, model: str, before: float, message: str
) -> None:
    """As an archive's owner would write one who wants to lose something."""
    digest = bed.chunk(kind, days=0.5, frame=frame)
    summary = {"before": timestamp(START + before * DAY), "blobs": [digest]}
    bed.archive._note_alone(model, "deletion", "retention", "", summary)
    bed.archive.blobs.path(digest).unlink()
    with pytest.raises(BadEntry, match=message):
        verify(bed.source())


def test_models_cannot_write_receipts(bed: Bed) -> None:
    receipt = canonical(LedgerEntry("deletion", "default", "credit", "x", timestamp(START), summary={"blobs": ["a"]}))
    with pytest.raises(Refused, match="type must be one of"):
        bed.archive.admit(Speaker("credit", None), AppendRequest("s", 0, [receipt]))


def test_another_record_in_a_deleted_chunk_is_excused(bed: Bed) -> None:
    bed.keep(DAY)
    digest = bed.chunk("label", "verdict")
    assert bed.sweep(2) == 1
    assert not bed.there(digest)
    assert verify(bed.source()).deleted == 1


def test_what_is_known_survives_restarts_and_late_windows_reach_back(bed: Bed) -> None:
    first = bed.chunk("prediction")
    assert bed.sweep(40) == 0
    bed.keep(30 * DAY)
    bed.again()
    second = bed.chunk("prediction", days=20)
    assert bed.sweep(40) == 1
    bed.again()
    third = bed.chunk("prediction", model="other", days=5)
    bed.keep(30 * DAY, "other")
    assert bed.sweep(60) == 2
    assert not any(map(bed.there, (first, second, third)))
    assert verify(bed.source()).deleted == 3
    bed.keep(None)
    last = bed.chunk("prediction", days=0)
    assert bed.sweep(1000) == 0
    assert bed.there(last)


def test_a_kill_between_receipt_and_deletion_is_made_good(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    bed.keep(DAY)
    digest = bed.chunk("prediction")

    def killed(_: str) -> None:
        raise OSError("killed")

    monkeypatch.setattr(bed.archive.blobs, "expire", killed)
    with pytest.raises(OSError, match="killed"):
        bed.sweep(5)
    bed.again()
    assert verify(bed.source()).deleted == 0
    assert bed.sweep(5) == 1
    assert not bed.there(digest)
    assert verify(bed.source()).deleted == 1


@pytest.mark.parametrize("name", [RETENTION, ROTATION])
@pytest.mark.parametrize("claimed", [b'{"payloads":1,"keys":1}', b'{"payloads":null,"keys":null}', b"{}", b'{"x":1}'])
def test_what_a_pod_claims_of_lifetimes_is_not_set_where_the_operator_says_another(
    bed: Bed, name: str, claimed: bytes
) -> None:
    """An auditor that was taken over would have all payloads deleted within a second, or kept for ever."""
    bed.archive.lifetimes = lambda model: Lifetimes(7_776_000, 86_400) if model == "credit" else Lifetimes()
    said = {RETENTION: {"payloads": 7_776_000}, ROTATION: {"keys": 86_400}}[name]
    bed.archive.put_reference("credit", name, claimed)
    assert msgspec.json.decode(bed.archive.reference("credit", name)) == said
    size = bed.archive.ledger.size
    bed.archive.put_reference("credit", name, claimed)
    assert bed.archive.ledger.size == size, "said again, it changes nothing"
    bed.archive.put_reference("other", name, claimed)
    assert set(msgspec.json.decode(bed.archive.reference("other", name)).values()) == {None}


def test_what_is_set_stays_while_the_operator_cannot_be_heard(bed: Bed) -> None:
    """And nothing is refused: what the pod ships goes on."""

    def away(_: str) -> Lifetimes:
        raise OSError("connection refused")

    bed.archive.put_reference("credit", RETENTION, b'{"payloads":86400}')
    bed.archive.lifetimes = away
    bed.archive.put_reference("credit", RETENTION, b'{"payloads":1}')
    assert bed.archive.reference("credit", RETENTION) == b'{"payloads":86400}'
    bed.archive.put_reference("new", RETENTION, b'{"payloads":1}')
    with pytest.raises(Refused, match="has no reference"):
        bed.archive.reference("new", RETENTION)
    bed.archive.put_reference("credit", "artefact-1", b'{"blob":"x"}')
    assert bed.archive.reference("credit", "artefact-1") == b'{"blob":"x"}'


def test_over_http_a_deleted_payload_is_gone_for_good(bed: Bed, tmp_path: Path) -> None:
    transport = Loopback(create_app(bed.archive, Tokens(ROOT, "default"), ArchiveMetrics("default")))
    with ArchiveClient(
        "http://archive", model_token(ROOT, "default", "credit"), "credit", transport=transport
    ) as client:
        client.say_times(payloads=None, keys=None)
        assert client.refs() == []
        client.say_times(payloads=86400, keys=None)
        size = bed.archive.ledger.size
        client.say_times(payloads=86400, keys=None)
        assert bed.archive.ledger.size == size
        body = b"GMSEAL1\n" + b"x" * 50
        digest = client.put_blob(body)
        entry = LedgerEntry("prediction", "default", "credit", "p", timestamp(START), "r1", digest, frame=0)
        client.append("s", [canonical(entry)])
        assert bed.sweep(2) == 1
        assert not client.has_blob(digest)
        with pytest.raises(Refused, match=r"deleted under governance\.privacy\.retention") as refused:
            client.get_blob(digest)
        assert refused.value.status == 410
        assert client.put_blob(body) == digest
        assert not bed.there(digest)
        bed.archive.ledger.checkpoint()
        assert verify(UrlSource(client)).deleted == 1
        bundle = tmp_path / "one.tar"
        assert export(bed.source(), bundle, id="p", blobs=True) == (2, 0)
        with closing(BundleSource(bundle)) as source:
            assert verify(source, id="p").deleted == 1
