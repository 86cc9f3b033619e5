"""The Job from end to end: look for the model among the refs; else make it, and leave evidence of every step."""

import hashlib
import os
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import msgspec

from governed_api.base import wire
from governed_api.evidence import GateTable
from governed_api.resolved import ResolvedModel
from governed_api.version import __version__
from governed_serving.code_closure import code_digest
from governed_serving.records import (
    LedgerEntry,
    artefact_reference,
    canonical,
    making_reference,
    timestamp,
    within_limit,
)
from governed_serving.trainer.dataset import Scanner, TextMasker
from governed_serving.trainer.errors import InvalidTraining
from governed_serving.trainer.prepare import Prepared, plain, prepare
from governed_serving.trainer.progress import Narrator
from governed_serving.trainer.sources import source_bytes
from governed_serving.trainer.volume import Cipher, DataVolume

if TYPE_CHECKING:  # torch: not before the data is known to be good
    from governed_serving.trainer.pipeline import Made


class Archive(Protocol):
    """What the Job needs of the namespace's archive, for its own model."""

    def ref(self, name: str) -> dict[str, Any] | None: ...

    def put_ref(self, name: str, value: Mapping[str, object]) -> None: ...

    def has_blob(self, address: str, *, ref: str) -> bool: ...

    def put_blob(self, sealed: bytes) -> str: ...

    def append(self, stream: str, entries: list[bytes]) -> int: ...


class Report(Protocol):
    """The GovernanceReport (governed_serving.report)."""

    def update(self, part: Literal["trainer"], values: Mapping[str, object]) -> bool: ...

    def flush(self) -> bool: ...


@dataclass(frozen=True)
class Dependencies:
    """The Job's neighbours, so that it runs without them in tests."""

    archive: Archive
    report: Report
    data_cipher: Callable[[], Cipher]
    artefact_cipher: Callable[[], Cipher]
    coin_key: Callable[[], bytes]
    scanner: Scanner
    masker: TextMasker | None


