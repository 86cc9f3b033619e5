"""alibi as an engine: its methods on our tasks, their answers in our form.

alibi gives no intervals and can't be cut short: attributions have none, and a budget that ends before it does is an
error. Its licence (BSL 1.1) allows production use only to some, so that it runs only where ``acceptLicence`` says so.
"""

import functools
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from governed_serving.blackbox.columns import Columns, Floats
from governed_serving.blackbox.errors import NotExplainable
from governed_serving.explainer.attribution import Attribution
from governed_serving.explainer.engines.worker import EngineAway, Matrix, Worker, matrix_of, message_of
from governed_serving.explainer.service.methods import Answers, Method, Task, side_of, tabular

__all__ = ["LICENCE", "alibi_methods", "alibi_worker"]

LICENCE = "BSL-1.1"
PROGRAM = Path(__file__).with_name("alibi_worker.py")
THRESHOLD = 0.95
"""Precision that an anchor should have."""


def alibi_worker(python: Path) -> Worker:
    """The worker of an environment that has alibi, once it has greeted. Raises EngineAway, saying how to make one."""
    worker = Worker(python, PROGRAM)
    try:
        worker.start()
    except EngineAway as error:
        raise EngineAway(
            f"explainer.engine alibi: {error}. Make one with Python 3.11 (python3.11 -m venv E && E/bin/pip install "
            "'alibi[shap]==0.9.6' click) and set GOVERNED_ALIBI_PYTHON to E/bin/python; images have none yet"
        ) from None
    return worker


def alibi_methods(worker: Worker) -> dict[str, Method]:
    """The methods that alibi computes, by our names."""
    return {
        "shap": functools.partial(_kernel_shap, worker),
        "anchors": functools.partial(_anchors, worker),
    }


@functools.cache
def _code() -> str:
    return f"sha256:{hashlib.sha256(PROGRAM.read_bytes()).hexdigest()}"


def _signed(worker: Worker, answers: Answers) -> Answers:
    """With what computed them: versions, licence, and the digest of the program, which the explainer's own code doesn't
    hold."""
    engine = {"name": "alibi", "licence": LICENCE, "code": _code(), **worker.about}
    return [{**answer, "engine": engine} for answer in answers]


@dataclass(frozen=True)
class _Coding:
    """Columns as one matrix: numbers as they are, texts as codes into ``names`` (feature → values, by code)."""

    features: tuple[str, ...]
    dtypes: Mapping[str, np.dtype[np.generic]]
    names: Mapping[str, list[str]]

    @classmethod
    def of(cls, task: Task) -> "_Coding":
        both = (task.model.background, task.rows)
        names = {
            f.name: list(dict.fromkeys([*f.categories, *(v for part in both for v in part[f.name].tolist())]))
            for f in task.model.features
            if f.dtype == "BYTES"
        }
        return cls(tuple(task.rows), {name: values.dtype for name, values in task.rows.items()}, names)

    def matrix(self, columns: Columns) -> Floats:
        """Shape (rows, features)."""
        parts = []
        for name in self.features:
            codes = {value: code for code, value in enumerate(self.names.get(name, ()))}
            values = [codes[v] for v in columns[name].tolist()] if name in self.names else columns[name]
            parts.append(np.asarray(values, np.float64))
        return np.stack(parts, axis=1)

    def columns(self, matrix: Floats) -> Columns:
        """What :meth:`matrix` was made of."""
        return {name: self._column(name, matrix[:, place]) for place, name in enumerate(self.features)}

    def _column(self, name: str, values: Floats) -> NDArray[np.generic]:
        if name not in self.names:
            return values.astype(self.dtypes[name])
        known = np.empty(len(self.names[name]), object)
        known[:] = self.names[name]
        column: NDArray[np.generic] = known[values.astype(np.int64)]
        return column

    def categories(self) -> dict[str, list[str]]:
        return {str(place): self.names[name] for place, name in enumerate(self.features) if name in self.names}


