"""Methods by name: from a task to one JSON-ready answer per row."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from governed_serving.blackbox.box import BlackBox
from governed_serving.blackbox.columns import Columns, Floats, take
from governed_serving.blackbox.errors import BudgetExhausted, NotExplainable, UnknownMethod
from governed_serving.explainer.attribution import Attribution
from governed_serving.explainer.game import Game, InterventionalGame, RowGame
from governed_serving.explainer.hierarchy import Node
from governed_serving.explainer.local.anchors import Outcome, find_anchor
from governed_serving.explainer.local.counterfactual import Feasible, Goal, find_counterfactuals
from governed_serving.explainer.local.lime_tabular import lime_tabular
from governed_serving.explainer.players import Players
from governed_serving.explainer.quality import fidelity
from governed_serving.explainer.scales import LOGIT, OUTPUT, probability
from governed_serving.explainer.service.closed_form import ClosedForms
from governed_serving.explainer.service.model import ExplainedModel
from governed_serving.explainer.service.protocol import Parameters
from governed_serving.explainer.service.rendering import Explanation, groups_of, interactions_of, rendered
from governed_serving.explainer.shapley.cells import MAX_PLAYERS
from governed_serving.explainer.shapley.exact import exact_shapley, planned_rows
from governed_serving.explainer.shapley.interactions import ROUNDS, interaction_rows, round_cost
from governed_serving.explainer.shapley.owen import coalitions_of, owen_rows
from governed_serving.explainer.shapley.permutation import permutation_rows
from governed_serving.explainer.shapley.sampled import Stopping, sampled_rows
from governed_serving.explainer.text.masking import RowText, lime_text, text_owen, text_shapley
from governed_serving.explainer.text.spans import NESTED

__all__ = [
    "INTERACTING",
    "LANGUAGE_METHODS",
    "METHODS",
    "OF_HIERARCHIES",
    "WITHOUT_ATTRIBUTIONS",
    "Answers",
    "Method",
    "Task",
    "method",
    "side_of",
    "tabular",
    "text_field",
]

ROW_WISE = 1e-5
"""Difference between a row's answers in two batches up to which it is single precision's rounding (relative, beyond
1)."""

STRONGEST = 50
"""Pairs in an answer where the request doesn't say how many."""

FULL_TABLE = 4096
"""Coalitions per row up to which exact values are always taken: twelve players."""


@dataclass(frozen=True)
class Task:
    """One request, ready to compute: all that a method may depend on.

    ``outputs``: the model's answers to ``rows`` in ``scale``, shape (rows, outputs); ``targets``: the output to
    explain, per row.
    """

    model: ExplainedModel
    forms: ClosedForms
    box: BlackBox
    rows: Columns
    players: Players
    parameters: Parameters
    seed: int
    max_evaluations: int
    kernel_width: float | None
    targets: list[int]
    outputs: Floats
    scale: str = OUTPUT
    hierarchy: Node | None = None
    confidence: float = 0.95

    def streams(self) -> np.random.SeedSequence:
        return np.random.SeedSequence(self.seed)

    def samples(self, least: int) -> int:
        """Rows that a method of single rows may draw: what was asked for, else at least ``least``."""
        return self.parameters.max_evaluations or max(self.max_evaluations, least)

    def game(self) -> InterventionalGame:
        return InterventionalGame(self.box, self.rows, self.model.background, self.players, self.outputs)

    def coalitions(self, least: int) -> int:
        """Most coalitions of a row that may be asked for: no more than asked for; else at least ``least``."""
        return self.parameters.max_evaluations or max(self.max_evaluations, least)

    def outcome(self) -> tuple[float | None, str]:
        """Where a single output is decided, and who says so: the manifest's threshold, else the background's median."""
        if self.outputs.shape[1] > 1:
            return None, ""
        if self.model.manifest.threshold is not None:
            return self.model.manifest.threshold, "the manifest"
        return float(np.median(self.box.at_least(self.model.background))), "the median of the background"

    @property
    def interacting(self) -> bool:
        """Whether interactions of pairs are asked for as well."""
        return bool(self.parameters.interactions)

    @property
    def strongest(self) -> int:
        """Most pairs that an answer shows, the strongest first."""
        asked = self.parameters.interactions
        return STRONGEST if asked is True else int(asked or 0)

    def row(self, index: int) -> Columns:
        return take(self.rows, slice(index, index + 1))


