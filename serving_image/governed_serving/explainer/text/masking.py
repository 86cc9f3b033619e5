"""The game whose players are the spans of one text; the other features stay as they are."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from governed_serving.blackbox.box import BlackBox
from governed_serving.blackbox.columns import Columns, Floats, repeat
from governed_serving.blackbox.errors import BudgetExhausted, NotExplainable
from governed_serving.explainer.attribution import Attribution, GroupValues
from governed_serving.explainer.local.ridge import weighted_ridge
from governed_serving.explainer.shapley.exact import exact_table
from governed_serving.explainer.shapley.gaussian import fit_gaussian
from governed_serving.explainer.shapley.owen import OwenValues, owen_values
from governed_serving.explainer.shapley.sampled import Estimator, Stopping, sampled_shapley
from governed_serving.explainer.text.spans import NESTED, Spans, cut, nested, render

__all__ = ["RowText", "TextGame", "lime_text", "text_owen", "text_shapley"]

EXACT_SPANS = 10
LIME_KERNEL_WIDTH = 25.0


@dataclass(frozen=True)
class RowText:
    """One text to explain: feature ``field`` of ``row``, which holds one row. ``level``: what it is cut into (token,
    phrase, sentence)."""

    row: Columns
    field: str
    level: str = "token"

    def __str__(self) -> str:
        return str(self.row[self.field][0])


class TextGame:
    """``v(S)`` is the model's answer when only the spans in S stand. Equal texts are asked for once."""

    def __init__(self, box: BlackBox, text: RowText, spans: Spans) -> None:
        if not len(spans):
            raise NotExplainable(f"{text.field}: expected text to explain, found none")
        self.box, self.text, self.spans = box, text, spans
        self._known: dict[str, Floats] = {}

    @property
    def size(self) -> int:
        return len(self.spans)

    def values(self, masks: NDArray[np.bool_]) -> Floats:
        """masks (coalitions, spans) → (coalitions, outputs)."""
        return self._answers(masks, self.box)

    def _answers(self, masks: NDArray[np.bool_], ask: Callable[[Columns], Floats]) -> Floats:
        texts = render(self.spans, masks).tolist()
        new = [text for text in dict.fromkeys(texts) if text not in self._known]
        if new:
            column = np.empty(len(new), object)
            column[:] = new
            answers = ask({**repeat(self.text.row, len(new)), self.text.field: column})
            self._known.update(zip(new, answers, strict=True))
        return np.array([self._known[text] for text in texts])

    def ends(self) -> tuple[Floats, Floats]:
        """``v(∅)`` and ``v(N)``, shape (outputs,) each, whatever the time left."""
        both = self._answers(np.array([[False] * self.size, [True] * self.size]), self.box.at_least)
        return both[0], both[1]


