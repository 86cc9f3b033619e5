"""captum as an engine: gradients of a network that was trained here, its dense layers rebuilt in torch.

Of features the first layer sees numbers in standard deviations, categories as indicators, texts as the mean of their
embeddings: there lines are straight and gradients are taken, and a player has the sum over its columns. What the
rebuilt network answers is held against what the model answered.
"""

import functools
import math
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec
import numpy as np

from governed_serving.blackbox.columns import Floats
from governed_serving.blackbox.errors import EngineAway, NotExplainable
from governed_serving.explainer.attribution import Attribution
from governed_serving.explainer.engines.worker import Asked, Bounds, Ended, Matrix, Worker, matrix_of, message_of
from governed_serving.explainer.graph.layers import Layers, read_layers
from governed_serving.explainer.graph.reading import Graph
from governed_serving.explainer.scales import LOGIT, probability
from governed_serving.explainer.service.closed_form import AGREEMENT
from governed_serving.explainer.service.methods import Answers, Method, Task, tabular
from governed_serving.explainer.service.model import ExplainedModel
from governed_serving.explainer.service.rendering import rendered

__all__ = ["GRADIENT_METHODS", "captum_methods", "captum_worker"]

LICENCE = "BSD-3-Clause"
PROGRAM = Path(__file__).with_name("captum_worker.py")

ADDITIVE = ("integratedGradients", "deepLift")
"""Methods whose attributions sum to what the row's answer has over the mean answer to the background."""

GRADIENT_METHODS = (*ADDITIVE, "saliency", "inputXGradient")

PRECISION = 1e-3
"""Share of what is to be explained that a sum of integrated gradients may miss, where no other is asked for."""

SHARE = 0.8
"""Of the time left that a path may take to be refined; the rest is for its answer."""


def captum_worker(python: Path, bounds: Bounds = Bounds(), ended: Callable[[Ended], None] = lambda _: None) -> Worker:
    """The worker of an environment that has captum, once it has greeted. Raises EngineAway, saying how to make one."""
    worker = Worker(python, PROGRAM, bounds, ended)
    try:
        worker.start()
    except EngineAway as error:
        raise EngineAway(
            f"explainer.engine captum: {error}. Take an environment with torch, the trainer's for example (E/bin/pip "
            "install captum==0.9.0), and set GOVERNED_CAPTUM_PYTHON to E/bin/python"
        ) from None
    return worker


def captum_methods(worker: Worker, model: ExplainedModel) -> dict[str, Method]:
    """The methods that captum computes of ``model``, by their names. Raises NotExplainable for a model whose graph
    holds no network of ours."""
    if model.manifest.graph is not None:
        raise NotExplainable(
            "explainer.engine captum: expected a network that was trained here, found an import; leave engine out"
        )
    names = dict(zip(model.manifest.inputs, (feature.name for feature in model.features), strict=False))
    try:
        layers = read_layers(Graph(model.onnx, names), model.output)
    except NotExplainable as error:
        raise NotExplainable(f"explainer.engine captum: {error}; leave engine out, or train without int8") from None
    return {name: functools.partial(_gradients, worker, layers, name) for name in GRADIENT_METHODS}


class _Values(msgspec.Struct):
    """``values`` and their standard ``errors`` (rows × outputs, players), ``prediction`` (rows, outputs), ``base``
    (1, outputs): what the network answers, and its mean answer to the background. ``steps``: points of a path,
    ``stopped``: why no more, ``gradients``: how many were taken."""

    values: Matrix
    errors: Matrix
    prediction: Matrix
    base: Matrix
    steps: int
    gradients: int
    stopped: str

    def read(self, rows: int, outputs: int, players: int) -> tuple[Floats, Floats, Floats, Floats]:
        """(rows, players, outputs) twice, (rows, outputs), (outputs,). Raises EngineAway for what is none."""
        shape = (rows * outputs, players)
        matrices = [matrix_of(self.values, shape), matrix_of(self.errors, shape)]
        matrices += [matrix_of(self.prediction, (rows, outputs)), matrix_of(self.base, (1, outputs)).reshape(-1)]
        if not all(np.isfinite(part).all() for part in matrices):
            raise EngineAway("expected finite values from the engine, found others")
        if not (0 < self.steps < 1 << 31 and 0 <= self.gradients < 1 << 53):
            raise EngineAway("expected counts of steps and gradients from the engine, found others")
        if self.stopped not in ("residual", "evaluations", "budget", "done"):
            raise EngineAway("expected why the engine stopped, found another word")
        values, errors = (part.reshape(rows, outputs, players).transpose(0, 2, 1) for part in matrices[:2])
        return values, errors, matrices[2], matrices[3]


