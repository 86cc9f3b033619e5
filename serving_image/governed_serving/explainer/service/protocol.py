"""Open Inference Protocol V2 bodies of explanation requests → columns and parameters."""

import hashlib
from typing import Any, Literal, TypedDict

import msgspec
import numpy as np
from numpy.typing import NDArray

from governed_api.datatypes import NUMERIC
from governed_api.explaining import FORMER_NAMES
from governed_api.names import request_id_fault
from governed_serving.artefact import Feature
from governed_serving.blackbox.columns import Columns
from governed_serving.blackbox.errors import NotExplainable
from governed_serving.decoding import NestedOtherwise, decode_json, flatten
from governed_serving.explainer.scales import SCALES
from governed_serving.explainer.service.rendering import Explanation

__all__ = ["MAX_INTERACTIONS", "MAX_ROWS", "SEED_BITS", "ExplainRequest", "Parameters", "parse", "seed_of"]

MAX_ROWS = 1024
"""Rows that one request may ask to have explained."""

MAX_INTERACTIONS = 2016
"""Pairs that one explanation may show: all of 64 players."""

SEED_BITS = 53
"""Of a derived seed. Of more, readers of JSON that know doubles alone (RFC 8259, section 6) keep another number, and a
replay gives another explanation; records from before this rule have up to 63."""

_IGNORED = frozenset({"binary_data_output", "revision", "priority"})
"""Parameters of inference requests that say nothing about explaining."""