def text_shapley(
    box: BlackBox,
    text: RowText,
    *,
    seed: np.random.SeedSequence,
    stopping: Stopping,
    estimator: Estimator = fit_gaussian,
) -> tuple[Attribution, TextGame]:
    """Shapley values of a text's spans: exact up to ten, else sampled with intervals. ``details`` holds the spans'
    offsets."""
    before = box.rows
    spans = cut(str(text), text.level, most=max(2, stopping.coalitions // 4))
    game = TextGame(box, text, spans)
    base, prediction = game.ends()
    half: Floats = np.zeros((game.size, len(base)))
    coalitions, stopped, exact = 1 << min(game.size, EXACT_SPANS), "complete", True
    at_once = box.deadline is None or game.size < 2  # against a clock, exactness is reached in rounds
    if at_once and game.size <= EXACT_SPANS and coalitions <= stopping.coalitions:
        values = exact_table(game)[0]
    else:
        sampled = sampled_shapley(game, prediction - base, seed, stopping, estimator)
        values, half, coalitions, stopped, exact = (
            sampled.values,
            sampled.half_width,
            sampled.coalitions,
            sampled.stopped,
            sampled.exact,
        )
    attribution = Attribution(
        method="text",
        names=tuple(spans.words()),
        values=values,
        lower=values - half,
        upper=values + half,
        base=base,
        prediction=prediction,
        evaluations=box.rows - before,
        coalitions=coalitions,
        confidence=stopping.confidence,
        exact=exact,
        details={**_said_of(text.field, text.level, spans), "stopped": stopped},
    )
    return attribution, game


def text_owen(
    box: BlackBox, text: RowText, *, seed: np.random.SeedSequence, stopping: Stopping
) -> tuple[Attribution, TextGame]:
    """Owen values of a text's tokens within its phrases and sentences, which have values of their own, whatever its
    ``level``."""
    before = box.rows
    spans, root = nested(str(text), most=max(2, stopping.coalitions // 4))
    game = TextGame(box, text, spans)
    base, prediction = game.ends()
    if game.size > 1:
        owen = owen_values(game, (base, prediction), root, stopping.coalitions, seed, stopping.confidence)
    else:
        none = np.zeros((0, len(base)))
        whole: Floats = (prediction - base)[None]
        owen = OwenValues(whole, np.zeros_like(whole), 2, "complete", True, none, none)
    attribution = Attribution(
        method="text",
        names=tuple(spans.words()),
        values=owen.values,
        lower=owen.values - owen.half_width,
        upper=owen.values + owen.half_width,
        base=base,
        prediction=prediction,
        evaluations=box.rows - before,
        coalitions=owen.coalitions,
        confidence=stopping.confidence,
        exact=owen.exact,
        details={**_said_of(text.field, NESTED, spans), "stopped": owen.stopped},
        groups=GroupValues(root, owen.groups, owen.groups - owen.groups_half, owen.groups + owen.groups_half),
    )
    return attribution, game


def lime_text(
    box: BlackBox,
    text: RowText,
    *,
    seed: np.random.SeedSequence,
    samples: int,
    confidence: float = 0.95,
    kernel_width: float | None = None,
) -> tuple[Attribution, TextGame]:
    """LIME for text with the lime library's sampling, cosine kernel and ridge penalty, and intervals beside."""
    before = box.rows
    spans = cut(str(text), text.level)
    game = TextGame(box, text, spans)
    masks = _removals(len(spans), samples, np.random.default_rng(seed))
    outputs = _as_far(game, masks)
    masks = masks[: len(outputs)]
    distance = 100 * (1 - np.sqrt(masks.mean(axis=1)))
    weight = np.sqrt(np.exp(-(distance**2) / (kernel_width or LIME_KERNEL_WIDTH) ** 2))
    fit = weighted_ridge(masks.astype(float), outputs, weight, 1.0)
    half = fit.half_width(confidence)
    attribution = Attribution(
        method="lime",
        names=tuple(spans.words()),
        values=fit.coefficients,
        lower=fit.coefficients - half,
        upper=fit.coefficients + half,
        base=fit.intercept,
        prediction=outputs[0],
        evaluations=box.rows - before,
        coalitions=len(outputs),
        confidence=confidence,
        details={
            **_said_of(text.field, text.level, spans),
            "score": [float(s) for s in fit.score],
            "stopped": "evaluations" if len(outputs) == samples else "budget",
        },
    )
    return attribution, game


def _said_of(field: str, level: str, spans: Spans) -> dict[str, object]:
    return {"field": field, "level": level, "spans": [list(edge) for edge in spans.edges]}


def _as_far(game: TextGame, masks: NDArray[np.bool_]) -> Floats:
    """Answers to as many leading masks as a deadline allows for, at least to the first, which leaves the text whole."""
    outputs = [game.ends()[1][None]]
    for start in range(1, len(masks), game.box.max_rows):
        try:
            outputs.append(game.values(masks[start : start + game.box.max_rows]))
        except BudgetExhausted:
            break
    return np.concatenate(outputs)


def _removals(size: int, samples: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """The whole text first; then a number of spans, uniform over 1…size, is removed at random."""
    removed = rng.integers(1, size + 1, samples)
    removed[0] = 0
    rank = np.argsort(np.argsort(rng.random((samples, size)), axis=1), axis=1)
    masks: NDArray[np.bool_] = rank >= removed[:, None]
    return masks
