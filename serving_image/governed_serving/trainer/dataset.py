"""From a raw table to typed columns that are known to be trainable, and the manifest that describes them."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from governed_api.evidence import ColumnSummary, DatasetManifest, LabelColumn
from governed_api.governance import Bias
from governed_api.lifecycle import Data, Training
from governed_serving.decoding import decode_msgpack
from governed_serving.fairness.counts.cells import CodedColumn
from governed_serving.fairness.counts.grouping import Grouping, default_bands, number_in
from governed_serving.trainer.errors import InvalidTraining
from governed_serving.trainer.sources import DATA
from governed_serving.trainer.tables import Column, Table, numbers

BIAS = "spec.governance.bias"
RESERVED = frozenset(
    {"decision_rule", "label", "model_score", "prediction", "prediction_interval", "prediction_set", "probabilities"}
)
MAX_CLASSES, MAX_GROUPS = 1000, 64


class Scanner(Protocol):
    """Finds personal data: texts → entity → how often (governed_serving.privacy)."""

    def __call__(self, texts: Iterable[str]) -> Mapping[str, int]: ...


class TextMasker(Protocol):
    """Replaces personal data in texts as the server will (governed_serving.privacy)."""

    def __call__(self, texts: list[str], /) -> list[str]: ...


@dataclass(frozen=True)
class Dataset:
    """Typed columns, all of shape (rows,).

    ``features``: float32 with NaN (numeric) or object str with "" (categorical, text) where missing. ``label``: int64
    codes into ``classes``, or float32 when ``classes`` is empty (regression). ``groups``: protected attributes and
    strata, object str as they are grouped. ``bands``: those of them that are numbers → borders (see
    :mod:`governed_serving.fairness.counts.grouping`; empty: each value is a group).
    """

    features: dict[str, Column]
    types: dict[str, str]
    label: NDArray[np.integer | np.floating]
    classes: tuple[str | int, ...]
    groups: dict[str, Column]
    bands: dict[str, tuple[float, ...]] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        return len(self.label)

    def at(self, index: NDArray[np.int64]) -> "Dataset":
        """The rows at ``index``."""
        return replace(
            self,
            features={name: column[index] for name, column in self.features.items()},
            label=self.label[index],
            groups={name: column[index] for name, column in self.groups.items()},
        )

    def encode(self) -> bytes:
        """msgpack of all columns, equal for equal content: what the data digest is over and the volume holds."""
        plain = {
            "features": {name: _plain(column) for name, column in self.features.items()},
            "types": self.types,
            "label": _plain(self.label),
            "classes": list(self.classes),
            "groups": {name: _plain(column) for name, column in self.groups.items()},
        }
        if self.bands:
            plain["bands"] = self.bands
        return msgspec.msgpack.encode(plain, order="sorted")

    @classmethod
    def decode(cls, data: bytes) -> "Dataset":
        """Inverse of :meth:`encode`."""
        plain = decode_msgpack(data)
        return cls(
            {name: _column(column) for name, column in plain["features"].items()},
            plain["types"],
            _numbers(plain["label"]),
            tuple(plain["classes"]),
            {name: _column(column) for name, column in plain["groups"].items()},
            {name: tuple(edges) for name, edges in plain.get("bands", {}).items()},
        )


def _plain(column: Column) -> list[object]:
    if column.dtype == object:
        names, codes = np.unique(column.astype(str), return_inverse=True)
        return ["str", names.tolist(), codes.astype("<i4").tobytes()]
    return [column.dtype.newbyteorder("<").str, column.astype(column.dtype.newbyteorder("<")).tobytes()]


def _column(plain: list[Any]) -> Column:
    if plain[0] == "str":
        names: Column = np.array(plain[1], dtype=object)
        codes = np.frombuffer(plain[2], "<i4")
        return np.asarray(names[codes], dtype=object)
    return _numbers(plain)


def _numbers(plain: list[Any]) -> NDArray[np.integer | np.floating]:
    return np.frombuffer(plain[1], plain[0]).copy()


def typed(table: Table, training: Training, bias: Bias | None) -> Dataset:
    """The data set that ``training`` asks for. Raises InvalidTraining, which names field, row and column."""
    data = training.data
    features = {f.name: _feature(table, k, f.name, f.type) for k, f in enumerate(data.features)}
    regression = training.loss.name == "mse"
    label: NDArray[np.integer | np.floating]
    label, classes = _regression_label(table, data) if regression else _class_label(table, data)
    grouped = _groups(table, training, bias)
    groups = {name: grouping.column for name, grouping in grouped.items()}
    if not regression:
        _check_favorable(bias, classes)
    if table.counts is not None:
        features = {name: np.repeat(column, table.counts) for name, column in features.items()}
        groups = {name: np.repeat(column, table.counts) for name, column in groups.items()}
        label = np.repeat(label, table.counts)
    bands = {name: grouping.bands for name, grouping in grouped.items() if grouping.bands is not None}
    dataset = Dataset(features, {f.name: f.type for f in data.features}, label, classes, groups, bands)
    _check_counts(dataset, data)
    return dataset


def _feature(table: Table, position: int, name: str, kind: str) -> Column:
    path = f"{DATA}.features[{position}]"
    if name in RESERVED:
        raise InvalidTraining(
            path, f"expected a name other than the outputs {', '.join(sorted(RESERVED))}, found {name}"
        )
    column = table.take(name, f"{path}.name")
    if kind == "numeric":
        with np.errstate(over="ignore"):
            values = numbers(column, name, path).astype(np.float32)
        if np.isnan(values).all():
            raise InvalidTraining(path, f"column {name}: expected values, found only missing ones")
        if not np.isfinite(values[~np.isnan(values)]).all():
            raise InvalidTraining(path, f"column {name}: expected numbers within FP32, found larger ones")
        return values
    texts = column if column.dtype == object else np.array([_text(v) for v in column.tolist()], dtype=object)
    if not np.any(texts != ""):
        raise InvalidTraining(path, f"column {name}: expected values, found only missing ones")
    return texts


def _text(value: float) -> str:
    return "" if value != value else f"{value:g}"


def _class_label(table: Table, data: Data) -> tuple[NDArray[np.int64], tuple[str | int, ...]]:
    path = f"{DATA}.label"
    column = table.take(data.label, path)
    for row in np.flatnonzero(column == "")[:1]:
        raise InvalidTraining(path, f"row {row + 1}, column {data.label}: expected a class, found nothing")
    names, codes = np.unique(column.astype(str), return_inverse=True)
    used = codes if table.counts is None else codes[table.counts > 0]
    if len(np.unique(used)) < 2:
        raise InvalidTraining(
            path, f"column {data.label}: expected at least two classes, found only {str(names[used[0]])!r}"
        )
    if len(names) > MAX_CLASSES:
        advice = f"found {len(names)}: is this a regression (loss mse)?"
        raise InvalidTraining(path, f"column {data.label}: expected at most {MAX_CLASSES} classes, {advice}")
    if all(str(n).lstrip("-").isdecimal() and str(int(n)) == n for n in names.tolist()):
        order = sorted(names.tolist(), key=int)
        moved = np.array([order.index(n) for n in names.tolist()], dtype=np.int64)
        return moved[codes], tuple(int(n) for n in order)
    return codes.astype(np.int64), tuple(names.tolist())


def _regression_label(table: Table, data: Data) -> tuple[NDArray[np.float32], tuple[str | int, ...]]:
    path = f"{DATA}.label"
    values = numbers(table.take(data.label, path), data.label, path).astype(np.float32)
    for row in np.flatnonzero(~np.isfinite(values))[:1]:
        raise InvalidTraining(path, f"row {row + 1}, column {data.label}: expected a number, found nothing")
    if values.min() == values.max():
        raise InvalidTraining(path, f"column {data.label}: expected differing values, found only {values[0]:g}")
    return values, ()


@dataclass(frozen=True)
class Grouped:
    """Group names, shape (rows,); ``bands`` of a column of numbers (empty: each is a group), None of any other."""

    column: Column
    bands: tuple[float, ...] | None


def _groups(table: Table, training: Training, bias: Bias | None) -> dict[str, Grouped]:
    if bias is None:
        return {}
    wanted = {a.name: f"{BIAS}.protectedAttributes[{k}].name" for k, a in enumerate(bias.protected_attributes)}
    wanted |= {name: f"{BIAS}.strata[{k}]" for k, name in enumerate(bias.strata) if name not in wanted}
    declared = {a.name: a.edges for a in bias.protected_attributes}
    types = {f.name: f.type for f in training.data.features}
    groups: dict[str, Grouped] = {}
    for name, path in wanted.items():
        column = table.take(name, path)
        groups[name] = grouping = _grouped(
            column, table.counts, Wanted(name, path, declared.get(name, ()), types.get(name))
        )
        if (count := len(set(grouping.column.tolist()))) > MAX_GROUPS:
            raise InvalidTraining(
                path,
                f"column {name}: expected at most {MAX_GROUPS} groups, found {count}; {_what_to_do(column, name)}",
            )
    _check_privileged({name: grouping.column for name, grouping in groups.items()}, bias)
    return groups


@dataclass(frozen=True)
class Wanted:
    """A column to group: bands that the manifest declares, and its type as a feature (None: it is none)."""

    name: str
    path: str
    bands: tuple[float, ...]
    kind: str | None


def _grouped(column: Column, counts: NDArray[np.int64] | None, wanted: Wanted) -> Grouped:
    """As the auditor groups what is served: numbers in bands, words as they are."""
    values = _as_numbers(column, wanted)
    if values is None:
        words, codes = np.unique(column.astype(str), return_inverse=True)
        coded = Grouping(wanted.name).encode(codes, words.tolist())
        return Grouped(_names(coded), None)
    weighted = values if counts is None else np.repeat(values, counts)
    bands = wanted.bands or default_bands(weighted)
    if not bands and wanted.kind is None and column.dtype == object:  # few numbers as words: their spelling names them
        return _grouped(column, counts, replace(wanted, kind="categorical"))
    with np.errstate(over="ignore"):
        return Grouped(_names(Grouping(wanted.name, bands).encode(values.astype(np.float32), None)), bands)


def _as_numbers(column: Column, wanted: Wanted) -> NDArray[np.float64] | None:
    """None for a column of words: no numeric feature, no declared bands, and a category or not numbers alone."""
    if wanted.kind == "numeric" or wanted.bands:
        return numbers(column, wanted.name, wanted.path)
    if wanted.kind is not None:
        return None
    if column.dtype != object:
        return column.astype(np.float64)
    read = {word: number_in(word) for word in set(column.tolist()) if word}
    if not read or any(number is None for number in read.values()):
        return None
    return np.array([read.get(word, np.nan) for word in column.tolist()], np.float64)


def _names(coded: CodedColumn) -> Column:
    codes, names = coded
    return np.array(names, object)[codes]


def _what_to_do(column: Column, name: str) -> str:
    words = [word for word in column.tolist() if isinstance(word, str) and word and number_in(word) is None]
    if not words:
        return f"declare it as a numeric feature, or bands of the attribute {name}"
    return f"bands take numbers, and {words[0]!r} is none: group its values in the data"


def _check_privileged(groups: dict[str, Column], bias: Bias) -> None:
    for k, attribute in enumerate(bias.protected_attributes):
        values = sorted(set(groups[attribute.name].tolist()))
        for value in attribute.privileged:
            if value not in values:
                path, expected = f"{BIAS}.protectedAttributes[{k}].privileged", ", ".join(values)
                raise InvalidTraining(
                    path, f"expected a value of column {attribute.name} ({expected}), found {value!r}"
                )


def _check_favorable(bias: Bias | None, classes: tuple[str | int, ...]) -> None:
    if bias is None or bias.favorable_outcome.label is None:
        return
    if bias.favorable_outcome.label not in [str(c) for c in classes]:
        listed, label = ", ".join(str(c) for c in classes), bias.favorable_outcome.label
        raise InvalidTraining(
            f"{BIAS}.favorableOutcome.label", f"expected a class of the label ({listed}), found {label!r}"
        )


def _check_counts(dataset: Dataset, data: Data) -> None:
    least = 10
    if dataset.rows < least:
        raise InvalidTraining(DATA, f"expected at least {least} rows to split, found {dataset.rows}")
    if int(dataset.rows * data.test_fraction) < 1:
        raise InvalidTraining(
            f"{DATA}.testFraction", f"expected at least one row to hold out, found none of {dataset.rows}"
        )


def masked(dataset: Dataset, fields: list[str], mask: TextMasker) -> Dataset:
    """``dataset`` with personal data in ``fields`` masked, as the server will before the model sees a request."""
    changed = {name: np.array(mask(dataset.features[name].tolist()), dtype=object) for name in fields}
    return replace(dataset, features={**dataset.features, **changed})


def manifest(dataset: Dataset, data: Data, *, source: bytes, findings: dict[str, dict[str, int]]) -> DatasetManifest:
    """The data-set manifest: digests, rows, schema, origin, and what the scan for personal data found per column."""
    return DatasetManifest(
        digest=f"sha256:{hashlib.sha256(dataset.encode()).hexdigest()}",
        source_digest=f"sha256:{hashlib.sha256(source).hexdigest()}",
        source=data.source or _origin(data),
        licence=data.licence,
        consent_basis=data.consent_basis,
        rows=dataset.rows,
        columns=[_summary(name, column, dataset.types[name]) for name, column in dataset.features.items()],
        label=LabelColumn(name=data.label, classes=list(dataset.classes)),
        personal_data=findings,
    )


def _origin(data: Data) -> str:
    if data.generator is not None:
        return f"generator {data.generator.name}, {data.generator.rows} rows, seed {data.generator.seed}"
    return data.uri or "inline in the manifest"


def _summary(name: str, column: Column, kind: str) -> ColumnSummary:
    if kind == "numeric":
        seen = column[~np.isnan(column)]
        low, high, mean = float(seen.min()), float(seen.max()), float(seen.astype(np.float64).mean())
        return ColumnSummary(name=name, type=kind, missing=len(column) - len(seen), min=low, max=high, mean=mean)
    missing = int((column == "").sum())
    return ColumnSummary(name=name, type=kind, missing=missing, distinct=len(set(column.tolist()) - {""}))


def scan(dataset: Dataset, scanner: Scanner) -> dict[str, dict[str, int]]:
    """Column → entity → number of findings, for columns of strings that hold any."""
    findings = {n: scanner(column.tolist()) for n, column in dataset.features.items() if dataset.types[n] != "numeric"}
    return {name: dict(sorted(counts.items())) for name, counts in findings.items() if counts}


def split(dataset: Dataset, data: Data, seed: int) -> tuple[Dataset, Dataset, Dataset]:
    """Training, validation and test rows, drawn by ``seed``. Raises InvalidTraining when the training rows miss a
    class."""
    order = np.random.default_rng(np.random.PCG64(seed)).permutation(dataset.rows)
    test = max(1, round(dataset.rows * data.test_fraction))
    validation = round(dataset.rows * data.validation_fraction)
    parts = order[test + validation :], order[test : test + validation], order[:test]
    train = dataset.at(np.sort(parts[0]))
    if dataset.classes and len(np.unique(train.label)) < 2:
        raise InvalidTraining(
            f"{DATA}.label", "expected at least two classes among the training rows, found one: more rows?"
        )
    for name, column in train.features.items():
        missing = np.isnan(column) if dataset.types[name] == "numeric" else column == ""
        if missing.all():
            raise InvalidTraining(
                f"{DATA}.features", f"column {name}: expected values in the training rows, found none"
            )
    return train, dataset.at(np.sort(parts[1])), dataset.at(np.sort(parts[2]))


def reweighing(label: NDArray[np.int64], groups: dict[str, Column]) -> NDArray[np.float32]:
    """Weights P(g)·P(y)/P(g, y) that make label and (intersected) groups independent.

    Kamiran & Calders, "Data preprocessing techniques for classification without discrimination", KAIS 33 (2012).
    Shapes: label (rows,), each group column (rows,); returns float32 (rows,), mean 1.
    """
    joined = np.array(["\x1f".join(parts) for parts in zip(*groups.values(), strict=True)])
    _, group = np.unique(joined, return_inverse=True)
    table = np.zeros((group.max() + 1, label.max() + 1))
    np.add.at(table, (group, label), 1.0)
    expected = table.sum(1, keepdims=True) * table.sum(0, keepdims=True) / table.sum()
    weights = np.divide(expected, table, out=np.zeros_like(table), where=table > 0)
    return np.asarray(weights[group, label], dtype=np.float32)
