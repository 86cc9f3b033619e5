"""A work directory as `governed run` leaves it, made by the product's own rooms without its processes."""

import asyncio
import base64
import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from governed_api import object_names
from governed_api.runtime import KEK_NAME
from governed_serving.archive.ledger.entrylog import Batch
from governed_serving.archive.ledger.note import Checkpoint
from governed_serving.archive.reach import Speaker
from governed_serving.archive.service import Archive
from governed_serving.auditor.service.shipping import Shipper
from governed_serving.crypto import DirectoryStore, Kek, KeyEvent, Keyring, Keyset, SegmentCipher, load_kek
from governed_serving.journal import Journal
from governed_serving.records import AppendRequest, EventRecord, LedgerEntry, canonical, timestamp
from support.predictions import Field, Prediction, PredictionSchema, framed

MODEL = "credit"
REVISION = "r1"
POD = object_names.local_pod(MODEL)
_SCHEMA = PredictionSchema(MODEL, REVISION, "sha256:a", (Field("age", "FP32"),), (Field("label", "INT64"),))
_DAY = 86_400.0


class DirectClient:
    """An archive's client without a network: what the shipper asks for."""

    model = MODEL

    def __init__(self, archive: Archive) -> None:
        self._archive = archive

    def put_blob(self, sealed: bytes) -> str:
        digest = hashlib.sha256(sealed).hexdigest()
        if not self._archive.blobs.expired(digest):
            self._archive.blobs.put(digest, sealed)
        return digest

    def append_batch(self, stream: str, first_seq: int, entries: list[bytes]) -> Any:
        batch = self._archive.admit(Speaker(MODEL, None), AppendRequest(stream, first_seq, entries))
        return self._archive.appender.submit(batch).result(30)

    def next_seq(self, stream: str) -> int:
        return self._archive.ledger.next_seq(MODEL, stream) or 0