Answers = list[Explanation]
Method = Callable[[Task], Answers]


def shap(task: Task) -> Answers:
    """The cheapest exact way there is (trees, enumeration), else sampled with intervals; with a budget, the anytime
    form. Of a hierarchy: Owen values."""
    if task.hierarchy is not None:
        return owen(task)
    if task.scale == OUTPUT and task.forms.sums_to_output():
        try:
            return tree(task)
        except NotExplainable:  # players mix in a column, or a quantised graph differs: enumeration still can
            pass
    game = task.game()
    affordable = task.coalitions(FULL_TABLE) * game.backgrounds * game.rows
    if task.box.deadline is None and _widest(game) <= MAX_PLAYERS and planned_rows(game) <= affordable:
        return tabular(task, game, exact_shapley(game, interactions=task.interacting))
    return _sampled(task, game)


def exact(task: Task) -> Answers:
    """Shapley values by enumeration, whatever they cost (at most 14 players that differ); with a budget, the anytime
    form."""
    game = task.game()
    if task.box.deadline is not None and _widest(game) <= MAX_PLAYERS:
        return _sampled(task, game)
    return tabular(task, game, exact_shapley(game, interactions=task.interacting))


def owen(task: Task) -> Answers:
    """Owen values of the hierarchy: exact where its coalitions are few, else by orders that keep groups together."""
    root = task.hierarchy
    if root is None:
        raise NotExplainable("parameters.hierarchy: expected groups by name for Owen values, found none")
    game = task.game()
    needed = coalitions_of(root)
    coalitions = task.coalitions(needed if needed <= FULL_TABLE else 0)
    return tabular(task, game, owen_rows(game, root, coalitions, task.streams(), task.confidence))


def sampled(task: Task) -> Answers:
    """Sampled Shapley values of at most ``max_evaluations`` coalitions."""
    return _sampled(task, task.game())


def permutation(task: Task) -> Answers:
    """Shapley values by antithetic permutations; with interactions, by permutations that show all pairs."""
    game = task.game()
    if task.interacting:
        return _interacting(task, game)
    return tabular(task, game, permutation_rows(game, task.max_evaluations, task.streams(), task.confidence))


def tree(task: Task) -> Answers:
    """TreeSHAP read from the graph."""
    return _closed(task, task.forms.trees)


def linear(task: Task) -> Answers:
    """LinearSHAP read from the graph."""
    return _closed(task, task.forms.linear)


def _closed(task: Task, form: Callable[[Columns, Players, Floats, bool], list[Attribution]]) -> Answers:
    """A closed form, which is checked against what the model answers, and whose scale is what the graph makes it."""
    outputs = task.outputs if task.scale == OUTPUT else probability(task.outputs)
    attributions = form(task.rows, task.players, outputs, task.interacting)
    space = attributions[0].details["space"]
    if task.scale == LOGIT and space != "log-odds":
        raise NotExplainable(f"parameters.scale: expected output, found logit; the graph gives {space}; use 'sampled'")
    return tabular(task, task.game(), attributions)


def lime(task: Task) -> Answers:
    """LIME over the table, or over one text when ``field`` names it."""
    if task.parameters.field is not None:
        return text_lime(task)
    surrogates = lime_tabular(
        task.box,
        task.rows,
        task.model.background,
        task.players,
        samples=task.samples(5000),
        seed=task.streams(),
        kernel_width=task.kernel_width,
        confidence=task.confidence,
    )
    return tabular(task, task.game(), surrogates)


def text(task: Task) -> Answers:
    """Shapley values of the tokens, phrases or sentences of one text; Owen values of tokens within them."""
    stopping = Stopping(task.max_evaluations, task.parameters.precision, task.confidence)
    if task.parameters.level == NESTED:
        return _texts(task, lambda text, seed: text_owen(task.box, text, seed=seed, stopping=stopping))
    return _texts(task, lambda text, seed: text_shapley(task.box, text, seed=seed, stopping=stopping))


