"""alibi as an engine: its methods on our tasks, their answers in our form.

alibi gives no intervals and can't be cut short: attributions have none, and a budget that ends before it does is an
error. Its licence (BSL 1.1) allows production use only to some, so that it runs only where ``acceptLicence`` says so.
"""

import functools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from governed_serving.blackbox.columns import Columns, Floats, repeat, row_count, take
from governed_serving.blackbox.errors import EngineAway, NotExplainable
from governed_serving.explainer.attribution import Attribution
from governed_serving.explainer.engines.coding import Coding
from governed_serving.explainer.engines.tree_structure import tree_structure
from governed_serving.explainer.engines.worker import Asked, Bounds, Ended, Matrix, Worker, matrix_of, message_of
from governed_serving.explainer.intervals import student_quantile
from governed_serving.explainer.players import Players
from governed_serving.explainer.service.methods import Answers, Method, Task, side_of, tabular, text_field
from governed_serving.explainer.service.overview import REPEATS, Overall, Whole, importance_entry
from governed_serving.explainer.service.rendering import Explanation
from governed_serving.explainer.shapley.trees import Trees
from governed_serving.explainer.text.spans import cut as cut_text

__all__ = ["LICENCE", "alibi_methods", "alibi_overall", "alibi_worker"]

LICENCE = "BSL-1.1"
PROGRAM = Path(__file__).with_name("alibi_worker.py")
THRESHOLD = 0.95
"""Precision that an anchor should have."""

LONGEST_RULE = 10_000
"""Characters of a condition: it names a feature, and may name a value."""
UNKNOWN = "UNK"
"""What alibi puts for a word."""

TREE_BACKGROUND = 100
"""Background rows that shap's trees take: of more they would draw some."""


def alibi_worker(python: Path, bounds: Bounds = Bounds(), ended: Callable[[Ended], None] = lambda _: None) -> Worker:
    """The worker of an environment that has alibi, once it has greeted. Raises EngineAway, saying how to make one."""
    worker = Worker(python, PROGRAM, bounds, ended)
    try:
        worker.start()
    except EngineAway as error:
        raise EngineAway(
            f"explainer.engine alibi: {error}. Make one with Python 3.11 (python3.11 -m venv E && E/bin/pip install "
            "'alibi[shap]==0.9.6' click) and set GOVERNED_ALIBI_PYTHON to E/bin/python"
        ) from None
    return worker


def alibi_methods(worker: Worker) -> dict[str, Method]:
    """The methods that alibi computes, by our names."""
    return {
        "shap": functools.partial(_kernel_shap, worker),
        "tree": functools.partial(_tree_shap, worker),
        "anchors": functools.partial(_anchors, worker),
    }


def alibi_overall(worker: Worker) -> Overall:
    """alibi's permutation importance, accumulated local effects and partial dependence."""
    return Overall(
        functools.partial(_importance, worker), functools.partial(_effect, worker), functools.partial(_engine, worker)
    )


def _engine(worker: Worker) -> dict[str, str]:
    return worker.signature("alibi", LICENCE)


def _signed(worker: Worker, answers: Answers) -> Answers:
    engine = _engine(worker)
    return [{**answer, "engine": engine} for answer in answers]


class _Values(msgspec.Struct):
    """Of KernelShap and TreeShap: ``values`` (rows × outputs, columns) and ``base`` (1, outputs)."""

    values: Matrix
    base: Matrix

    def read(self, rows: int, outputs: int, columns: int) -> tuple[Floats, Floats]:
        """(rows, columns, outputs) and (outputs,)."""
        values, base = matrix_of(self.values, (rows * outputs, columns)), matrix_of(self.base, (1, outputs)).reshape(-1)
        if not (np.isfinite(values).all() and np.isfinite(base).all()):
            raise EngineAway("expected finite values from the engine, found others")
        return values.reshape(rows, outputs, columns).transpose(0, 2, 1), base


