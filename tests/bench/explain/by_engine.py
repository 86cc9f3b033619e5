"""Samples explained by each engine through its service, in one table: the same rows, asked of `governed run`, or of a
service that stands already (a port-forward to a cluster, say). Beside each value stands what enumeration gives."""

import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import yaml
from by_load import SAMPLES, Model
from table import show

sys.path.insert(0, str(Path(__file__).parents[2]))

from governed_api.runtime import CAPTUM_PYTHON
from support.model_ports import free_offset

Row = dict[str, Any]
"""A feature's value by its name."""
ENGINES: dict[str, Row] = {
    "ours": {},
    "alibi": {"engine": "alibi", "acceptLicence": "BSL-1.1"},
    "captum": {"engine": "captum", "type": "integratedGradients"},
}
AT: dict[str, str] = {}
"""Engine → base URL of a service of the first sample that is asked instead of one that is started here."""


@dataclass(frozen=True)
class Way:
    """A method of an engine, in a scale; ``additive``: its values sum to the answer's distance from the base."""

    engine: str
    method: str
    scale: str = "output"
    additive: bool = True
    evaluations: int | None = None

    @property
    def name(self) -> str:
        return self.method + (f" ({self.evaluations})" if self.evaluations else "")

    def parameters(self) -> Row:
        bound = {"maxEvaluations": self.evaluations} if self.evaluations else {}
        return {"method": self.method, "seed": 1, "scale": self.scale, **bound}


WAYS = (
    Way("ours", "exact"),
    Way("ours", "shap"),
    Way("ours", "sampled", evaluations=256),
    Way("ours", "lime", additive=False),
    Way("alibi", "shap", evaluations=256),
    Way("alibi", "shap"),
    Way("captum", "integratedGradients"),
    Way("captum", "inputXGradient", additive=False),
    Way("captum", "saliency", additive=False),
    Way("ours", "exact", "logit"),
    Way("ours", "sampled", "logit", evaluations=256),
    Way("captum", "integratedGradients", "logit"),
    Way("captum", "deepLift", "logit"),
)
ANCHORS = ("ours", "alibi")


@dataclass(frozen=True)
class Sample:
    """A model and the rows that are asked of it."""

    name: str
    rows: tuple[Row, ...]
    training: int | None = None
    """Rows of its generator."""

    def manifest(self, engine: str) -> Row:
        """Of a network in floating point, which each engine can read, of features without free texts."""
        manifest: Row = yaml.safe_load((SAMPLES / f"{self.name}.yaml").read_text())
        manifest["metadata"].pop("annotations", None)
        spec = manifest["spec"]
        training = spec["lifecycle"]["training"]
        training["data"]["features"] = [f for f in training["data"]["features"] if f.get("type") != "text"]
        if self.training:
            training["data"]["generator"]["rows"], training["loop"]["epochs"] = self.training, 4
        spec["lifecycle"].pop("gates"), spec["lifecycle"].pop("compression")
        spec["governance"].pop("privacy", None), spec["governance"].pop("supervision", None)
        spec["explainer"] = ENGINES[engine] | {"config": {"backgroundRows": 50}}
        return manifest


def _applicants(*places: int) -> tuple[Row, ...]:
    known = json.loads((SAMPLES / "credit.requests.json").read_text())["instances"]
    return tuple({n: v for n, v in known[place].items() if n not in ("note", "contact")} for place in places)


ADMISSIONS = tuple(
    {"department": department, "sex": sex}
    for department, sex in (("A", "male"), ("A", "female"), ("C", "female"), ("F", "male"))
)
TABLES = [Sample("admissions", ADMISSIONS), Sample("credit", _applicants(0, 1, 2), 4000)]


def measure(alibi_python: str) -> None:
    captum = CAPTUM_PYTHON in os.environ or find_spec("captum") is not None
    there = {"ours": True, "alibi": bool(alibi_python), "captum": captum}
    engines = [name for name in ENGINES if name in AT or (not AT and there[name])]
    for sample in TABLES[:1] if AT else TABLES:
        _measured(sample, engines, alibi_python)
    if missing := [name for name in ENGINES if name not in engines]:
        print(f"not asked: {', '.join(missing)} (--alibi-python, {CAPTUM_PYTHON} or --at ENGINE=URL)")


def _measured(sample: Sample, engines: Sequence[str], alibi_python: str) -> None:
    answers: dict[tuple[Way, int], tuple[Row, float]] = {}
    rules = []
    with tempfile.TemporaryDirectory() as folder:
        for engine in engines:
            model = None if engine in AT else _started(sample, engine, Path(folder, engine), alibi_python)
            asking = Asking(AT.get(engine) or f"http://127.0.0.1:{8080 + model.offset}", sample)
            try:
                for place in range(len(sample.rows)):
                    for way in (way for way in WAYS if way.engine == engine):
                        answers[way, place] = asking.explained(place, way.parameters())
                    if engine in ANCHORS:
                        rules.append([engine, place, *_anchor(*asking.explained(place, {"method": "anchors"}))])
            finally:
                if model is not None:
                    model.stop()
    _show_values(sample, answers)
    show(
        f"Anchors of the sample {sample.name}, by engine, through the service",
        ["engine", "row", "outcome", "rule", "precision", "coverage", "evaluations", "ms"],
        sorted(rules, key=lambda row: row[1]),
    )