def anchors(task: Task) -> Answers:
    """The shortest rule that keeps the outcome, with the precision's interval."""
    cut, said_by = task.outcome()
    return [
        {
            "method": "anchors",
            "target": task.model.outputs[int(task.outputs[row].argmax())],
            "prediction": float(task.outputs[row].max()),
            **side_of(cut, said_by, float(task.outputs[row, 0])),
            **find_anchor(
                task.box,
                task.row(row),
                task.model.background,
                task.players,
                samples=task.samples(20_000),
                seed=stream,
                confidence=task.confidence,
                outcome=Outcome(cut),
            ).as_json(),
        }
        for row, stream in enumerate(task.streams().spawn(len(task.outputs)))
    ]


def side_of(cut: float | None, said_by: str, prediction: float) -> dict[str, object]:
    """The outcome of a predicted number, for a reader; nothing where a class is the outcome."""
    if cut is None:
        return {}
    return {"outcome": {"at_least" if prediction >= cut else "below": cut, "according_to": said_by}}


def counterfactual(task: Task) -> Answers:
    """The nearest rows that get the other outcome, protected attributes left alone."""
    answers = []
    cut, said_by = task.outcome()
    features = task.model.features
    immutable = [*dict.fromkeys([*task.model.protected, *(task.parameters.immutable or ())])]
    feasible = Feasible(
        fixed=(*immutable, *(f.name for f in features if f.type == "text" or f.about)),
        ranges={f.name: (f.min, f.max) for f in features if f.type == "numeric"},
        categories={f.name: f.categories for f in features if f.type == "categorical"},
        direction=task.parameters.direction or {},
        step=task.parameters.step or {},
    )
    for row in range(len(task.outputs)):
        wanted = _wanted(task, row)
        search = find_counterfactuals(
            task.box,
            task.row(row),
            task.model.background,
            Goal(wanted, cut),
            feasible,
            samples=task.samples(4000),
        )
        answers.append(
            {
                "method": "counterfactual",
                "target": task.model.outputs[wanted],
                "prediction": float(task.outputs[row, wanted]),
                "immutable": immutable,
                **({} if cut is None else {"outcome": {"at_least": cut, "according_to": said_by}}),
                **search.as_json(),
            }
        )
    return answers


def _wanted(task: Task, row: int) -> int:
    """The outcome to reach: as asked, else the favourable class where it wasn't given, else the runner-up."""
    if task.parameters.outcome is not None:
        return task.model.position(task.parameters.outcome, "outcome")
    if task.outputs.shape[1] == 1:
        return 0
    order = np.argsort(-task.outputs[row], kind="stable")
    favourable = task.model.manifest.favorable
    if favourable is not None and (wanted := task.model.position(favourable)) != order[0]:
        return wanted
    return int(order[1])


def _sampled(task: Task, game: InterventionalGame) -> Answers:
    parameters = task.parameters
    if task.interacting:
        return _interacting(task, game)
    widest = _widest(game)
    whole = 1 << widest if task.box.deadline is not None and widest <= MAX_PLAYERS else 0
    stopping = Stopping(task.coalitions(whole), parameters.precision, task.confidence)
    return tabular(task, game, sampled_rows(game, task.streams(), stopping))


def _interacting(task: Task, game: InterventionalGame) -> Answers:
    """Shapley values and interactions from the same coalitions, by default as many as good intervals need."""
    widest = _widest(game)
    whole = 1 << widest if widest <= MAX_PLAYERS else 0
    coalitions = task.coalitions(max(whole, ROUNDS * round_cost(widest)))
    return tabular(task, game, interaction_rows(game, coalitions, task.streams(), task.confidence))


def _widest(game: InterventionalGame) -> int:
    return int((game.code_x[:, None, :] != game.code_b[None, :, :]).any(axis=1).sum(axis=1).max(initial=0))


def tabular(task: Task, game: InterventionalGame, attributions: list[Attribution]) -> Answers:
    answers = []
    for row, given in enumerate(attributions):
        attribution, target = _among_others(given, game, row), task.targets[row]
        answer = rendered(attribution, target, task.model.outputs[target], task.players, task.row(row))
        if attribution.interactions is not None:
            answer |= interactions_of(attribution, target, answer["attributions"], task.strongest)
        if attribution.groups is not None:
            answer |= groups_of(attribution.groups, target, answer["attributions"])
        row_game = RowGame(game, row)
        _add_fidelity(answer, row_game, attribution.values[row_game.active, target], target)
        answers.append(answer)
    return answers


