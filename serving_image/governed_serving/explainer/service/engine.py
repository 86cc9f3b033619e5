"""From a parsed request to the answer that goes out: choice of method, budget, provenance. No transport here."""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import msgspec
import numpy as np

from governed_api.governance import Explainer
from governed_serving.blackbox.box import BlackBox
from governed_serving.blackbox.columns import Floats, Predict
from governed_serving.blackbox.errors import NotExplainable
from governed_serving.explainer.hierarchy import hierarchy_of
from governed_serving.explainer.scales import LOGIT, OUTPUT, logit
from governed_serving.explainer.service.closed_form import ClosedForms
from governed_serving.explainer.service.methods import (
    INTERACTING,
    METHODS,
    OF_HIERARCHIES,
    WITHOUT_ATTRIBUTIONS,
    Method,
    Task,
    method,
)
from governed_serving.explainer.service.model import ExplainedModel, explainer_code
from governed_serving.explainer.service.protocol import MAX_INTERACTIONS, Answer, ExplainRequest, Parameters
from governed_serving.explainer.shapley.interactions import MAX_INTERACTING

__all__ = ["Engine"]

MAX_CELLS = 1 << 21
"""Interactions that one request may have computed, over its rows and the model's outputs."""

MAX_ROWS_PER_CALL = 512
"""Rows in one call to the model server, and so between two looks at the clock: while requests come, rows have a
twentieth of a core."""


@dataclass(frozen=True)
class Limits:
    """Rows in one call to the model, and the ``budget`` (milliseconds) where neither the request nor the spec sets one;
    None: no budget."""

    rows_per_call: int = MAX_ROWS_PER_CALL
    budget: float | None = None