def _show_values(sample: Sample, answers: dict[tuple[Way, int], tuple[Row, float]]) -> None:
    rows, about = [], {}
    for (way, place), (found, took) in sorted(answers.items(), key=lambda one: (one[0][1], WAYS.index(one[0][0]))):
        engine = found.get("engine", {"name": "ours", "licence": "ours"})
        about[engine["name"]] = ", ".join(f"{k} {v}" for k, v in engine.items() if k not in ("name", "program"))
        truth = answers.get((Way("ours", "exact", way.scale), place))
        rows.append(
            [
                f"{way.engine} {way.name}",
                way.scale,
                place,
                _strongest(found),
                found["additivity_residual"] if way.additive else "-",
                *(_agreement(found, truth[0], additive=way.additive) if truth else ("-", "-")),
                _width(found),
                found["evaluations"],
                took,
            ]
        )
    show(
        f"The sample {sample.name} explained by each engine, through the service",
        [
            "engine, method (most evaluations)", "scale", "row", "strongest", "residual", "off exact by", "order", "±",
            "evaluations", "ms",
        ],
        rows,
        "off exact by: the largest difference from enumerated Shapley values; order: Spearman's rank correlation of "
        "sizes with theirs; ±: half the widest interval. Gradients along paths aim at Aumann-Shapley values, which are "
        f"others. {'; '.join(f'{name}: {what}' for name, what in about.items())}",
    )  # fmt: skip


def _shares(found: Row) -> dict[str, float]:
    return {one["feature"]: float(one["attribution"]) for one in found["attributions"]}


def _strongest(found: Row) -> str:
    ordered = sorted(_shares(found).items(), key=lambda one: -abs(one[1]))
    return " ".join(f"{name} {value:+.3f}" for name, value in ordered[:2])


def _agreement(found: Row, truth: Row, *, additive: bool) -> tuple[float | str, float]:
    """The largest difference, of what aims at the same sum; and the rank correlation of sizes."""
    own, other = _shares(found), _shares(truth)
    values = np.array([[own[name], other[name]] for name in other])
    ranks = np.abs(values).round(9).argsort(0, kind="stable").argsort(0, kind="stable")
    order = float(np.corrcoef(ranks.T)[0, 1])
    return float(np.abs(values[:, 0] - values[:, 1]).max()) if additive else "-", order


def _width(found: Row) -> float | str:
    ends = [(one.get("lower"), one.get("upper")) for one in found["attributions"]]
    known = [(upper - lower) / 2 for lower, upper in ends if lower is not None and upper is not None]
    return max(known) if len(known) == len(ends) else "-"


def _started(sample: Sample, engine: str, folder: Path, alibi_python: str) -> Model:
    os.environ["GOVERNED_ALIBI_PYTHON"] = alibi_python
    os.environ.setdefault(CAPTUM_PYTHON, sys.executable)
    model = Model(engine, folder, free_offset())
    model.start(sample.manifest(engine))
    try:
        model.wait(1200)  # training, beside whatever else the machine does
    except BaseException:
        model.stop()
        raise
    return model


@dataclass(frozen=True)
class Asking:
    """A service of ``sample`` at a base ``url``."""

    url: str
    sample: Sample

    def explained(self, place: int, parameters: Row) -> tuple[Row, float]:
        """The explanation of a row and its milliseconds, once the service is warm. Raises RuntimeError where the same
        question is answered otherwise."""
        inputs = [
            {"name": name, "shape": [1, 1], "datatype": "BYTES" if isinstance(v, str) else "FP32", "data": [v]}
            for name, v in self.sample.rows[place].items()
        ]
        name = "-".join(str(part) for part in (*parameters.values(), place))
        body = {"id": name, "inputs": inputs, "parameters": {"seed": 1, **parameters}}
        path = f"{self.url}/v2/models/{self.sample.name}/explain"
        with httpx.Client(timeout=300, trust_env=False) as client:
            self._asked(client, path, {**body, "id": f"warm-{name}"})
            began = time.perf_counter()
            (found,) = self._asked(client, path, body)
            took = (time.perf_counter() - began) * 1000
            again = self._asked(client, path, body)
        if again != [found]:
            raise RuntimeError(f"expected the same explanation of {name} again: {found}, found {again}")
        return found, took

    def _asked(self, client: httpx.Client, path: str, body: Row) -> list[Row]:
        answer = client.post(path, json=body)
        if answer.status_code != 200:
            raise RuntimeError(f"expected an explanation for {body['id']}, found {answer.status_code}: {answer.text}")
        explanations: list[Row] = answer.json()["explanations"]
        return explanations


def _anchor(found: Row, took: float) -> list[Any]:
    rule = " and ".join(one.get("rule") or _conditions(one["conditions"]) for one in found["anchor"]) or "(always)"
    return [found["target"], rule, found["precision"], found["coverage"], found["evaluations"], took]


def _conditions(conditions: Row) -> str:
    return " and ".join(f"{name} {how} {value}" for name, given in conditions.items() for how, value in given.items())


def make_small() -> None:
    """One row of the first sample."""
    TABLES[:] = [replace(TABLES[0], rows=ADMISSIONS[:1])]
