"""The live model as counterfactuals ask it: rows → favourable or not, over the server's internal low-priority lane."""

from typing import Any

import httpx
import numpy as np
from numpy.typing import NDArray

from governed_api.governance import Bias
from governed_serving.artefact import Manifest
from governed_serving.auditor.counterfactuals import Decide
from governed_serving.explainer.errors import ExplainerError
from governed_serving.explainer.service.predictor import PredictorClient

__all__ = ["LANE_ERRORS", "decider"]

LANE_ERRORS = (ExplainerError, httpx.HTTPError)


def decider(url: str, model: str, bias: Bias, manifest: Manifest) -> Decide | None:
    """None where the manifest doesn't say which class is favourable. The function raises ExplainerError when the model doesn't answer."""
    outcome = bias.favorable_outcome
    classes = [str(c) for c in manifest.classes]
    if outcome.threshold is None and outcome.label not in classes:
        return None
    client = PredictorClient(
        url, model, "prediction" if outcome.threshold is not None else "probabilities", patience=2.0
    )

    def decide(columns: dict[str, NDArray[Any]]) -> NDArray[np.bool_]:
        found = client(columns)
        if outcome.threshold is not None:
            return np.asarray(found[:, 0] >= outcome.threshold)
        return np.asarray(found.argmax(1) == classes.index(str(outcome.label)))

    return decide
