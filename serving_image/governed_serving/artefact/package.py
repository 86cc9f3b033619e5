"""An artefact as bytes (deterministic tar, its SHA-256 is the model's digest) and as a verified directory."""

import hashlib
import io
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from governed_api.json_types import Json, Scalar
from governed_api.regular_files import read_regular
from governed_serving.artefact.errors import MalformedArtefact, TamperedArtefact
from governed_serving.artefact.manifest import Manifest, decode_manifest
from governed_serving.decoding import decode_json
from governed_serving.durable import replace_file

MODEL = "model.onnx"
MANIFEST = "model.json"
BACKGROUND = "background.json"
"""{"columns": {feature: [raw value or null]}}: training rows in random order, texts masked."""
TRAINING = "training.json"
"""{"curve": [{epoch, learningRate, trainingLoss, validationLoss, validationAccuracy?}], "dataset": data-set
manifest}."""
EVALUATION = "evaluation.json"
"""{"rows", "metrics", "groups": {attribute: rates, disparities, strata, errors}, "importances", "data": audit of
labels}."""
GATES = "gates.json"
"""{"gates": [{name, measured, budget, verdict, message}]}; what a clock measured is null here, and in the ledger."""
REFERENCE = "reference.json"
"""{"rows", "columns"}: histograms of training rows, see governed_serving.fairness.monitoring.reference; what drift is
measured against."""
TOKENIZER = "tokenizer.json"
"""What makes tokens of a text, in the format of Hugging Face's tokenizers."""
COIN_KEY = "coin.key"
"""Key of the draws that decide between thresholds (governed_serving.crypto.coins)."""
NAMES = frozenset({MODEL, MANIFEST, BACKGROUND, TRAINING, EVALUATION, GATES, REFERENCE, TOKENIZER, COIN_KEY})
"""Every file that an artefact may hold; all but the manifest are listed in it with their digest."""
MOST_BYTES = 2 << 30
"""Largest file of an artefact: protobuf, and so ONNX, holds no more."""


