"""Runs alibi in an environment of its own (the extra ``alibi``), by path: nothing of ours is imported here, and this by
nobody.

What travels over its standard streams is said in ``worker.py`` beside it.
"""

import base64
import json
import os
import select
import threading
import warnings
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from itertools import pairwise
from typing import IO, Protocol, TypedDict

warnings.simplefilter("ignore")

import alibi.explainers  # noqa: E402
import numpy as np  # noqa: E402
import spacy  # noqa: E402
from numpy.typing import ArrayLike, NDArray  # noqa: E402

Floats = NDArray[np.float64]
Predict = Callable[[Floats], Floats]

CHUNK = 1 << 22
"""Numbers of one question or its answer: 32 MiB before they are written as text."""

INDEPENDENT = 100
"""Background rows that shap's trees take; of more they draw."""


class _Anchored(Protocol):
    """What alibi says of an anchor, as far as it is read."""

    anchor: list[str]
    precision: ArrayLike
    raw: Mapping[str, ArrayLike]


class Matrix(TypedDict):
    """As it travels."""

    shape: list[int]
    data: str


class Task(TypedDict):
    """What is given: ``background`` and ``rows`` to all methods, ``outputs`` (how many), and to each what it needs."""

    method: str
    names: list[str]
    background: Matrix
    rows: Matrix
    outputs: int
    seed: int
    samples: int
    categories: dict[str, list[str]]
    threshold: float
    delta: float
    cut: float | None
    text: str
    spans: list[list[int]]
    placeholder: str
    trees: dict[str, Matrix]
    features: list[list[int]]
    repeats: int


class Frame(TypedDict, total=False):
    """What is received: one of these."""

    task: Task
    answer: Matrix
    stop: bool


class _Stopped(BaseException):
    """Whoever answers for the model has said that there will be no more answers: no library should try again."""


