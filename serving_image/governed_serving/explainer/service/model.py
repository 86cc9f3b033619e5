"""What the service knows of the model it explains: manifest, background, digests, groups."""

import functools
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from governed_api.json_types import Scalar
from governed_serving.artefact import Artefact, Feature, Manifest, load
from governed_serving.blackbox.columns import Columns, row_count, take
from governed_serving.blackbox.errors import NotExplainable
from governed_serving.code_closure import code_digest
from governed_serving.explainer.players import Players

__all__ = ["ExplainedModel", "explainer_code"]

CODE = "governed_serving.explainer.__main__"
"""Where the process begins that explains."""


@dataclass(frozen=True)
class ExplainedModel:
    """``background``: raw columns in the model's dtypes; ``groups``: features attributed together, by name."""

    manifest: Manifest
    digest: str
    onnx: bytes
    background: Columns
    groups: dict[str, tuple[str, ...]] = field(default_factory=dict)
    protected: tuple[str, ...] = ()

    @classmethod
    def read(
        cls, directory: Path, expected: str, groups: list[list[str]], rows: int, protected: tuple[str, ...]
    ) -> "ExplainedModel":
        """Loads and verifies the artefact. Raises ArtefactError, NotExplainable (no background, unknown feature in a
        group)."""
        artefact = load(directory, expected)
        names = {" + ".join(group): tuple(group) for group in groups}
        background = _background(artefact, rows) if artefact.manifest.text is None else {}
        model = cls(artefact.manifest, artefact.digest, artefact.model, background, names, protected)
        _ = model.players(None)
        return model

    @property
    def features(self) -> list[Feature]:
        return self.manifest.features

    @property
    def output(self) -> str:
        """The output tensor that is explained."""
        return "probabilities" if self.manifest.task == "classification" else "prediction"

    @property
    def outputs(self) -> list[str | int]:
        """Names of the output columns: classes, or the predicted quantity."""
        return list(self.manifest.classes) if self.manifest.task == "classification" else [self.manifest.label]

    def players(self, groups: dict[str, list[str]] | None) -> Players:
        """Players of a request: its own groups, else the model's."""
        chosen = self.groups if groups is None else groups
        return Players.of_groups([feature.name for feature in self.features], chosen)

    def position(self, target: str | int, name: str = "target") -> int:
        """Output column of a class name or position. Raises :class:`NotExplainable`."""
        names = [str(value) for value in self.outputs]
        if str(target) in names:
            return names.index(str(target))
        if isinstance(target, int) and 0 <= target < len(names):
            return target
        raise NotExplainable(f"parameters.{name}: expected one of {', '.join(names)} or a position, found {target!r}")

    @functools.cached_property
    def background_digest(self) -> str:
        """SHA-256 of the background's canonical JSON."""
        plain = {name: values.tolist() for name, values in self.background.items()}
        return f"sha256:{hashlib.sha256(msgspec.json.encode(plain, order='deterministic')).hexdigest()}"


def _background(artefact: Artefact, rows: int) -> Columns:
    """At most ``rows`` rows, a seeded sample in random order: of an artefact that others made, the first may be
    alike."""
    raw = artefact.background()
    columns = {f.name: _column(raw.get(f.name), f) for f in artefact.manifest.features}
    if (count := row_count(columns)) == 0:
        raise NotExplainable("background.json: expected at least one row, found none")
    return take(columns, np.random.default_rng(np.random.PCG64(count)).permutation(count)[:rows])


def _column(values: Sequence[Scalar] | None, feature: Feature) -> NDArray[np.generic]:
    if values is None:
        raise NotExplainable(f"background.json: expected a column {feature.name!r}, found none")
    if feature.dtype == "BYTES":
        column = np.empty(len(values), object)
        column[:] = ["" if value is None else str(value) for value in values]
        return column
    return np.array([np.nan if value is None else value for value in values], np.float32)


def explainer_code() -> str:
    """SHA-256 over everything of ours that this process can import: says which code computed an explanation."""
    return f"sha256:{code_digest(CODE)}"