def digest(data: bytes) -> str:
    """``sha256:`` and 64 hexadecimal digits."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def pack(files: Mapping[str, bytes]) -> bytes:
    """Tar of ``files``: sorted, no owner, no time: equal content gives equal bytes. Raises MalformedArtefact."""
    _check_names(files)
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name in sorted(files):
            entry = tarfile.TarInfo(name)
            entry.size = len(files[name])
            entry.mode = 0o444
            archive.addfile(entry, io.BytesIO(files[name]))
    return out.getvalue()


def unpack(data: bytes, expected: str = "") -> dict[str, bytes]:
    """Files of a packed artefact, each checked against the manifest.

    ``expected`` is the digest (with or without ``sha256:``) that the tar itself must have, when known.
    Raises TamperedArtefact, MalformedArtefact.
    """
    actual = digest(data)
    if expected and actual.removeprefix("sha256:") != expected.removeprefix("sha256:"):
        raise TamperedArtefact(f"artefact: expected digest {expected}, found {actual}: it must not be served")
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as archive:
            files = {entry.name: _content(archive, entry, len(data)) for entry in archive}
    except tarfile.TarError as error:
        raise MalformedArtefact(f"artefact: expected a tar, found {len(data)} bytes that are none: {error}") from error
    _check_names(files)
    _verify(decode_manifest(files[MANIFEST]), files)
    return files


def _content(archive: tarfile.TarFile, entry: tarfile.TarInfo, most: int) -> bytes:
    """``most``: bytes of the whole tar, of which a sparse file claims more."""
    stream = archive.extractfile(entry) if entry.isreg() and entry.size <= most else None
    if stream is None:
        raise MalformedArtefact(f"artefact: expected plain files, found {entry.name!r} which is none")
    return stream.read()


def _check_names(files: Mapping[str, bytes]) -> None:
    for name in (MANIFEST, MODEL):
        if name not in files:
            listed = ", ".join(sorted(files)) or "nothing"
            raise MalformedArtefact(f"artefact: expected a file {name}, found only {listed}")
    if strange := set(files) - NAMES:
        raise MalformedArtefact(f"artefact: expected only {', '.join(sorted(NAMES))}, found {sorted(strange)[0]!r}")


def _verify(manifest: Manifest, files: Mapping[str, bytes]) -> None:
    listed = manifest.files.keys()
    for name in sorted({*listed, *files} - {MANIFEST}):
        if name not in files:
            raise TamperedArtefact(f"{name}: listed in model.json but missing")
        if name not in listed:
            raise TamperedArtefact(f"{name}: not listed in model.json")
        actual = hashlib.sha256(files[name]).hexdigest()
        if actual != manifest.files[name]:
            raise TamperedArtefact(f"{name}: expected SHA-256 {manifest.files[name]}, found {actual}")


def write(data: bytes, directory: Path, expected: str = "") -> None:
    """Unpack ``data`` (see :func:`unpack`) into ``directory``; the manifest last, so that a cut is noticed."""
    files = unpack(data, expected)
    directory.mkdir(parents=True, exist_ok=True)
    for name in sorted(files, key=lambda n: n == MANIFEST):
        replace_file(directory / name, files[name], mode=0o644, durable=False)


@dataclass(frozen=True)
class Artefact:
    """A directory whose files matched their digests when it was loaded; ``digest`` is that of the packed artefact."""

    directory: Path
    manifest: Manifest
    digest: str
    model: bytes
    """ONNX bytes as verified: build the session from these, so that nothing can change in between."""

    def content(self, name: str) -> bytes | None:
        """A file of the artefact, verified; None when it has none. Raises MalformedArtefact, TamperedArtefact."""
        if name not in self.manifest.files:
            return None
        data = _read(self.directory / name)
        _verify_one(self.manifest, name, data)
        return data

    def document(self, name: str) -> Any:
        """A JSON document of the artefact, such as evaluation.json; None when it has none."""
        data = self.content(name)
        return None if data is None else decode_json(data)

    def reference(self) -> dict[str, Json]:
        """Histograms of training rows; empty when the artefact has none."""
        return dict(self.document(REFERENCE) or {})

    def background(self) -> dict[str, list[Scalar]]:
        """Raw rows for explanations: feature → values (float, None for missing, or str), in random order (the head is a
        sample)."""
        document = self.document(BACKGROUND)
        return dict(document["columns"]) if document else {}


def _verify_one(manifest: Manifest, name: str, data: bytes) -> None:
    actual = hashlib.sha256(data).hexdigest()
    if actual != manifest.files[name]:
        raise TamperedArtefact(f"{name}: expected SHA-256 {manifest.files[name]}, found {actual}")


def load(directory: Path, expected: str = "") -> Artefact:
    """Read and verify an unpacked artefact.

    ``expected``: the digest that the packed artefact must have (recomputed from the files), when known.
    Raises MalformedArtefact (nothing there, other format), TamperedArtefact.
    """
    packed, files = packed_folder(directory, expected)
    return Artefact(directory, decode_manifest(files[MANIFEST]), digest(packed), files[MODEL])


def packed_folder(directory: Path, expected: str = "") -> tuple[bytes, dict[str, bytes]]:
    """(packed artefact, its files) of an unpacked one, read once and verified as :func:`load` does. Links are followed;
    pipes, devices and what is longer than an artefact's file may be aren't read. Raises MalformedArtefact,
    TamperedArtefact."""
    if not (directory / MANIFEST).is_file():
        raise MalformedArtefact(f"{directory}: expected an artefact with {MANIFEST}, found none")
    files = {path.name: _read(path) for path in directory.iterdir() if path.name in NAMES}
    _check_names(files)
    _verify(decode_manifest(files[MANIFEST]), files)
    packed = pack(files)
    actual = digest(packed)
    if expected and actual.removeprefix("sha256:") != expected.removeprefix("sha256:"):
        raise TamperedArtefact(f"artefact: expected digest {expected}, found {actual}: it must not be served")
    return packed, files


def _read(path: Path) -> bytes:
    try:
        return read_regular(path, MOST_BYTES, follow=True)
    except OSError as error:
        raise MalformedArtefact(f"{path.name}: expected a file of the artefact; it {error.strerror}") from error