class Engine:
    """Pure but for the black box: the same request on the same model, background and code gives the same bytes.

    ``predict`` answers columns with output columns; ``costly`` says that it goes over a wire; ``methods`` are those
    that fit the model.
    """

    def __init__(
        self,
        model: ExplainedModel,
        predict: Predict,
        config: Explainer,
        *,
        costly: bool = True,
        limits: Limits = Limits(),
        methods: Mapping[str, Method] = METHODS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.model, self.config = model, config
        self._forms = ClosedForms(model)
        self._predict, self._costly, self._max_rows, self._clock = predict, costly, limits.rows_per_call, clock
        self._methods, self._budget = methods, config.config.budget_milliseconds or limits.budget

    def explain(self, request: ExplainRequest) -> Answer:
        """The answer's JSON. Raises :class:`governed_serving.blackbox.errors.ExplainerError`."""
        request = msgspec.structs.replace(request, parameters=self._in_force(request.parameters))
        task = self._task(request)
        name = request.parameters.method or self.config.type
        compute = method(name, self._methods)
        if task.hierarchy is not None and (compute not in OF_HIERARCHIES or task.interacting):
            beside = "interactions" if task.interacting else name
            raise NotExplainable(f"parameters.hierarchy: expected none beside {beside}; shap or owen alone take one")
        if task.interacting:
            self._check_interactions(name, compute, task)
        answers = compute(task)
        for answer in answers:
            answer["seed"] = request.seed
            if task.scale != OUTPUT:
                answer["scale"] = task.scale
        return {
            "model_name": self.model.manifest.name,
            "id": request.id,
            "explanations": answers,
            "parameters": self._parameters(request, task, name),
            "digests": self.digests(),
            "evaluations": task.box.rows,
            "calls": task.box.calls,
        }

    def digests(self) -> dict[str, str]:
        """What the answer rests on."""
        return {"model": self.model.digest, "background": self.model.background_digest, "code": explainer_code()}

    def box(self, budget: float | None, scale: str = OUTPUT) -> BlackBox:
        """A fresh count of the model's evaluations, in ``scale``; ``budget`` in milliseconds."""
        return BlackBox(
            self._predict if scale == OUTPUT else lambda columns: logit(np.asarray(self._predict(columns), np.float64)),
            max_rows=self._max_rows,
            costly=self._costly,
            deadline=None if budget is None else self._clock() + budget / 1000,
            clock=self._clock,
        )

    def _in_force(self, asked: Parameters) -> Parameters:
        """A request's parameters, with those of the manifest that its method knows where it has none. What the manifest
        says of counterfactuals binds. Raises NotExplainable."""
        config, name = self.config.config, asked.method or self.config.type
        compute = method(name, self._methods)
        told: dict[str, object] = {"confidence": config.confidence, "precision": config.precision}
        attributes = name not in WITHOUT_ATTRIBUTIONS
        if self.model.manifest.task == "classification" and len(self.model.outputs) > 1 and attributes:
            told["scale"] = config.scale if config.scale != OUTPUT else None
        if asked.hierarchy is None and compute in INTERACTING:
            told["interactions"] = config.interactions or None
        if compute in OF_HIERARCHIES and not asked.interactions and asked.groups is None:
            told["hierarchy"] = config.hierarchy or None
        chosen = {key: value for key, value in told.items() if getattr(asked, key) is None}
        if name == "counterfactual":
            chosen |= self._constraints(asked)
        return msgspec.structs.replace(asked, **chosen)

    def _constraints(self, asked: Parameters) -> dict[str, object]:
        """What counterfactuals may not change: the manifest's and the request's. Raises NotExplainable."""
        config, kinds = self.config.config, {f.name: f.type for f in self.model.features}
        immutable = [*dict.fromkeys([*config.immutable, *(asked.immutable or ())])]
        direction, step = {**(asked.direction or {}), **config.direction}, {**(asked.step or {}), **config.step}
        for field, declared, own in (("direction", direction, asked.direction), ("step", step, asked.step)):
            if strange := [n for n in declared if kinds.get(n) != "numeric"]:
                raise NotExplainable(f"{field}: expected numeric features of the model, found {strange[0]!r}")
            if other := [n for n, value in (own or {}).items() if declared[n] != value]:
                raise NotExplainable(
                    f"parameters.{field}: the manifest has another one for {other[0]!r}, which binds; leave it out"
                )
        if unknown := [n for n in immutable if n not in kinds]:
            raise NotExplainable(f"immutable: the model has no feature {unknown[0]!r}; it has {', '.join(kinds)}")
        return {"immutable": immutable or None, "direction": direction or None, "step": step or None}

    def check(self) -> None:
        """Whether what the manifest declares fits the model. Raises NotExplainable."""
        if declared := self.config.config.hierarchy:
            hierarchy_of(self.model.players(None).names, declared)
        self._constraints(Parameters())

    def _task(self, request: ExplainRequest) -> Task:
        parameters = request.parameters
        budget = self._budget if parameters.budget_milliseconds is None else parameters.budget_milliseconds
        scale = self._scale(parameters.scale or OUTPUT, request.parameters.method or self.config.type)
        box = self.box(budget, scale)
        outputs = box.at_least(request.columns)
        players = self.model.players(parameters.groups)
        declared = parameters.hierarchy
        return Task(
            model=self.model,
            forms=self._forms,
            box=box,
            rows=request.columns,
            players=players,
            parameters=parameters,
            seed=request.seed,
            confidence=self.config.config.confidence if parameters.confidence is None else parameters.confidence,
            max_evaluations=parameters.max_evaluations or self.config.config.max_evaluations,
            kernel_width=parameters.kernel_width or self.config.config.kernel_width,
            targets=self._targets(request, outputs),
            outputs=outputs,
            scale=scale,
            hierarchy=hierarchy_of(players.names, declared) if declared else None,
        )

    def interacts(self) -> bool:
        """Whether attributions of the default method can have interactions of pairs."""
        players = len(self.model.players(None))
        return self._methods.get("shap") in INTERACTING and 2 <= players <= MAX_INTERACTING

    def _check_interactions(self, name: str, compute: Method, task: Task) -> None:
        if compute not in INTERACTING:
            raise NotExplainable(
                f"parameters.interactions: expected none, found {task.parameters.interactions}; {name} gives none "
                "here; of a table, shap, exact, permutation, tree and linear do"
            )
        pairs = math.comb(len(task.players), 2)
        if pairs > MAX_INTERACTIONS:
            raise NotExplainable(
                f"parameters.interactions: expected at most {MAX_INTERACTIONS} pairs of players, found {pairs} of "
                f"{len(task.players)} players; group features"
            )
        if (cells := pairs * task.outputs.size) > MAX_CELLS:
            raise NotExplainable(
                f"parameters.interactions: expected at most {MAX_CELLS} pairs × rows × classes, found {cells}; ask for "
                "fewer rows at a time"
            )

    def _scale(self, scale: str, name: str) -> str:
        if scale == LOGIT and (self.model.manifest.task != "classification" or len(self.model.outputs) < 2):
            raise NotExplainable("parameters.scale: expected output, found logit; this model gives no probabilities")
        if scale == LOGIT and name in WITHOUT_ATTRIBUTIONS:
            raise NotExplainable(f"parameters.scale: expected none, found logit; {name} attributes nothing")
        return scale

    def _targets(self, request: ExplainRequest, outputs: Floats) -> list[int]:
        """Output column per row: as asked, else the favourable class, else the predicted one."""
        asked = request.parameters.target
        if asked is None and outputs.shape[1] > 1:
            asked = self.model.manifest.favorable
        if asked is not None:
            return [self.model.position(asked)] * len(outputs)
        return [int(index) for index in outputs.argmax(axis=1)]

    def _parameters(self, request: ExplainRequest, task: Task, name: str) -> dict[str, object]:
        """The parameters in force, defaults filled in: with the id and the rows, all that a replay needs."""
        asked = {k: v for k, v in msgspec.to_builtins(request.parameters).items() if v is not None and k != "webhook"}
        return {**asked, "method": name, "maxEvaluations": task.max_evaluations, "seed": request.seed}