def _gradients(worker: Worker, layers: Layers, method: str, task: Task) -> Answers:
    """Attributions of each row to its players; of saliency and inputXGradient without what sums would say."""
    if method == "deepLift" and layers.softmax and task.scale != LOGIT:
        raise NotExplainable(
            "parameters.scale: expected logit with deepLift, found output; captum normalises probabilities over all "
            "rows at once, so that a row's values would depend on the rows beside it"
        )
    owners = layers.owners(task.model.background, task.players)
    answer = worker.run(_message(layers, method, task, owners.tolist()), _nothing, _Values, task.box.left())
    values, errors, prediction, base = answer.read(len(task.outputs), task.outputs.shape[1], len(task.players))
    residual = _agreed(task, prediction)
    unknown = np.full_like(values[0], np.inf)
    several = len(task.model.background[task.model.features[0].name]) > 1 and method in ADDITIVE
    attributions = [
        Attribution(
            method=method,
            names=task.players.names,
            values=values[row],
            lower=-unknown,
            upper=unknown,
            base=base,
            prediction=prediction[row],
            evaluations=0,
            coalitions=answer.steps,
            background_error=errors[row] if several else None,
            details={
                "stopped": answer.stopped,
                "gradients": answer.gradients,
                "network_residual": float(residual[row]),
            },
        )
        for row in range(len(values))
    ]
    answers = tabular(task, task.game(), attributions) if method in ADDITIVE else _plain(task, attributions)
    engine = worker.signature("captum", LICENCE)
    return [{**told, "engine": engine} for told in answers]


def _plain(task: Task, attributions: list[Attribution]) -> Answers:
    """Answers whose values don't sum to anything: neither base value nor residual, and nothing to be faithful to."""
    answers = []
    for row, attribution in enumerate(attributions):
        target = task.targets[row]
        answer = rendered(attribution, target, task.model.outputs[target], task.players, task.row(row))
        del answer["base_value"], answer["additivity_residual"]
        answers.append(answer)
    return answers


def _message(layers: Layers, method: str, task: Task, owners: list[int]) -> Mapping[str, object]:
    left = task.box.left()
    return {
        "method": method,
        "weights": [message_of(weights) for weights, _ in layers.layers],
        "biases": [message_of(bias.reshape(1, -1)) for _, bias in layers.layers],
        "softmax": layers.softmax,
        "logit": task.scale == LOGIT,
        "rows": message_of(layers.columns(task.rows)),
        "background": message_of(layers.columns(task.model.background)),
        "owners": owners,
        "players": len(task.players),
        "steps": task.max_evaluations,
        "precision": task.parameters.precision or PRECISION,
        "seconds": SHARE * left if math.isfinite(left) else None,
    }


def _agreed(task: Task, prediction: Floats) -> Floats:
    """Largest difference of each row's answer by the network as rebuilt from the one that was served, shape (rows,).
    Raises NotExplainable where it is no rounding."""
    served, rebuilt = task.outputs, prediction
    if task.scale == LOGIT:  # saturated odds differ where probabilities don't
        served, rebuilt = probability(served), probability(rebuilt)
    residual: Floats = np.abs(rebuilt - served).max(axis=1)
    if residual.max() > AGREEMENT * max(1.0, float(np.abs(served).max())):
        raise NotExplainable(
            f"explainer.engine captum: the network as read from the graph answers {residual.max():.3g} besides what "
            "the model answered; leave engine out"
        )
    return residual


def _nothing(_: Asked) -> Floats:
    raise EngineAway("expected no question about a network from the engine, found one")