class Job:
    """One training. ``source`` is where relative data paths begin, ``data`` the encrypted volume."""

    def __init__(
        self, resolved: ResolvedModel, rooms: Dependencies, *, source: Path, data: Path, narrator: Narrator
    ) -> None:
        self._resolved, self._rooms, self._narrator = resolved, rooms, narrator
        self._source, self._data = source, data
        self._said = 0.0

    def run(self) -> dict[str, str]:
        """Make the model or find it; the report's artefact {digest, blob, variant}. Raises TrainingError and
        neighbours' errors."""
        spec = self._resolved.spec
        if spec.lifecycle.training is None:
            raise InvalidTraining("spec.lifecycle.training", "expected how to train, found nothing")
        self._report("Running", "reading data", progress=0.0)
        source = source_bytes(spec.lifecycle.training.data, self._source)
        code = code_version()
        key = training_key(self._resolved, source, code)
        name = making_reference(key)
        if (kept := self._rooms.archive.ref(name)) and self._rooms.archive.has_blob(kept["artefact"]["blob"], ref=name):
            self._narrator.say("model found in the archive", digest=kept["artefact"]["digest"])
            self._report("Succeeded", "the same training is in the archive already", progress=1.0, **kept)
            return dict(kept["artefact"])
        volume = DataVolume(self._data, self._rooms.data_cipher())
        prepared = prepare(spec, source, volume, key, scanner=self._rooms.scanner, masker=self._rooms.masker)
        self._tell_data(prepared)
        return self._make(prepared, volume, key, code)

    def _make(self, prepared: Prepared, volume: DataVolume, key: str, code: str) -> dict[str, str]:
        from governed_serving.trainer.loop import CHECKPOINT  # torch: not before the data is known to be good
        from governed_serving.trainer.pipeline import Pipeline

        resolved = self._resolved
        pipeline = Pipeline(
            resolved.name, resolved.spec, prepared, volume, key=key, code=code, coin_key=self._rooms.coin_key
        )
        made = pipeline.make(self._epoch)
        sealed = self._rooms.artefact_cipher().seal(made.packed, made.digest.encode())
        blob = self._rooms.archive.put_blob(sealed)
        artefact = {"digest": made.digest, "blob": blob, "variant": made.variant}
        table = GateTable(gates=made.gates)
        self._rooms.archive.append(f"trainer-{key}", self._entries(prepared, made, key, blob, table))
        kept = {"artefact": artefact, "metrics": made.metrics, **wire(table), "dataAudit": plain(prepared.audit)}
        self._rooms.archive.put_ref(artefact_reference(made.digest), {"blob": blob, "training": key})
        self._rooms.archive.put_ref(making_reference(key), within(REFERENCE_BYTES, kept))
        volume.remove(CHECKPOINT)
        self._report("Succeeded", f"{made.variant} model after {made.epochs} epochs", progress=1.0, **kept)
        for gate in made.gates:
            self._narrator.say(f"gate {gate.name}: {gate.verdict}", measured=gate.measured, budget=gate.budget)
        self._narrator.say("model ready", digest=made.digest, variant=made.variant, **made.measured)
        return artefact

    def _entries(self, prepared: Prepared, made: "Made", key: str, blob: str, table: GateTable) -> list[bytes]:
        about, now = (self._resolved.namespace, self._resolved.name), timestamp(time.time())
        digest, data = made.digest, prepared.manifest.digest
        trained: dict[str, object] = {"metrics": made.metrics, "epochs": made.epochs}
        shipped: dict[str, object] = {"variant": made.variant}
        if made.mitigation:
            trained["mitigation"] = shipped["mitigation"] = made.mitigation
        if made.thresholds is not None:
            trained["thresholds"] = wire(made.thresholds)
        judged = {**wire(table), "measured": made.measured, "node": node()}
        steps = [
            LedgerEntry("dataset", *about, data, now, digest=data, summary=summary(prepared)),
            LedgerEntry("training", *about, key, now, digest=digest, summary=trained),
            LedgerEntry("gates", *about, key, now, digest=digest, summary=judged),
            LedgerEntry("artefact", *about, digest, now, digest=digest, blob=blob, summary=dict(shipped)),
        ]
        return [canonical(within_limit(step)) for step in steps]

    def _tell_data(self, prepared: Prepared) -> None:
        personal = prepared.manifest.personal_data
        self._narrator.say(
            "data ready", rows=prepared.manifest.rows, digest=prepared.manifest.digest, personal_data=personal
        )
        for attribute, table in prepared.audit.items():
            for d in table.disparities:
                ratio = "undefined" if d.dir is None else f"{d.dir:.4f}"
                self._narrator.say(
                    f"labels by {attribute}: {d.group} against {d.reference}",
                    spd=f"{d.spd:+.4f}",
                    dir=ratio,
                    chi_square=f"{table.chi_square:.2f}",
                    simpson=[name for name, stratum in table.strata.items() if stratum.simpson],
                )
        self._report("Running", "training", progress=0.0, dataAudit=plain(prepared.audit))

    def _epoch(self, done: int, entry: dict[str, float]) -> None:
        training = self._resolved.spec.lifecycle.training
        assert training is not None
        total = training.loop.epochs
        self._narrator.epoch(done, total, entry)
        if time.monotonic() - self._said >= 1.0:
            self._said = time.monotonic()
            self._report("Running", f"epoch {done} of {total}", progress=done / total)

    def _report(self, phase: str, message: str, **fields: object) -> None:
        values = {"phase": phase, "message": message, "trainingHash": self._resolved.training_hash(), **fields}
        self._rooms.report.update("trainer", values)


REFERENCE_BYTES = 16 << 10
"""What the archive takes as a reference."""


def within(most: int, kept: dict[str, Any]) -> dict[str, Any]:
    """What a reference says of a training, in at most ``most`` bytes of JSON: figures of groups, of which there may be
    many, are left to the artefact and the ledger where there isn't room for them."""
    plain_metrics = {name: value for name, value in kept["metrics"].items() if "." not in name}
    for less in (kept, {**kept, "dataAudit": {}}, {**kept, "dataAudit": {}, "metrics": plain_metrics}):
        if len(msgspec.json.encode(less)) <= most:
            return less
    return {**kept, "dataAudit": {}, "metrics": plain_metrics, "gates": []}


def summary(prepared: Prepared) -> dict[str, object]:
    """The data-set manifest (without its schema) and the audit of the labels, for the ledger and the report."""
    described = wire(prepared.manifest)
    return {k: v for k, v in described.items() if k != "schema"} | {"audit": plain(prepared.audit)}


def training_key(resolved: ResolvedModel, source: bytes, code: str) -> str:
    """Name of a training: manifest, data bytes, masking and code. Same key, same model."""
    masking = resolved.spec.governance.privacy.masking
    parts = [
        resolved.training_hash(),
        hashlib.sha256(source).hexdigest(),
        masking.model_dump_json(exclude={"direction": True, "names": {"budget"}}) if masking else "",
        code,
    ]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]


CODE = "governed_serving.trainer.__main__"
"""Everything of ours that the Job can import decides, or may decide, what an artefact holds."""


def code_version() -> str:
    """Version of the distribution, and a digest of the code that shapes a model: other code, another training."""
    return f"{__version__}+{code_digest(CODE)[:12]}"


def node() -> dict[str, object]:
    """What the latencies were measured on."""
    return {"machine": platform.machine(), "cpus": os.cpu_count() or 0}
