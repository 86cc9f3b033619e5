"""What may be said of how an explanation is computed: the one table of its options, by name.

The manifest (``spec.explainer.config``) and a request's ``parameters`` write a name in camel case, Python in
snake case, ``governed explain`` in kebab case: the same words. A test holds all of them, OpenAPI and README to it.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from pydantic.alias_generators import to_camel

from governed_api.json_types import Json

__all__ = ["FORMER_NAMES", "OPTIONS", "Option", "request_schema"]

FORMER_NAMES: Mapping[str, str] = {"max_evaluations": "maxEvaluations", "budget_ms": "budgetMilliseconds"}
"""Of options in requests, still taken: records of older revisions hold them."""

_NUMBER: Json = {"type": "number"}
_WHOLE: Json = {"type": "integer"}
_TEXT: Json = {"type": "string"}
_TEXTS: Json = {"type": "array", "items": {"type": "string"}}
_CLASS: Json = {"oneOf": [{"type": "string"}, {"type": "integer"}]}
_GROUPS: Json = {"type": "object", "additionalProperties": _TEXTS}


@dataclass(frozen=True)
class Option:
    """``schema`` of its value in a request; ``not_in``: where it can't be said (``manifest``, ``request``,
    ``command``), with the reason; ``former_flags``: of the command, still taken."""

    schema: Json
    meaning: str
    not_in: tuple[tuple[str, str], ...] = ()
    former_flags: tuple[str, ...] = ()

    def within(self, place: str) -> bool:
        return place not in dict(self.not_in)


_OF_A_ROW = (("manifest", "it is said of a row, not of a model"),)

OPTIONS: Mapping[str, Option] = {
    "method": Option(_TEXT, "Explanation method; default: the manifest's.", (("manifest", "there it is type"),)),
    "target": Option(_CLASS, "Class whose score is explained; default: the favourable, else the predicted.", _OF_A_ROW),
    "outcome": Option(_CLASS, "Class that a counterfactual should reach.", _OF_A_ROW),
    "field": Option(_TEXT, "Text feature that is explained by its parts.", _OF_A_ROW),
    "level": Option(_TEXT, "Parts of a text: token, phrase, sentence or nested.", _OF_A_ROW),
    "max_evaluations": Option(
        _WHOLE, "Coalitions of a sampled method; samples of lime, anchors, counterfactual.", (), ("--evaluations",)
    ),
    "budget_milliseconds": Option(_NUMBER, "The best answer so far comes after them.", (), ("--budget",)),
    "precision": Option(_NUMBER, "Stop once half-widths are below this share of the range."),
    "confidence": Option(_NUMBER, "Of the intervals; default: 0.95."),
    "seed": Option(_WHOLE, "Repeats a sampled explanation number by number.", _OF_A_ROW),
    "groups": Option(_GROUPS, "Features explained as one, by a name.", (), ("--group",)),
    "hierarchy": Option(_GROUPS, "Features, groups or other groups that belong together: Owen values."),
    "interactions": Option(
        {"oneOf": [{"type": "boolean"}, {"type": "integer"}]}, "Interactions of pairs of features, or how many of them."
    ),
    "scale": Option(_TEXT, "output, or logit where probabilities are saturated."),
    "kernel_width": Option(_NUMBER, "Of lime; default: 0.75 × √features."),
    "immutable": Option(_TEXTS, "Features that a counterfactual leaves alone, beside the manifest's."),
    "direction": Option(
        {"type": "object", "additionalProperties": {"enum": ["increase", "decrease"]}},
        "Numeric feature → the only way in which a counterfactual may move it.",
    ),
    "step": Option(
        {"type": "object", "additionalProperties": {"type": "number"}},
        "Numeric feature → a counterfactual moves it by multiples of this.",
    ),
    "webhook": Option(
        _TEXT,
        "URL that the explanation of a job is posted to, under one of explainer.webhooks.",
        (("manifest", "there are the prefixes that it must lie under"), ("command", "it waits for the answer itself")),
    ),
    "background_rows": Option(
        _WHOLE,
        "Rows of the background sample.",
        (
            ("request", "answers must compare with one background, whose digest they give"),
            ("command", "as of a request"),
        ),
    ),
}
"""Python's name → the option."""


def request_schema() -> dict[str, Json]:
    """JSON Schema of a request's ``parameters``, for OpenAPI."""
    told: dict[str, Json] = {}
    for name, option in OPTIONS.items():
        if option.within("request"):
            assert isinstance(option.schema, dict)
            told[to_camel(name)] = {**option.schema, "description": option.meaning}
    return {"type": "object", "properties": told}
