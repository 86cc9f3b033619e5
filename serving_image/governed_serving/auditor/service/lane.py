"""The live model as counterfactuals ask it: rows → favourable or not, over the server's internal low-priority lane."""

from collections.abc import Callable

import httpx
import msgspec
import numpy as np
from numpy.typing import NDArray

from governed_api.governance import Bias
from governed_serving.artefact import Manifest
from governed_serving.blackbox.client import PredictorClient
from governed_serving.blackbox.errors import ExplainerError, ModelMisbehaved
from governed_serving.completions.generated import Asked, choice_text, searcher
from governed_serving.decoding import decode_json
from governed_serving.fairness.monitoring.counterfactuals import Decide
from governed_serving.pod_token import PodToken

__all__ = ["LANE_ERRORS", "Ask", "Runtime", "decider"]

Ask = Callable[[Asked], bool]
"""A request → whether the answer favours; raises ExplainerError when the runtime doesn't answer."""

LANE_ERRORS = (ExplainerError, httpx.HTTPError)


def decider(url: str, model: str, bias: Bias, manifest: Manifest, token: PodToken | None = None) -> Decide | None:
    """None where the manifest doesn't say which class is favourable. The function raises ExplainerError when the model
    doesn't answer."""
    outcome = bias.favorable_outcome
    classes = [str(c) for c in manifest.classes]
    if outcome.threshold is None and outcome.label not in classes:
        return None
    output = "prediction" if outcome.threshold is not None else "probabilities"
    client = PredictorClient(url, model, output, patience=2.0, token=token)

    def decide(columns: dict[str, NDArray[np.generic]]) -> NDArray[np.bool_]:
        answers = client(columns)
        if outcome.threshold is not None:
            return np.asarray(answers[:, 0] >= outcome.threshold)
        return np.asarray(answers.argmax(1) == classes.index(str(outcome.label)))

    return decide


class Runtime:
    """A runtime that generates text, over the lane. ``pattern`` (RE2): which text favours; ``timeout`` in seconds is
    for one answer.

    Safe to use from several threads.
    """

    def __init__(self, url: str, model: str, pattern: str, *, timeout: float, token: PodToken | None = None) -> None:
        http = httpx.Client(timeout=httpx.Timeout(timeout + 5, connect=2.0), trust_env=False)
        self._client = PredictorClient(url, model, "", patience=2.0, client=http, token=token)
        self._model = model
        self.favors = searcher(pattern)

    def text(self, asked: Asked) -> str:
        """What it answers. Raises ExplainerError when it doesn't."""
        try:
            choices = decode_json(self._client.json(asked.path, {**asked.body, "model": self._model}))["choices"]
            return choice_text(choices[0], reasoning=False)
        except (msgspec.DecodeError, ValueError, LookupError, TypeError, AttributeError) as error:
            raise ModelMisbehaved(
                f"expected an OpenAI answer with a choice from the runtime, found {type(error).__name__}: {error}"
            ) from error

    def ask(self, asked: Asked) -> bool:
        """Whether what it answers favours. Raises ExplainerError."""
        return self.favors(self.text(asked))
