"""Runs alibi in an environment of its own (the extra ``alibi``), by path: nothing of ours is imported here, and this by
nobody.

What travels over its standard streams is said in ``worker.py`` beside it.
"""

import base64
import json
import os
import warnings
from collections.abc import Callable
from importlib.metadata import version
from typing import IO, TypedDict

warnings.simplefilter("ignore")

import alibi.explainers  # noqa: E402
import numpy as np  # noqa: E402
from numpy.typing import NDArray  # noqa: E402

Floats = NDArray[np.float64]
Predict = Callable[[Floats], Floats]


class Matrix(TypedDict):
    """As it travels."""

    shape: list[int]
    data: str


class Task(TypedDict):
    """What is given; ``samples`` for KernelShap, from ``categories`` on for AnchorTabular."""

    method: str
    names: list[str]
    background: Matrix
    rows: Matrix
    seed: int
    samples: int
    categories: dict[str, list[str]]
    threshold: float
    delta: float
    cut: float | None


class Frame(TypedDict, total=False):
    """What is received: one of these."""

    task: Task
    answer: Matrix
    stop: bool


class _Stopped(Exception):
    """Whoever answers for the model has said that there will be no more answers."""


class Channel:
    def __init__(self, source: IO[bytes], sink: IO[bytes]) -> None:
        self._source, self._sink = source, sink

    def send(self, message: dict[str, object]) -> None:
        body = json.dumps(message).encode()
        self._sink.write(len(body).to_bytes(4, "big") + body)
        self._sink.flush()

    def receive(self) -> Frame | None:
        head = self._source.read(4)
        if len(head) < 4:
            return None
        frame: Frame = json.loads(self._source.read(int.from_bytes(head, "big")))
        return frame

    def ask(self, rows: Floats) -> Floats:
        """The model's outputs, shape (rows, outputs)."""
        self.send({"ask": packed(rows)})
        frame = self.receive()
        if frame is None or "answer" not in frame:
            raise _Stopped
        return unpacked(frame["answer"])


def packed(matrix: Floats) -> Matrix:
    values = np.ascontiguousarray(matrix, np.float64)
    return {"shape": list(values.shape), "data": base64.b64encode(values.tobytes()).decode()}


def unpacked(message: Matrix) -> Floats:
    flat: Floats = np.frombuffer(base64.b64decode(message["data"]), np.float64)
    return flat.reshape(message["shape"])


def kernel_shap(task: Task, predict: Predict) -> dict[str, object]:
    """``values`` (rows × outputs, features) and ``base`` (1, outputs)."""
    explainer = alibi.explainers.KernelShap(predict, link="identity", feature_names=task["names"], seed=task["seed"])
    explainer.fit(unpacked(task["background"]))
    rows = unpacked(task["rows"])
    explanation = explainer.explain(rows, silent=True, nsamples=task["samples"], l1_reg=False)
    values = np.stack([np.asarray(output).reshape(rows.shape) for output in explanation.shap_values], axis=1)
    return {
        "values": packed(values.reshape(-1, rows.shape[1])),
        "base": packed(np.atleast_2d(np.asarray(explanation.expected_value, float))),
    }


def anchor_tabular(task: Task, predict: Predict) -> dict[str, object]:
    """The rule of the only row, as alibi words it."""
    cut = task["cut"]

    def outcome(rows: Floats) -> NDArray[np.int64]:
        outputs = predict(rows)
        chosen: NDArray[np.int64] = outputs.argmax(axis=1) if cut is None else (outputs[:, 0] >= cut).astype(int)
        return chosen

    names = {int(place): list(values) for place, values in task["categories"].items()}
    explainer = alibi.explainers.AnchorTabular(
        outcome, task["names"], categorical_names=names, dtype=np.float64, seed=task["seed"]
    )
    explainer.fit(unpacked(task["background"]), disc_perc=(25, 50, 75))
    explanation = explainer.explain(unpacked(task["rows"])[0], threshold=task["threshold"], delta=task["delta"])
    return {
        "features": [int(place) for place in explanation.raw["feature"]],
        "rules": list(explanation.anchor),
        "precision": float(np.ravel(explanation.precision)[0]),
        "coverage": float(np.ravel(explanation.coverage)[0]),
        "success": bool(explanation.raw["success"]),
    }


METHODS = {"shap": kernel_shap, "anchors": anchor_tabular}


def main() -> None:
    channel = Channel(os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb"))
    os.dup2(2, 1)  # whatever a library prints goes to the log
    channel.send({"hello": {name: version(name) for name in ("alibi", "numpy", "shap")}})
    while (frame := channel.receive()) is not None:
        task = frame.get("task")
        if task is None:  # a stop that came twice
            continue
        np.random.seed(task["seed"])
        try:
            channel.send({"done": METHODS[task["method"]](task, channel.ask)})
        except Exception as error:  # told to whoever gave the task, who may give another
            channel.send({"failed": f"{type(error).__name__}: {error}"})


if __name__ == "__main__":
    main()