class Parameters(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """What a request may ask for beyond its rows, as ``governed_api.explaining`` lists it.

    ``method``: see the engine's table, "" is the model's default. ``max_evaluations``: coalitions of a sampled method,
    samples of lime and anchors. ``target``: class, or its position; default: the favourable class, else the predicted
    one. ``budget_milliseconds``: answer within this time with the error reached. ``precision``: stop when half-widths
    fall below this share of the range. ``outcome``: the class that a counterfactual should reach. ``scale``: "output"
    (default) or "logit", in which saturated probabilities still have attributions. ``interactions``: those of pairs as
    well, all that there is room for, or as many as it says. ``hierarchy``: group → names of features (or ``groups``)
    and of other groups: Owen values. Of counterfactuals: ``immutable`` features, ``direction`` (feature → "increase" or
    "decrease") and ``step`` (feature → multiples of what it moves by).
    """

    method: str = ""
    max_evaluations: int | None = None
    target: str | int | None = None
    seed: int | None = None
    budget_milliseconds: float | None = None
    confidence: float | None = None
    precision: float | None = None
    groups: dict[str, list[str]] | None = None
    outcome: str | int | None = None
    field: str | None = None
    level: str = "token"
    webhook: str | None = None
    scale: str | None = None
    interactions: bool | int | None = None
    hierarchy: dict[str, list[str]] | None = None
    immutable: list[str] | None = None
    direction: dict[str, Literal["increase", "decrease"]] | None = None
    step: dict[str, float] | None = None
    kernel_width: float | None = None


class _Tensor(msgspec.Struct):
    name: str
    shape: list[int]
    datatype: str
    data: list[Any] = []
    parameters: dict[str, Any] = {}


class _Body(msgspec.Struct):
    inputs: list[_Tensor]
    id: str | None = None
    parameters: dict[str, Any] = {}
    outputs: list[Any] = []


class ExplainRequest(msgspec.Struct, frozen=True):
    """Rows in the model's own dtypes, under the id that the prediction has in the ledger."""

    id: str
    columns: Columns
    parameters: Parameters

    @property
    def seed(self) -> int:
        """The one asked for, else derived from the id; a number that every JSON reader keeps."""
        return seed_of(self.id) if self.parameters.seed is None else self.parameters.seed


class Answer(TypedDict):
    """What is answered to a request, JSON-ready."""

    model_name: str
    id: str
    explanations: list[Explanation]
    parameters: dict[str, object]
    """Those in force: with the id and the rows, all that a replay needs."""
    digests: dict[str, str]
    evaluations: int
    calls: int


def seed_of(request_id: str) -> int:
    """Seed of a request id: the first ``SEED_BITS`` of its SHA-256."""
    return int.from_bytes(hashlib.sha256(request_id.encode()).digest()[:8], "big") >> 64 - SEED_BITS


def parse(body: bytes, features: list[Feature], fallback_id: str) -> ExplainRequest:
    """Raises :class:`NotExplainable` naming the field, what was expected and what was found."""
    try:
        decoded = decode_json(body, type=_Body)
    except msgspec.DecodeError as error:
        raise NotExplainable(f"expected a V2 inference request: {error}") from error
    parameters = _renamed({k: v for k, v in decoded.parameters.items() if k not in _IGNORED})
    try:
        parsed = msgspec.convert(parameters, Parameters, strict=False)
    except msgspec.ValidationError as error:
        raise NotExplainable(f"parameters: {error}") from error
    _check(parsed)
    identity = decoded.id or fallback_id
    if fault := request_id_fault(identity):
        raise NotExplainable(f"id: {fault}; shorten it or leave it out")
    return ExplainRequest(identity, columns_of(decoded.inputs, features), parsed)


def _renamed(parameters: dict[str, object]) -> dict[str, object]:
    """Under today's names. Raises :class:`NotExplainable` where an option comes under both."""
    if twice := [name for name, now in FORMER_NAMES.items() if name in parameters and now in parameters]:
        raise NotExplainable(
            f"parameters.{FORMER_NAMES[twice[0]]}: expected once, found {twice[0]} too, its former name; leave that out"
        )
    return {FORMER_NAMES.get(name, name): value for name, value in parameters.items()}


def _check(parameters: Parameters) -> None:
    if parameters.max_evaluations is not None and not 4 <= parameters.max_evaluations <= 10_000_000:
        raise NotExplainable(f"parameters.maxEvaluations: expected 4 to 10000000, found {parameters.max_evaluations}")
    budget = parameters.budget_milliseconds
    if budget is not None and not 0 < budget <= 600_000:
        raise NotExplainable(f"parameters.budgetMilliseconds: expected above 0 up to 600000, found {budget}")
    if parameters.kernel_width is not None and not 0 < parameters.kernel_width < float("inf"):
        raise NotExplainable(
            f"parameters.kernelWidth: expected a finite number above 0, found {parameters.kernel_width}"
        )
    if parameters.confidence is not None and not 0.5 <= parameters.confidence < 1:
        raise NotExplainable(f"parameters.confidence: expected 0.5 up to below 1, found {parameters.confidence}")
    if parameters.precision is not None and not 0 < parameters.precision <= 1:
        raise NotExplainable(f"parameters.precision: expected above 0 and up to 1, found {parameters.precision}")
    if parameters.scale not in (None, *SCALES):
        raise NotExplainable(f"parameters.scale: expected {' or '.join(SCALES)}, found {parameters.scale!r}")
    if parameters.interactions is not None and not 0 <= parameters.interactions <= MAX_INTERACTIONS:
        raise NotExplainable(
            f"parameters.interactions: expected true, false or up to {MAX_INTERACTIONS}, "
            f"found {parameters.interactions}"
        )
    for name, step in (parameters.step or {}).items():
        if not 0 < step < float("inf"):
            raise NotExplainable(f"parameters.step: {name}: expected a finite number above 0, found {step}")
    if parameters.seed is not None and not 0 <= parameters.seed < 1 << 63:
        raise NotExplainable(f"parameters.seed: expected 0 to 2^63 − 1, found {parameters.seed}")


def columns_of(tensors: list[_Tensor], features: list[Feature]) -> Columns:
    """One column per feature, in the model's order; a single numeric matrix is taken as all features."""
    by_name = {tensor.name: tensor for tensor in tensors}
    if len(tensors) == 1 and len(features) > 1 and tensors[0].name not in {f.name for f in features}:
        return _matrix(tensors[0], features)
    names = {feature.name for feature in features}
    if strange := sorted(set(by_name) - names):
        raise NotExplainable(f"inputs: no feature {strange[0]!r}; the model has {', '.join(f.name for f in features)}")
    if missing := [f.name for f in features if f.name not in by_name]:
        raise NotExplainable(f"inputs: expected feature {missing[0]!r}, found none")
    columns = {feature.name: _column(by_name[feature.name], feature) for feature in features}
    lengths = {len(values) for values in columns.values()}
    if len(lengths) != 1:
        raise NotExplainable(f"inputs: expected tensors of equally many rows, found {sorted(lengths)}")
    rows = lengths.pop()
    if not 1 <= rows <= MAX_ROWS:
        raise NotExplainable(f"inputs: expected 1 to {MAX_ROWS} rows, found {rows}")
    return columns


def _column(tensor: _Tensor, feature: Feature) -> NDArray[np.generic]:
    rank = len(tensor.shape)
    if rank not in (1, 2) or (rank == 2 and tensor.shape[1] != 1) or not 0 <= tensor.shape[0] <= MAX_ROWS:
        shape = str(tensor.shape[:3])[:80]
        raise NotExplainable(
            f"{feature.name}: expected shape [rows] or [rows, 1], at most {MAX_ROWS} rows, found {rank} "
            f"dimensions {shape}"
        )
    size = tensor.shape[0]
    data = _flattened(tensor)
    if len(data) != size:
        raise NotExplainable(f"{feature.name}: shape {tensor.shape} needs {size} values, found {len(data)}")
    if feature.dtype == "BYTES":
        if tensor.datatype != "BYTES" or not all(isinstance(value, str) for value in data):
            raise NotExplainable(f"{feature.name}: expected BYTES (strings), found {tensor.datatype}")
        column = np.empty(size, object)
        column[:] = data
        return column
    if tensor.datatype not in NUMERIC:
        raise NotExplainable(f"{feature.name}: expected a number ({feature.dtype}), found {tensor.datatype}")
    try:
        numbers = np.array([float("nan") if value is None else value for value in data], np.float32)
    except (TypeError, ValueError, OverflowError) as error:
        raise NotExplainable(f"{feature.name}: expected numbers: {error}") from error
    if feature.missing == "refuse" and not np.isfinite(numbers).all():
        raise NotExplainable(f"{feature.name}: expected finite numbers, found NaN or infinity")
    return numbers


def _matrix(tensor: _Tensor, features: list[Feature]) -> Columns:
    if any(feature.dtype == "BYTES" for feature in features):
        raise NotExplainable(f"inputs: expected one tensor per feature (some are text), found only {tensor.name!r}")
    if len(tensor.shape) != 2 or tensor.shape[1] != len(features):
        raise NotExplainable(
            f"{tensor.name}: expected shape [rows, {len(features)}], found {str(tensor.shape[:3])[:80]}"
        )
    values = _flattened(tensor)
    if len(values) != tensor.shape[0] * tensor.shape[1] or not 1 <= tensor.shape[0] <= MAX_ROWS:
        raise NotExplainable(
            f"{tensor.name}: shape {tensor.shape} doesn't fit {len(values)} values (at most {MAX_ROWS} rows)"
        )
    try:
        table = np.array(values, np.float32).reshape(tensor.shape)
    except (TypeError, ValueError, OverflowError) as error:
        raise NotExplainable(f"{tensor.name}: expected numbers: {error}") from error
    return {feature.name: table[:, index].copy() for index, feature in enumerate(features)}


def _flattened(tensor: _Tensor) -> list[Any]:
    try:
        return flatten(tensor.shape, tensor.data)
    except NestedOtherwise as error:
        raise NotExplainable(f"{tensor.name}: {error}") from None
