"""model.json: what the artefact holds and how to talk to the model."""

from collections.abc import Iterable
from typing import Any, Literal

import msgspec

from governed_serving.artefact.errors import MalformedArtefact
from governed_serving.artefact.graph import Graph
from governed_serving.artefact.text import Text
from governed_serving.decoding import decode_json

FORMAT = "governedmodels.io/artefact/v1"
RULE, BASE_RULE = "decision_rule", "base"
"""Output that says whose thresholds decided about a row, and what it says where its group has none of its own."""


class Feature(msgspec.Struct, frozen=True, omit_defaults=True, rename="camel"):
    """One input of the model, raw, ONNX shape [-1, 1]; ``dtype`` is its V2 datatype (of a trained model FP32 or BYTES).

    ``categories`` are those seen in training (others count as unknown). ``min``, ``max``, ``mean`` describe the
    training split. ``missing`` says whether NaN (numeric) or "" is imputed or refused: imputed where training had gaps.
    ``about``: it says whom a decision is about; the network doesn't see it, and background.json doesn't hold it.
    ``segmentation`` names what :func:`governed_serving.artefact.segment` must do to a text before ONNX Runtime sees it.
    """

    name: str
    type: Literal["numeric", "categorical", "text"]
    dtype: str
    categories: list[str] = []
    min: float | None = None
    max: float | None = None
    mean: float | None = None
    missing: Literal["refuse", "impute"] = "refuse"
    segmentation: str = ""
    max_tokens: int | None = None
    about: bool = False


class Coin(msgspec.Struct, frozen=True, omit_defaults=True):
    """What draws depend on: the input ``subject``, or "": all of the row."""

    subject: str = ""


class Output(msgspec.Struct, frozen=True, omit_defaults=True):
    """One ONNX output; ``shape`` has -1 for the rows."""

    name: str
    dtype: str
    shape: list[int]


class Lineage(msgspec.Struct, frozen=True, rename="camel"):
    """Where the model comes from. No clock and no host in here: the same manifest must give the same bytes."""

    dataset: str
    training: str
    code: str
    versions: dict[str, str]


class Manifest(msgspec.Struct, frozen=True, omit_defaults=True, rename="camel"):
    """model.json. ``files`` maps every other file of the artefact to its SHA-256 (hex).

    ``inputs`` are the ONNX input names in feature order. Classification: outputs ``probabilities`` FP32 [-1, classes]
    and ``label`` [-1] (INT64 or BYTES); regression: ``prediction`` FP32 [-1]. ``favorable`` is the class, ``threshold``
    the score that favours a person. ``variant`` is what shipped: float, int8 or pruned. ``bands``: protected attribute
    or stratum of numbers → inner borders of its bands, ascending; empty: each value is a group. ``coverage``: the least
    chance that ``prediction_set`` BOOL [-1, classes] or ``prediction_interval`` FP32 [-1, 2] holds the truth; None:
    there is no such output. ``coin``: the graph takes draws as a further input (``coin.key``); None: it doesn't.
    ``mitigation``: of bias, as answers name it; "": none. ``graph``: of a model that others exported, whose
    ``features`` are the columns of its tables (none where it takes none) and whose task is ``tensors`` where it is
    neither. ``text``: of a folder with a tokenizer; its first feature is the text, further ones are attributes of
    requests that the graph isn't given.
    """

    name: str
    task: Literal["classification", "regression", "tensors"]
    features: list[Feature]
    inputs: list[str]
    outputs: list[Output]
    label: str
    variant: Literal["float", "int8", "pruned"]
    lineage: Lineage
    files: dict[str, str]
    classes: list[str | int] = []
    favorable: str | None = None
    threshold: float | None = None
    settings: dict[str, Any] = {}
    bands: dict[str, list[float]] = {}
    coverage: float | None = None
    graph: Graph | None = None
    text: Text | None = None
    mitigation: str = ""
    coin: Coin | None = None
    format: str = ""


def encode_manifest(manifest: Manifest) -> bytes:
    """Deterministic JSON (fields as they are declared, keys of maps sorted), the bytes of model.json."""
    return msgspec.json.encode(msgspec.structs.replace(manifest, format=FORMAT), order="deterministic")


def decode_manifest(data: bytes) -> Manifest:
    """Inverse of :func:`encode_manifest`. Raises MalformedArtefact."""
    try:
        manifest = decode_json(data, type=Manifest)
    except msgspec.DecodeError as error:
        raise MalformedArtefact(f"model.json: {error}") from error
    if manifest.format != FORMAT:
        raise MalformedArtefact(f"model.json: expected format {FORMAT}, found {manifest.format or 'none'}")
    return manifest


def class_meant(word: str, classes: Iterable[str]) -> str | None:
    """The one class that ``word`` names but for letter case and blanks around it; None where there isn't just one."""
    alike = [label for label in classes if label.casefold() == word.strip().casefold()]
    return alike[0] if len(alike) == 1 else None