class _Rule(msgspec.Struct):
    """Of anchors: places of features or spans, and the conditions on them in alibi's words."""

    features: list[int]
    rules: list[str]
    precision: float | None
    coverage: float | None
    success: bool

    def read(self, places: int) -> "_Rule":
        """Itself, of ``places`` features or spans. Raises EngineAway for what no rule is."""
        shares = [share for share in (self.precision, self.coverage) if share is not None]
        if not (all(0 <= place < places for place in self.features) and all(0 <= share <= 1 for share in shares)):
            raise EngineAway(f"expected a rule of some of {places} places from the engine, found another")
        if not all(rule.isprintable() and len(rule) <= LONGEST_RULE for rule in self.rules):
            raise EngineAway(f"expected printable conditions of at most {LONGEST_RULE} characters, found others")
        return self


class _Samples(msgspec.Struct):
    """Of PermutationImportance: (players, repeats)."""

    samples: Matrix


class _Curve(msgspec.Struct):
    """Of ALE and PartialDependence: ``grid`` (points, 1) and ``values`` (points, outputs)."""

    grid: Matrix
    values: Matrix


def _message(method: str, seed: int, outputs: int, coding: Coding, background: Columns) -> dict[str, object]:
    return {
        "method": method,
        "names": list(coding.features),
        "background": message_of(coding.matrix(background)),
        "outputs": outputs,
        "seed": seed % (1 << 32),
    }


def _task(task: Task, coding: Coding, method: str, rows: Columns, **more: object) -> dict[str, object]:
    message = _message(method, task.seed, task.outputs.shape[1], coding, task.model.background)
    return {**message, "rows": message_of(coding.matrix(rows)), **more}


def _bounded(task: Task, columns: Callable[[Asked], Columns], most: int | None = None) -> Callable[[Asked], Floats]:
    """The model as the worker sees it; of no more than ``most`` rows."""
    before = task.box.rows

    def ask(asked: Asked) -> Floats:
        if most is not None and task.box.rows - before + len(asked) > most:
            raise NotExplainable(
                f"parameters.maxEvaluations: alibi needs more than {most} rows and can't be cut short; allow more"
            )
        return task.box(columns(asked))

    return ask


def _of_rows(coding: Coding) -> Callable[[Asked], Columns]:
    def columns(asked: Asked) -> Columns:
        if isinstance(asked, list):
            raise EngineAway("expected rows from the engine, found texts")
        return coding.columns(asked)

    return columns


def _of_texts(row: Columns, field: str) -> Callable[[Asked], Columns]:
    """``row`` with its ``field`` as each text says."""

    def columns(asked: Asked) -> Columns:
        if not isinstance(asked, list):
            raise EngineAway("expected texts from the engine, found rows")
        texts = np.empty(len(asked), object)
        texts[:] = asked
        return {**repeat(row, len(asked)), field: texts}

    return columns


def _single(players: Players) -> None:
    if any(len(members) > 1 for members in players.members):
        raise NotExplainable(
            "groups: expected none with explainer.engine alibi, whose KernelShap is given single features"
        )


def _kernel_shap(worker: Worker, task: Task) -> Answers:
    """KernelShap: Shapley values from at most ``max_evaluations`` coalitions of each row."""
    _single(task.players)
    coding, before = Coding.of(task.model, task.rows), task.box.rows
    message = _task(task, coding, "shap", task.rows, samples=task.max_evaluations)
    answer = worker.run(message, _bounded(task, _of_rows(coding)), _Values, task.box.left())
    values, base = answer.read(len(task.outputs), task.outputs.shape[1], len(coding.features))
    spent = task.box.rows - before
    unknown = np.full((len(coding.features), len(base)), np.inf)
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


