"""Gates: each measures the compressed model against the uncompressed one and a budget of the manifest."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from onnxruntime import InferenceSession

from governed_api.evidence import AppliedMitigation, FittedThresholds
from governed_api.governance import Bias
from governed_api.lifecycle import Gates
from governed_api.report import GateResult
from governed_serving.artefact import Independence, covering, row_independence
from governed_serving.fairness.inference.intervals import Interval
from governed_serving.fairness.metrics.metrics import LEAST_REFERENCE, LEAST_SHARE
from governed_serving.trainer.audit import favorable
from governed_serving.trainer.changes import AttributeChange, attribute_changes, correctness_change
from governed_serving.trainer.dataset import Dataset
from governed_serving.trainer.errors import listed
from governed_serving.trainer.evaluation import Predictions, headline, importances, latencies, predict, spearman
from governed_serving.trainer.preprocessing import feeds, session
from governed_serving.trainer.thresholds import Drawn

Running = Callable[[InferenceSession], InferenceSession | Drawn]
Verdict = Literal["pass", "fail", "not applicable"]
LATENCY, OPTIMIZATION, ROWS = "latency", "optimization", "rowIndependence"
LARGE_WEIGHT = 10.0
"""Of a training row, over the mean, from which on it is said."""
MOST_TOLD = 8
"""Groups that a line of the table speaks of."""
INDEPENDENCE_ROWS = 64
"""Held-out rows that are asked alone and in company: a seeded sample that holds as many categories as it can."""


def at_most(name: str, measured: float, budget: float, message: str) -> GateResult:
    """Passes when ``measured`` ≤ ``budget``."""
    return _gate(name, measured, budget, "pass" if measured <= budget else "fail", message)


def at_least(name: str, measured: float, budget: float, message: str) -> GateResult:
    """Passes when ``measured`` ≥ ``budget``."""
    return _gate(name, measured, budget, "pass" if measured >= budget else "fail", message)


def _gate(name: str, measured: float | None, budget: float | None, verdict: Verdict, message: str) -> GateResult:
    return GateResult(name=name, measured=measured, budget=budget, verdict=verdict, message=message)


@dataclass(frozen=True)
class Candidates:
    """Serialised models before and after compression, the held-out rows, and how the server will run them."""

    before: bytes
    after: bytes
    rows: Dataset
    level: str
    threads: int
    seed: int


def judge(candidates: Candidates, gates: Gates, bias: Bias | None) -> list[GateResult]:
    """The gate table of a compression; what it costs is measured on the same rows before and after."""
    c = candidates
    before, after = (session(model, c.level, c.threads) for model in (c.before, c.after))
    predicted = predict(before, c.rows), predict(after, c.rows)
    figures = [headline(p, c.rows.label) for p in predicted]
    figure = "accuracy" if c.rows.classes else "R²"
    text = f"{figure} {figures[0]:.4f} before, {figures[1]:.4f} after compression"
    if c.rows.classes:
        text += f"; drop on the same rows in {_shown(correctness_change(*predicted, c.rows))}"
    table = [at_most("accuracy", figures[0] - figures[1], gates.max_accuracy_drop, text)]
    if bias is not None:
        table += [
            disparity(name, change, gates.max_disparity_increase)
            for name, change in attribute_changes(bias, c.rows, *predicted).items()
        ]
    ranked = [np.array(list(importances(s, c.rows, c.seed).values())) for s in (before, after)]
    text = "Spearman rank correlation of mean |attribution| before and after compression"
    table.append(at_least("explanation", spearman(*ranked), gates.min_explanation_correlation, text))
    table.append(own_rows(before, after, c))
    slow, quick = latencies([before, after], c.rows)
    text = f"one row on this node: {slow * 1e6:.0f} µs before, {quick * 1e6:.0f} µs after compression"
    table.append(at_most(LATENCY, quick / slow, gates.max_latency_ratio, text))
    return table


def own_rows(before: InferenceSession, after: InferenceSession, c: Candidates) -> GateResult:
    """Whether the compressed model answers a row by that row alone; the uncompressed one is told beside it.

    Rounding passes: the server sees it when it loads the model, and computes each row of such a model alone.
    """
    inputs = feeds(c.rows)
    chosen = covering(list(inputs.values()), INDEPENDENCE_ROWS, c.seed)
    columns = [column[chosen] for column in inputs.values()]

    def found(running: InferenceSession) -> Independence:
        def run(values: list[NDArray[np.generic]]) -> list[NDArray[np.generic]]:
            return list(running.run(None, dict(zip(inputs, values, strict=True))))

        return row_independence(run, columns, seed=c.seed)

    plain, small = found(before), found(after)
    text = "answers that differ from the same row's asked alone: "
    text += f"{_moved(plain)} before, {_moved(small)} after compression"
    return at_most(ROWS, float(small.material), 0.0, f"{text} ({small.first})" if small.first else text)


def _moved(independence: Independence) -> str:
    rounding = independence.different - independence.material
    return f"{independence.material} of {independence.rows} and {rounding} in rounding"


def disparity(name: str, change: AttributeChange, budget: float) -> GateResult:
    """Fails when a group with support got farther from the reference, on either side, by more than ``budget``.

    The estimate decides; where the interval of the change doesn't rule out more than the budget, a pass says so.
    """
    few = f"not judged (fewer than {LEAST_REFERENCE} rows or {LEAST_SHARE:.0%}): {listed(change.unsupported)}"
    worst = change.worst
    if worst is None:
        text = f"no group by {name} has enough held-out rows beside the reference; {few}"
        return _gate(f"disparity/{name}", None, budget, "not applicable", text)
    text = f"{name}={worst.group}: SPD {worst.before:+.4f} before, {worst.after:+.4f} after compression, "
    text += f"change on the same rows in {_shown(worst.interval)}"
    if worst.harm <= budget < change.limit:
        text += f"; within the budget, but not shown: up to {change.limit:.4f} farther from 0 is possible"
    if change.unsupported:
        text += f"; {few}"
    return at_most(f"disparity/{name}", worst.harm, budget, text)


def mitigation(bias: Bias, rows: Dataset, before: Predictions, after: Predictions) -> list[GateResult]:
    """What mitigation costs and changes on the same held-out rows: no budget, the manifest asked for it. Where it is by
    thresholds, also of those alone who deserve the favourable outcome, and of the others."""
    figures = [headline(p, rows.label) for p in (before, after)]
    text = f"accuracy {figures[0]:.4f} without, {figures[1]:.4f} with mitigation; "
    text += f"drop on the same rows in {_shown(correctness_change(before, after, rows))}"
    table = [_gate("mitigation/accuracy", figures[0] - figures[1], None, "not applicable", text)]
    table += _disparities(bias, rows, before, after)
    if after.drawn is not None:
        deserved = favorable(bias, rows.label, rows.classes)
        for event, chosen in (("truePositiveRate", deserved), ("falsePositiveRate", ~deserved)):
            if chosen.any():
                part = rows.at(np.flatnonzero(chosen))
                table += _disparities(bias, part, before.at(chosen), after.at(chosen), event)
    return table


def _disparities(
    bias: Bias, rows: Dataset, before: Predictions, after: Predictions, rate: str = ""
) -> list[GateResult]:
    """A line for each protected attribute; ``rate``: what selection is of ``rows``, "": the selection rate."""
    table, word = [], f"difference of {rate}" if rate else "SPD"
    for name, change in attribute_changes(bias, rows, before, after).items():
        told = [
            f"{group.group}: {word} {group.before:+.4f} without, {group.after:+.4f} with mitigation, change in "
            f"{_shown(group.interval)}"
            for group in change.judged[:MOST_TOLD]
        ]
        largest = max((abs(group.after) - abs(group.before) for group in change.judged), default=None)
        text = "; ".join(told) or "no group has enough held-out rows beside the reference"
        place = f"mitigation/{name}/{rate}" if rate else f"mitigation/{name}"
        table.append(_gate(place, largest, None, "not applicable", text))
    return table


def constraint(applied: AppliedMitigation) -> GateResult:
    """What mitigation came to; a constraint that wasn't reached holds nothing back."""
    name = "mitigation/effect"
    if applied.thresholds is not None:
        return _gate(name, None, None, "not applicable", _drawn(applied.thresholds, applied.left_out))
    if applied.max_disparity is None:
        text = "label and protected attributes are independent in the training rows as they are: nothing was changed"
        if applied.effect:
            text = "rows of each group and label weigh what makes them independent"
            if (most := applied.largest_weight or 0.0) > LARGE_WEIGHT:
                text += f"; a row weighs up to {most:.0f} times the mean, so that few rows decide much: "
                text += "bring more like them"
        return _gate(name, None, None, "not applicable", text)
    step, tried = applied.steps[applied.shipped], len(applied.steps) - 1
    text = f"largest |rate of a group − rate of all| {step.training:.4f} on training rows, {step.validation:.4f} on "
    text += "validation rows: "
    if applied.effect:
        text += f"network {applied.shipped} of {tried} ships"
    elif applied.reached:
        text += "within the constraint without mitigation, nothing was changed"
    else:
        text += f"none of {tried} networks came nearer than the one without mitigation, which ships"
    if not applied.reached:
        text += "; raise iterations or maxDisparity, or bring more rows"
    if applied.left_out:
        text += f"; too few rows for a constraint: {listed(applied.left_out)}"
    return at_most(name, max(step.training, step.validation), applied.max_disparity, text)


