"""The data step: source → typed, masked, scanned, audited, described, and sealed on the data volume."""

from dataclasses import dataclass

import msgspec
from pydantic import TypeAdapter

from governed_api.base import wire
from governed_api.evidence import DataAudit, DatasetManifest
from governed_api.governance import Masking
from governed_api.lifecycle import Training
from governed_api.model import GovernedModelSpec
from governed_serving.decoding import decode_msgpack
from governed_serving.trainer import audit
from governed_serving.trainer.dataset import Dataset, Scanner, TextMasker, manifest, masked, scan, typed
from governed_serving.trainer.errors import InvalidTraining
from governed_serving.trainer.sources import read
from governed_serving.trainer.volume import DataVolume

DATASET = "dataset"
_AUDIT: TypeAdapter[DataAudit] = TypeAdapter(DataAudit)


@dataclass(frozen=True)
class Prepared:
    """What trains, its manifest, and the audit of the labels as they are (empty without spec.governance.bias)."""

    dataset: Dataset
    manifest: DatasetManifest
    audit: DataAudit


def prepare(
    spec: GovernedModelSpec, source: bytes, volume: DataVolume, key: str, *, scanner: Scanner, masker: TextMasker | None
) -> Prepared:
    """Prepared data of this training ``key``: from the volume when a killed Job left it there, else from ``source``.

    Raises InvalidTraining.
    """
    training = spec.lifecycle.training
    assert training is not None
    if (left := volume.read(DATASET)) is not None:
        kept = decode_msgpack(left)
        if kept["key"] == key:
            described = DatasetManifest.model_validate(kept["manifest"])
            return Prepared(Dataset.decode(kept["dataset"]), described, _AUDIT.validate_python(kept["audit"]))
    raw = typed(read(training.data, source), training, spec.governance.bias)
    findings = scan(raw, scanner)
    fields = masked_fields(training, spec.governance.privacy.masking)
    dataset = masked(raw, fields, masker) if masker is not None else raw
    described = manifest(dataset, training.data, source=source, findings=findings)
    described = described.model_copy(update={"masked": fields})
    prepared = Prepared(dataset, described, _audit(spec, dataset))
    content = {"key": key, "dataset": dataset.encode(), "manifest": wire(described), "audit": plain(prepared.audit)}
    volume.write(DATASET, msgspec.msgpack.encode(content))
    return prepared


def plain(audit: DataAudit) -> dict[str, object]:
    """JSON-ready."""
    return {name: wire(table) for name, table in audit.items()}


def masked_fields(training: Training, masking: Masking | None) -> list[str]:
    """Text features that are masked before the model sees them. Raises InvalidTraining for one that is no text
    feature."""
    texts = [f.name for f in training.data.features if f.type == "text"]
    if masking is None:
        return []
    for k, name in enumerate(masking.fields):
        if name not in texts:
            listed = ", ".join(texts) or "there are none"
            path = f"spec.governance.privacy.masking.fields[{k}]"
            raise InvalidTraining(path, f"expected a text feature ({listed}), found {name!r}")
    return list(masking.fields) or texts


def _audit(spec: GovernedModelSpec, dataset: Dataset) -> DataAudit:
    bias = spec.governance.bias
    if bias is None:
        return {}
    return audit.audit(bias, dataset.groups, audit.favorable(bias, dataset.label, dataset.classes))