def _tree_shap(worker: Worker, task: Task) -> Answers:
    """TreeShap of the trees that the graph holds, given as shap's own structure.

    shap attributes to the trees' columns. Where a player has several (a category's), their sum is not the player's
    Shapley value: it is told as what it is, without an interval.
    """

    def explain(trees: Trees, background: NDArray[np.floating], rows: NDArray[np.floating]) -> tuple[Floats, Floats]:
        message = {
            "method": "tree",
            "names": [],
            "background": message_of(background[:TREE_BACKGROUND].astype(np.float64)),
            "rows": message_of(rows.astype(np.float64)),
            "outputs": trees.values.shape[1],
            "seed": task.seed % (1 << 32),
            "trees": {name: message_of(values) for name, values in tree_structure(trees).items()},
        }
        return worker.run(message, _nothing, _Values, task.box.left()).read(
            len(rows), trees.values.shape[1], rows.shape[1]
        )

    attributions, columns = task.forms.trees_by(explain, task.rows, task.players, task.outputs)
    background = row_count(task.model.background)
    if columns > len(task.players) or background > TREE_BACKGROUND:
        unknown = np.full_like(attributions[0].values, np.inf)
        more = {"summed_columns": columns, "background_rows": min(background, TREE_BACKGROUND)}
        attributions = [
            replace(attribution, exact=False, lower=-unknown, upper=unknown, details={**attribution.details, **more})
            for attribution in attributions
        ]
    return _signed(worker, tabular(task, task.game(), attributions))


def _nothing(_: Asked) -> Floats:
    raise EngineAway("expected no question about trees from the engine, found one")


def _anchors(worker: Worker, task: Task) -> Answers:
    """AnchorText of one text where ``field`` names it or the model takes nothing else; else AnchorTabular."""
    if task.parameters.field is not None or [feature.type for feature in task.model.features] == ["text"]:
        return _signed(worker, [_text_rule(worker, task, row) for row in range(len(task.outputs))])
    coding = Coding.of(task.model, task.rows)
    coding.whole(task.model.background, "the background")
    coding.whole(task.rows, "the rows")
    return _signed(worker, [_tabular_rule(worker, task, coding, row) for row in range(len(task.outputs))])


def _tabular_rule(worker: Worker, task: Task, coding: Coding, row: int) -> Explanation:
    """AnchorTabular: the rule in alibi's words, its precision as estimated there."""
    before = task.box.rows
    message = _task(
        task, coding, "anchors", task.row(row), categories=coding.categories(), **_wanted(task, cut := task.outcome())
    )
    ask = _bounded(task, _of_rows(coding), task.parameters.max_evaluations)
    answer = worker.run(message, ask, _Rule, task.box.left()).read(len(coding.features))
    anchor: list[dict[str, object]] = [
        {"player": coding.features[place], "rule": rule}
        for place, rule in zip(answer.features, answer.rules, strict=False)
    ]
    return _ruled(task, row, cut, answer, {"anchor": anchor, "evaluations": task.box.rows - before})


def _text_rule(worker: Worker, task: Task, row: int) -> Explanation:
    """AnchorText of strategy "unknown": the spans that keep the outcome while each other one is ``UNKNOWN`` with a
    chance of a half. Spans are ours (``level``), and what is between them stays."""
    field, before = text_field(task), task.box.rows
    text = str(task.rows[field][row])
    spans = cut_text(text, task.parameters.level)
    if not len(spans):
        raise NotExplainable(f"{field}: expected text to explain, found none")
    message: dict[str, object] = {
        "method": "text anchors",
        "outputs": task.outputs.shape[1],
        "seed": task.seed % (1 << 32),
        "text": text,
        "spans": [list(edge) for edge in spans.edges],
        "placeholder": UNKNOWN,
        **_wanted(task, cut := task.outcome()),
    }
    ask = _bounded(task, _of_texts(task.row(row), field), task.parameters.max_evaluations)
    answer = worker.run(message, ask, _Rule, task.box.left()).read(len(spans))
    anchor: list[dict[str, object]] = [
        {"span": list(spans.edges[place]), "rule": spans.words()[place]} for place in answer.features
    ]
    more = {"field": field, "level": task.parameters.level, "placeholder": UNKNOWN}
    return _ruled(task, row, cut, answer, {**more, "anchor": anchor, "evaluations": task.box.rows - before})