def _drawn(told: FittedThresholds, left_out: list[str]) -> str:
    """What randomised thresholds come to on held-out rows."""
    by = f"input {told.subject}" if told.subject else "all of the row, so that rows that are alike share a draw"
    text = f"thresholds of {len(told.groups)} groups, fitted on {told.rows} rows that nothing else uses; on held-out "
    text += f"rows {told.held_out_drawn} decisions are drawn (by {by}), {told.held_out_base} are by the model's own "
    text += f"threshold; accuracy over all draws {told.held_out_accuracy:.4f}"
    if left_out:
        text += f"; too few rows for thresholds: {listed(left_out)}"
    return text


def _shown(interval: Interval) -> str:
    return f"[{interval.lower:+.4f}, {interval.upper:+.4f}]"


def optimisation(
    model: bytes, rows: Dataset, level: str, threads: int, running: Running = lambda session: session
) -> tuple[GateResult, float]:
    """What graph optimisation G(θ) brings on this node (no budget: the level is the manifest's), and seconds a row
    takes. ``running``: how a session is run."""
    sessions = [running(session(model, at, threads)) for at in ("none", level)]
    plain, optimised = latencies(sessions, rows, runs=150)
    text = f"one row on this node: {plain * 1e6:.0f} µs as exported, {optimised * 1e6:.0f} µs at level {level}"
    return _gate(OPTIMIZATION, optimised / plain, None, "not applicable", text), optimised


def reproducible(table: list[GateResult]) -> list[GateResult]:
    """The table without what a clock measured, for the artefact, whose digest must not depend on the machine's mood."""
    quiet = {"measured": None, "message": "measured on the node: see the ledger's gates entry"}
    clocked = (LATENCY, OPTIMIZATION)
    return [gate.model_copy(update=quiet) if gate.name in clocked else gate for gate in table]