class Channel:
    def __init__(self, source: IO[bytes], sink: IO[bytes]) -> None:
        self._source, self._sink = source, sink
        self.outputs = 1

    def send(self, message: dict[str, object]) -> None:
        body = json.dumps(message, allow_nan=False).encode()
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
        rows = np.atleast_2d(rows)
        step = max(1, CHUNK // max(rows.shape[1], self.outputs))
        parts = [self._asked({"ask": packed(rows[at : at + step])}) for at in range(0, len(rows), step)]
        return np.concatenate(parts)

    def ask_texts(self, texts: Sequence[str]) -> Floats:
        """As :meth:`ask`, of texts."""
        step = max(1, CHUNK // max(self.outputs, *(len(text) for text in texts)))
        parts = [self._asked({"texts": list(texts[at : at + step])}) for at in range(0, len(texts), step)]
        return np.concatenate(parts)

    def _asked(self, question: dict[str, object]) -> Floats:
        self.send(question)
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


def kernel_shap(task: Task, channel: Channel) -> dict[str, object]:
    """``values`` (rows × outputs, features) and ``base`` (1, outputs)."""
    explainer = alibi.explainers.KernelShap(
        channel.ask, link="identity", feature_names=task["names"], seed=task["seed"]
    )
    explainer.fit(unpacked(task["background"]))
    rows = unpacked(task["rows"])
    explanation = explainer.explain(rows, silent=True, nsamples=task["samples"], l1_reg=False)
    return shapley(explanation.shap_values, explanation.expected_value, rows.shape)


def shapley(values: Sequence[Floats], base: ArrayLike, shape: tuple[int, ...]) -> dict[str, object]:
    stacked = np.stack([np.asarray(output, float).reshape(shape) for output in values], axis=1)
    return {
        "values": packed(stacked.reshape(-1, shape[1])),
        "base": packed(np.asarray(base, float).reshape(1, -1)),
    }


def tree_shap(task: Task, channel: Channel) -> dict[str, object]:  # noqa: ARG001  reads the trees, asks nothing
    """As :func:`kernel_shap`, in the trees' own sum, against at most ``INDEPENDENT`` rows."""
    given = {name: unpacked(matrix) for name, matrix in task["trees"].items()}
    edges = [*given["roots"].reshape(-1).astype(int).tolist(), len(given["thresholds"])]
    trees = [
        {
            "children_left": given["left"][start:end].reshape(-1).astype(np.int32),
            "children_right": given["right"][start:end].reshape(-1).astype(np.int32),
            "children_default": given["default"][start:end].reshape(-1).astype(np.int32),
            "features": given["features"][start:end].reshape(-1).astype(np.int32),
            "thresholds": given["thresholds"][start:end].reshape(-1).copy(),
            "values": given["values"][start:end].copy(),
            "node_sample_weight": np.ones(end - start),
        }
        for start, end in pairwise(edges)
    ]
    kind = "regression"  # of the predictions that we don't take
    explainer = alibi.explainers.TreeShap({"trees": trees}, model_output="raw", task=kind, seed=task["seed"])
    explainer.fit(unpacked(task["background"])[:INDEPENDENT])
    rows = unpacked(task["rows"])
    explanation = explainer.explain(rows, check_additivity=False)
    return shapley(explanation.shap_values, explanation.expected_value, rows.shape)


def anchor_tabular(task: Task, channel: Channel) -> dict[str, object]:
    """The rule of the only row, as alibi words it."""
    names = {int(place): list(values) for place, values in task["categories"].items()}
    explainer = alibi.explainers.AnchorTabular(
        outcome(channel.ask, task["cut"]), task["names"], categorical_names=names, dtype=np.float64, seed=task["seed"]
    )
    explainer.fit(unpacked(task["background"]), disc_perc=(25, 50, 75))
    explanation = explainer.explain(
        unpacked(task["rows"])[0], threshold=task["threshold"], delta=task["delta"], **kept(len(task["names"]))
    )
    return {**rule(explanation), "coverage": finite(explanation.coverage)}


def anchor_text(task: Task, channel: Channel) -> dict[str, object]:
    """The spans of the text that keep its outcome while ``placeholder`` stands for half of the others."""
    explainer = alibi.explainers.AnchorText(
        outcome(channel.ask_texts, task["cut"]),
        sampling_strategy="unknown",
        nlp=_Spans(task["spans"]),
        seed=task["seed"],
    )
    explainer.perturbation = _Masking(task["text"], task["spans"], task["placeholder"])
    explanation = explainer.explain(
        task["text"], threshold=task["threshold"], delta=task["delta"], **kept(len(task["spans"]))
    )
    return {**rule(explanation), "coverage": None}


def kept(width: int) -> dict[str, int]:
    """How many batches of a hundred rows are kept at first, and how many more at a time: alibi's own 10,000 and 1,000
    are gigabytes where rows are wide."""
    most = max(1, CHUNK // (100 * width))
    return {"binary_cache_size": min(10_000, most), "cache_margin": min(1000, most)}


class _Spans:
    """What AnchorText takes for a language: it cuts the text where it was told to."""

    def __init__(self, spans: list[list[int]]) -> None:
        blank = spacy.blank("en")
        blank.vocab.lookups.add_table("lexeme_prob")
        self.vocab, self.lang, self._spans = blank.vocab, blank.lang, spans

    def __call__(self, text: str) -> object:
        return spacy.tokens.Doc(self.vocab, words=[text[start:end] for start, end in self._spans])


class _Masking:
    """AnchorText's sampling of strategy "unknown", but for the places of our spans, and for what stands in between."""

    def __init__(self, text: str, spans: list[list[int]], placeholder: str) -> None:
        self.words = [text[start:end] for start, end in spans]
        self.positions = [start for start, _ in spans]
        edges = [0, *(edge for span in spans for edge in span), len(text)]
        self._gaps = [text[start:end] for start, end in zip(edges[::2], edges[1::2], strict=True)]
        self._placeholder = placeholder

    def set_text(self, text: str) -> None:
        """The one that it was made of."""

    def __call__(self, anchor: tuple[int, ...], count: int) -> tuple[NDArray[np.object_], Floats]:
        kept = np.random.random((count, len(self.words))) >= 0.5
        kept[:, list(anchor)] = True
        texts = np.empty(count, object)
        texts[:] = [self._text(row) for row in kept.tolist()]
        return texts, kept.astype(float)

    def _text(self, kept: list[bool]) -> str:
        words = [word if stands else self._placeholder for word, stands in zip(self.words, kept, strict=True)]
        return "".join(gap + word for gap, word in zip(self._gaps, [*words, ""], strict=True))


def outcome(ask: Callable[..., Floats], cut: float | None) -> Callable[..., NDArray[np.int64]]:
    """The class of each answer, or its side of ``cut``."""

    def decided(asked: object) -> NDArray[np.int64]:
        outputs = ask(asked)
        chosen: NDArray[np.int64] = outputs.argmax(axis=1) if cut is None else (outputs[:, 0] >= cut).astype(int)
        return chosen

    return decided


def rule(explanation: _Anchored) -> dict[str, object]:
    return {
        "features": np.ravel(explanation.raw["feature"]).astype(int).tolist(),
        "rules": [str(condition) for condition in explanation.anchor],
        "precision": finite(explanation.precision),
        "success": bool(np.all(explanation.raw["success"])),
    }


def finite(value: ArrayLike) -> float | None:
    number = float(np.ravel(value)[0])
    return number if np.isfinite(number) else None


def permutation(task: Task, channel: Channel) -> dict[str, object]:
    """``samples`` (players, repeats): the mean change of the outputs when a feature's values move among the rows."""
    rows = unpacked(task["background"])
    plain = channel.ask(rows)

    def change(y_true: ArrayLike, y_pred: ArrayLike) -> float:  # the names are alibi's
        return float(np.abs(np.asarray(y_pred, float) - plain[np.asarray(y_true, int)]).mean())

    explainer = alibi.explainers.PermutationImportance(channel.ask, loss_fns={"change": change})
    features = [tuple(places) if len(places) > 1 else places[0] for places in task["features"]]
    explanation = explainer.explain(rows, np.arange(len(rows)), features, kind="difference", n_repeats=task["repeats"])
    return {"samples": packed(np.stack([importance["samples"] for importance in explanation.feature_importance[0]]))}


def effects(task: Task, channel: Channel) -> dict[str, object]:
    """``grid`` (points, 1) and ``values`` (points, outputs) of the only feature: ALE of a number, partial dependence of
    a category."""
    rows, ((place,),) = unpacked(task["background"]), task["features"]
    targets = [str(output) for output in range(task["outputs"])]
    if str(place) in task["categories"]:
        names = {place: list(task["categories"][str(place)])}
        dependence = alibi.explainers.PartialDependence(
            channel.ask, feature_names=task["names"], categorical_names=names, target_names=targets
        )
        explanation = dependence.explain(rows, features=[place], kind="average")
        grid, values = explanation.feature_values[0], np.asarray(explanation.pd_values[0]).T
    else:
        ale = alibi.explainers.ALE(channel.ask, feature_names=task["names"], target_names=targets)
        explanation = ale.explain(rows, features=[place])
        grid, values = explanation.feature_values[0], explanation.ale_values[0]
    numbers = np.asarray(grid, float).reshape(-1, 1)
    return {"grid": packed(numbers), "values": packed(np.asarray(values, float).reshape(len(numbers), -1))}


METHODS: dict[str, Callable[[Task, Channel], dict[str, object]]] = {
    "shap": kernel_shap,
    "tree": tree_shap,
    "anchors": anchor_tabular,
    "text anchors": anchor_text,
    "importance": permutation,
    "effects": effects,
}


def ends_with(source: int) -> None:
    """Ends this process when nobody holds the other end of its input any more, whatever it computes."""
    poll = select.poll()
    poll.register(source, 0)
    poll.poll()
    os._exit(0)


def main() -> None:
    source = os.dup(0)
    channel = Channel(os.fdopen(source, "rb"), os.fdopen(os.dup(1), "wb"))
    os.dup2(2, 1)  # whatever a library prints goes to the log
    threading.Thread(target=ends_with, args=(source,), daemon=True).start()
    channel.send({"hello": {name: version(name) for name in ("alibi", "numpy", "shap", "spacy")}})
    while (frame := channel.receive()) is not None:
        task = frame.get("task")
        if task is None:  # a stop that came twice
            continue
        np.random.seed(task["seed"])
        channel.outputs = task["outputs"]
        try:
            channel.send({"done": METHODS[task["method"]](task, channel)})
        except _Stopped:
            channel.send({"failed": "stopped"})
        except Exception as error:  # told to whoever gave the task, who may give another
            channel.send({"failed": f"{type(error).__name__}: {error}"[:2000]})


if __name__ == "__main__":
    main()