@dataclass
class WorkFolder:
    """``root`` has the layout of a local run. ``grow`` serves a while and stops cleanly."""

    root: Path
    entries: int = 0
    _now: float = field(default_factory=lambda: time.time() - 3 * _DAY)
    _sent: int = 0

    @classmethod
    def again(cls, root: Path, now: float) -> "WorkFolder":
        """A copy of one whose clock is at ``now``."""
        return cls(root, _now=now)

    @property
    def now(self) -> float:
        """Seconds since the epoch, by the clock of all that runs here."""
        return self._now

    @property
    def archive(self) -> Path:
        return self.root / "volumes" / object_names.ARCHIVE_CLAIM

    @property
    def spool(self) -> Path:
        return self.root / "volumes" / POD / "spool"

    @property
    def kek_file(self) -> Path:
        return self.root / "secrets" / object_names.ARCHIVE_KEYS / KEK_NAME

    @property
    def checkpoint(self) -> str:
        return (self.archive / "ledger" / "checkpoint").read_text()

    def grow(self, requests: int = 60, *, rotate: bool = False) -> None:
        """``requests`` predictions, an explanation of every tenth, a verdict; then shipped, told and closed."""
        archive = Archive(self.archive, self._kek("governed-archive-keys"), "default", clock=lambda: self._now)
        try:
            journal_keys = self._model_keyset(archive, rotate=rotate)
            asyncio.run(self._serve(requests, journal_keys))
            shipper = Shipper(self.spool, DirectClient(archive), SegmentCipher(journal_keys), "default")  # type: ignore[arg-type]
            while shipper.step():
                pass
            self._put_names(archive, rotate=rotate)
            self._train(archive)
            self._tell(archive)
        finally:
            archive.close()
        self.entries = archive.ledger.size

    def serve_more(self, requests: int) -> None:
        """Served, and not shipped yet."""
        archive = self.opened()
        try:
            asyncio.run(self._serve(requests, self.model_keys(archive).keyset("journal")))
        finally:
            archive.close()

    def opened(self, told: Mapping[str, str] | None = None) -> Archive:
        """The archive, as its process opens it."""
        return Archive(self.archive, self._kek("governed-archive-keys"), "default", clock=lambda: self._now, told=told)

    def model_keys(self, archive: Archive) -> Keyring:
        """The model's keyring, whose keysets are the archive's."""
        return Keyring(self._kek(f"{MODEL}-kek"), _Store(archive))  # type: ignore[arg-type]

    def _kek(self, secret: str) -> Kek:
        path = self.root / "secrets" / secret / KEK_NAME
        if not path.exists():
            path.parent.mkdir(parents=True)
            path.touch(0o600)
            path.write_bytes(os.urandom(32))
        return load_kek(path)

    def _model_keyset(self, archive: Archive, *, rotate: bool) -> Keyset:
        store = _Store(archive)
        ring = Keyring(self._kek(f"{MODEL}-kek"), store)  # type: ignore[arg-type]
        keyset = ring.keyset("journal")
        ring.keyset("artefact")
        if rotate:
            ring.rotate("journal")
            archive.rotate()
            ring.keyset("data")
            ring.destroy("data")
            keyset.refresh()
        cache = self.spool / "keyset-cache"
        cache.mkdir(parents=True, exist_ok=True)
        (cache / "journal.json").write_bytes(archive.keyset(MODEL, "journal"))
        return keyset

    async def _serve(self, requests: int, keyset: Keyset) -> None:
        cipher = SegmentCipher(keyset)
        server = Journal(self.spool, f"server-{POD}", cipher)
        auditor = Journal(self.spool, f"auditor-{POD}", cipher)
        for _ in range(requests):
            id = f"req-{self._sent}"
            await server.append(framed(Prediction(_SCHEMA, id, self._now, 1, [[41.0]], [[self._sent % 2]])))
            self._sent += 1
            self._now += 20.0
        verdict = self._verdict()
        body = msgspec.json.encode({"verdict": verdict, "counts": {}})
        summary = {name: verdict[name] for name in ("verdict", "samples", "summary", "evidence")}
        name = f"verdict-{timestamp(self._now)}"
        await auditor.append(EventRecord("verdict", name, MODEL, REVISION, self._now, body, summary))
        server.close()
        auditor.close()

    def _verdict(self) -> dict[str, Any]:
        metrics = [
            {
                "name": "disparateImpactRatio",
                "attribute": "sex",
                "group": "f",
                "reference": "m",
                "value": 0.5,
                "verdict": "Fail",
            }
        ]
        evidence = hashlib.sha256(str(self._sent).encode()).hexdigest()
        said = f"disparateImpactRatio of sex=f after {self._sent}"
        return {"verdict": "Fail", "samples": self._sent, "summary": said, "evidence": evidence, "metrics": metrics,
                "revision": REVISION, "time": timestamp(self._now)}  # fmt: skip

    def _put_names(self, archive: Archive, *, rotate: bool) -> None:
        archive.put_reference(MODEL, "artefact-1", json.dumps({"blob": "ab", "of": self._sent}).encode())
        archive.put_reference(MODEL, "retention", b'{"payloads": 86400.0}')
        archive.put_reference(MODEL, "rotation", b'{"keys": 60.0}')
        archive.put_state(MODEL, "counts", b"GMSEAL1\n" + os.urandom(100))
        self._now += 2 * _DAY if rotate else 60.0
        archive.sweep()

    def _train(self, archive: Archive) -> None:
        """The trainer's entries, once."""
        stream = "trainer-1"
        if archive.ledger.next_seq(MODEL, stream):
            return
        digest, when = "sha256:" + "ab" * 32, timestamp(self._now)
        blob = b"GMSEAL1\nartefact" + os.urandom(40)
        address = hashlib.sha256(blob).hexdigest()
        archive.blobs.put(address, blob)
        parts = {"dataset": {"audit": {"sex": {"pValue": 0.25}}}, "training": {"metrics": {"auc": 0.75}},
                 "gates": {"gates": [{"name": "export", "measured": 0.5, "verdict": "pass"}]},
                 "artefact": {"variant": "float"}}  # fmt: skip
        entries = [
            canonical(LedgerEntry(kind, "default", MODEL, f"{kind}-1", when, digest=digest, summary=summary,
                                  blob=address if kind == "artefact" else ""))
            for kind, summary in parts.items()
        ]  # fmt: skip
        archive.appender.submit(Batch(MODEL, stream, 0, entries)).result(30)
        self._write_report(MODEL, {"trainer": {
            "observedAt": when, "phase": "Succeeded", "dataAudit": parts["dataset"]["audit"],
            "artefact": {"digest": digest, "blob": address, "variant": "float"},
            "metrics": parts["training"]["metrics"], "gates": parts["gates"]["gates"],
        }})  # fmt: skip

    def _tell(self, archive: Archive) -> None:
        verdict = archive.ledger.find(MODEL, type="verdict", limit=1)[-1]
        head = {"verdict": "Fail", "samples": self._sent, "summary": self._verdict()["summary"],
                "ledgerIndex": verdict.index}  # fmt: skip
        when = timestamp(self._now)
        told = {n: v for n, v in self._told_verdict(verdict.entry).items() if n != "id"}
        self._write_report(MODEL, {
            "auditor": {"observedAt": when, **told, "ledgerIndex": verdict.index},
            "revisions": {REVISION: {"auditor": {POD: {"observedAt": when, **head}}}},
        })  # fmt: skip
        note = archive.ledger.checkpoint()
        signed = Checkpoint.parse(note.rpartition("\n\n")[0] + "\n")
        self._write_report("governed-archive", {"archive": {
            "observedAt": when, "size": signed.size, "checkpoint": note,
            "rootHash": base64.b64encode(signed.root).decode(),
        }})  # fmt: skip

    def _told_verdict(self, entry: bytes) -> dict[str, Any]:
        """As it was journalled: its time is that of the serving, before names were put."""
        summary = json.loads(entry)["summary"]
        return {**self._verdict(), **summary, "time": json.loads(entry)["time"]}

    def _write_report(self, name: str, parts: dict[str, Any]) -> None:
        path = self.root / "reports" / f"{name}.json"
        path.parent.mkdir(exist_ok=True)
        status = json.loads(path.read_bytes())["status"] if path.exists() else {}
        path.write_text(json.dumps({"status": {**status, **parts}}, indent=1, ensure_ascii=False))


class _Store:
    """The archive's keysets of the model, as its client's store offers them."""

    def __init__(self, archive: Archive) -> None:
        self._archive, self._files = archive, DirectoryStore(archive._keysets / MODEL)

    def get(self, purpose: str) -> bytes | None:
        return self._files.get(purpose)

    def create(self, purpose: str, document: bytes) -> bytes:
        return self._archive.create_keyset(MODEL, purpose, document) or document

    def replace(self, purpose: str, expected: bytes, document: bytes) -> None:
        self._archive.replace_keyset(MODEL, purpose, document, hashlib.sha256(expected).hexdigest())

    def destroy(self, purpose: str, receipt: bytes) -> None:
        msgspec.json.decode(receipt, type=KeyEvent)
        self._archive.destroy_keyset(MODEL, purpose, receipt)

    def purposes(self) -> list[str]:
        return self._files.purposes()


def made(
    root: Path, *, rounds: int = 3, requests: int = 60, between: Callable[[WorkFolder], None] = lambda _: None
) -> WorkFolder:
    """A run that was started ``rounds`` times; ``between``: called before the last."""
    work = WorkFolder(root)
    for number in range(rounds):
        if number == rounds - 1:
            between(work)
        work.grow(requests, rotate=number == 1)
    return work