def _among_others(attribution: Attribution, game: InterventionalGame, row: int) -> Attribution:
    """Without exactness and without intervals where the model's answer to the row depends on the rows beside it.

    Then the games that were played are not of one function, and nothing bounds how far another batch would lead.
    """
    gap = game.batch_dependence(row)
    if gap <= ROW_WISE * max(1.0, float(np.abs(attribution.prediction).max())):
        return attribution
    unknown = np.full_like(attribution.values, np.inf)
    details = {**attribution.details, "batch_dependence": gap}
    pairs = attribution.interactions and attribution.interactions.unknown()
    groups = attribution.groups and attribution.groups.unknown()
    return replace(
        attribution, exact=False, lower=-unknown, upper=unknown, details=details, interactions=pairs, groups=groups
    )


def _texts(task: Task, explain: Callable[[RowText, np.random.SeedSequence], tuple[Attribution, Game]]) -> Answers:
    answers, field = [], text_field(task)
    for row, stream in enumerate(task.streams().spawn(len(task.outputs))):
        target = task.targets[row]
        attribution, game = explain(RowText(task.row(row), field, task.parameters.level), stream)
        answer = rendered(attribution, target, task.model.outputs[target], None, task.row(row))
        if attribution.groups is not None:
            answer |= groups_of(attribution.groups, target, answer["attributions"])
        _add_fidelity(answer, game, attribution.values[:, target], target)
        answers.append(answer)
    return answers


def _add_fidelity(answer: Explanation, game: Game, values: Floats, target: int) -> None:
    if game.size and game.box.left() > 0:
        try:
            score = fidelity(game, values, target)
        except BudgetExhausted:  # the attributions are there, only their score isn't
            return
        answer["fidelity"] = {"deletion": score.deletion, "insertion": score.insertion, "order": score.order}


def text_field(task: Task) -> str:
    """The text feature to cut: the one named, or the only one there is."""
    texts = [feature.name for feature in task.model.features if feature.dtype == "BYTES"]
    named = task.parameters.field
    if named is None:
        free = [feature.name for feature in task.model.features if feature.type == "text"]
        if len(free) == 1:
            return free[0]
        raise NotExplainable(
            f"parameters.field: expected the text to explain, one of {', '.join(texts) or 'none'}; found none"
        )
    if named not in texts:
        raise NotExplainable(
            f"parameters.field: expected a text feature ({', '.join(texts) or 'none'}), found {named!r}"
        )
    return named


def text_lime(task: Task) -> Answers:
    """LIME over the one text there is."""
    return _texts(
        task,
        lambda text, seed: lime_text(
            task.box,
            text,
            seed=seed,
            samples=task.samples(1000),
            confidence=task.confidence,
            kernel_width=task.kernel_width,
        ),
    )


METHODS: dict[str, Method] = {
    "shap": shap,
    "exact": exact,
    "sampled": sampled,
    "permutation": permutation,
    "tree": tree,
    "linear": linear,
    "owen": owen,
    "lime": lime,
    "text": text,
    "anchors": anchors,
    "counterfactual": counterfactual,
}


INTERACTING = frozenset({shap, exact, sampled, permutation, tree, linear})
"""Methods that give interactions of pairs where they are asked for."""

OF_HIERARCHIES = frozenset({shap, owen})
"""Methods that take a hierarchy of players."""

WITHOUT_ATTRIBUTIONS = frozenset({"anchors", "counterfactual"})
"""Methods whose answers are rules and rows, the same in every scale."""


LANGUAGE_METHODS: dict[str, Method] = {"shap": text, "text": text, "lime": text_lime}
"""Of a language model's prompt: there is no background, hence no method of tables."""


def method(name: str, among: Mapping[str, Method] = METHODS) -> Method:
    """The method called ``name``. Raises :class:`UnknownMethod`."""
    if name not in among:
        raise UnknownMethod(f"parameters.method: expected one of {', '.join(sorted(among))}, found {name!r}")
    return among[name]