def _wanted(task: Task, cut: tuple[float | None, str]) -> dict[str, object]:
    return {"threshold": THRESHOLD, "delta": 1 - task.confidence, "cut": cut[0]}


def _ruled(task: Task, row: int, cut: tuple[float | None, str], answer: _Rule, more: dict[str, object]) -> Explanation:
    return {
        "method": "anchors",
        "target": task.model.outputs[int(task.outputs[row].argmax())],
        "prediction": float(task.outputs[row].max()),
        **side_of(*cut, float(task.outputs[row, 0])),
        "precision": answer.precision,
        "coverage": answer.coverage,
        "certified": answer.success,
        "threshold": THRESHOLD,
        **more,
    }


def _importance(worker: Worker, whole: Whole) -> list[dict[str, object]]:
    """PermutationImportance: mean change of the outputs by player, with the interval of its repeats."""
    background, players = whole.model.background, whole.model.players(None)
    coding = Coding.of(whole.model, background)
    if row_count(background) < 2:
        raise NotExplainable("overview: alibi's permutation importance needs two background rows, found one")
    places = [[coding.features.index(name) for name in members] for members in players.members]
    seed = int(whole.seed.generate_state(1)[0])
    message = _message("importance", seed, len(whole.model.outputs), coding, background)
    answer = worker.run(
        {**message, "features": places, "repeats": REPEATS},
        lambda asked: whole.box(_of_rows(coding)(asked)),
        _Samples,
    )
    samples = matrix_of(answer.samples, (len(places), REPEATS))
    mean, error = samples.mean(axis=1), samples.std(axis=1, ddof=1) / np.sqrt(samples.shape[1])
    half = student_quantile(0.95, samples.shape[1] - 1) * error
    order = np.argsort(-mean, kind="stable")
    return [importance_entry(players.names[i], mean[i], (mean[i] - half[i], mean[i] + half[i])) for i in order]


def _effect(worker: Worker, whole: Whole, feature: str) -> dict[str, object]:
    """ALE of a number, partial dependence of a category: over the background rows that have a value."""
    values = whole.model.background[feature]
    rows = whole.model.background
    if values.dtype != object:
        rows = take(rows, np.isfinite(values.astype(float)))
    coding = Coding.of(whole.model, rows)
    message = _message("effects", 0, len(whole.model.outputs), coding, rows)
    place = coding.features.index(feature)
    answer = worker.run(
        {**message, "features": [[place]], "categories": coding.categories()},
        lambda asked: whole.box(_of_rows(coding)(asked)),
        _Curve,
    )
    grid = matrix_of(answer.grid).reshape(-1)
    curve = matrix_of(answer.values, (len(grid), len(whole.model.outputs)))
    coded = coding.matrix(rows)[:, place]
    category = feature in coding.names
    least, most = (0, len(coding.names[feature]) - 1) if category else (-np.inf, np.inf)
    if not (
        len(grid) and np.isfinite(grid).all() and (np.diff(grid) >= 0).all() and least <= grid[0] <= grid[-1] <= most
    ):
        raise EngineAway(f"expected an ascending grid of {feature} from the engine, found another")
    counts = (
        [int((coded == value).sum()) for value in grid]
        if category
        else [0, *np.histogram(coded, grid)[0].tolist()]
        if len(grid) > 1
        else [len(coded)]
    )
    return {
        "feature": feature,
        "kind": "partial dependence" if category else "accumulated local effects",
        "grid": [coding.names[feature][int(value)] if category else float(value) for value in grid],
        "values": curve[:, whole.target].tolist(),
        "rows": counts,
    }