class _Values(msgspec.Struct):
    """Of KernelShap: ``values`` (rows × outputs, features) and ``base`` (1, outputs)."""

    values: Matrix
    base: Matrix


class _Rule(msgspec.Struct):
    """Of AnchorTabular: places of features, and the conditions on them in alibi's words."""

    features: list[int]
    rules: list[str]
    precision: float
    coverage: float
    success: bool


def _task(task: Task, coding: _Coding, method: str, rows: Columns, **more: object) -> dict[str, object]:
    return {
        "method": method,
        "names": list(coding.features),
        "background": message_of(coding.matrix(task.model.background)),
        "rows": message_of(coding.matrix(rows)),
        "seed": task.seed % (1 << 32),
        **more,
    }


def _asking(task: Task, coding: _Coding, most: int | None = None) -> Callable[[Floats], Floats]:
    """The model as the worker sees it; of no more than ``most`` rows."""
    before = task.box.rows

    def ask(matrix: Floats) -> Floats:
        if most is not None and task.box.rows - before + len(matrix) > most:
            raise NotExplainable(
                f"parameters.max_evaluations: alibi needs more than {most} rows and can't be cut short; allow more"
            )
        return task.box(coding.columns(matrix))

    return ask


def _kernel_shap(worker: Worker, task: Task) -> Answers:
    """KernelShap: Shapley values from at most ``max_evaluations`` coalitions of each row."""
    if any(len(members) > 1 for members in task.players.members):
        raise NotExplainable(
            "groups: expected none with explainer.engine alibi, whose KernelShap is given single features"
        )
    coding, before = _Coding.of(task), task.box.rows
    message = _task(task, coding, "shap", task.rows, samples=task.max_evaluations)
    answer = worker.run(message, _asking(task, coding), _Values)
    outputs = task.outputs.shape[1]
    values = matrix_of(answer.values).reshape(len(task.outputs), outputs, len(coding.features)).transpose(0, 2, 1)
    base, spent = matrix_of(answer.base).reshape(-1), task.box.rows - before
    unknown = np.full(values.shape[1:], np.inf)
    place = [coding.features.index(name) for name in task.players.names]
    attributions = [
        Attribution(
            method="shap",
            names=task.players.names,
            values=per_output[place],
            lower=-unknown,
            upper=unknown,
            base=base,
            prediction=task.outputs[row],
            evaluations=spent,
            coalitions=task.max_evaluations,
            details={"stopped": "evaluations"},
        )
        for row, per_output in enumerate(values)
    ]
    return _signed(worker, tabular(task, task.game(), attributions))


def _anchors(worker: Worker, task: Task) -> Answers:
    """AnchorTabular: the rule in alibi's words, its precision as estimated there."""
    coding, answers = _Coding.of(task), []
    cut, said_by = task.outcome()
    delta = 1 - task.parameters.confidence
    for row in range(len(task.outputs)):
        before = task.box.rows
        message = _task(
            task,
            coding,
            "anchors",
            task.row(row),
            categories=coding.categories(),
            threshold=THRESHOLD,
            delta=delta,
            cut=cut,
        )
        answer = worker.run(message, _asking(task, coding, task.parameters.max_evaluations), _Rule)
        answers.append(
            {
                "method": "anchors",
                "target": task.model.outputs[int(task.outputs[row].argmax())],
                "prediction": float(task.outputs[row].max()),
                **side_of(cut, said_by, float(task.outputs[row, 0])),
                "anchor": [
                    {"player": coding.features[place], "rule": rule}
                    for place, rule in zip(answer.features, answer.rules, strict=False)
                ],
                "precision": answer.precision,
                "coverage": answer.coverage,
                "certified": answer.success,
                "threshold": THRESHOLD,
                "evaluations": task.box.rows - before,
            }
        )
    return _signed(worker, answers)
