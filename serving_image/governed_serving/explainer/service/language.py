"""Explaining a runtime's completions: what stands in for the artefact, how the runtime is asked, which journalled
completions are sampled."""

import hashlib

import msgspec
import numpy as np

from governed_api.model import Runtime
from governed_serving.artefact import Feature, Lineage, Manifest, Output
from governed_serving.blackbox.columns import Columns
from governed_serving.completions.conversation import last_spoken
from governed_serving.explainer.service.live import chosen
from governed_serving.explainer.service.model import ExplainedModel
from governed_serving.explainer.text.completion import FEATURES
from governed_serving.journal import strings
from governed_serving.records import PredictionFrame

__all__ = ["MAX_ROWS_PER_CALL", "completions_in", "language_model"]

MAX_ROWS_PER_CALL = 1
"""Prompts between two looks at the clock: each costs a pass of the language model, of seconds when it is long."""

OUTPUT = "log_probability"


def language_model(name: str, runtime: Runtime) -> ExplainedModel:
    """A model of one text, without background; its digest is that of the runtime's spec (image, command, arguments,
    model)."""
    identity = msgspec.json.encode(runtime.plain(), order="deterministic")
    manifest = Manifest(
        name=name,
        task="regression",
        features=[Feature(feature, "text" if feature == "prompt" else "categorical", "BYTES") for feature in FEATURES],
        inputs=[],
        outputs=[Output(OUTPUT, "FP64", [-1])],
        label=OUTPUT,
        variant="float",
        lineage=Lineage("", "", "", {}),
        files={},
    )
    return ExplainedModel(manifest, f"sha256:{hashlib.sha256(identity).hexdigest()}", b"", {})


def completions_in(frame: PredictionFrame, share: float) -> list[tuple[str, Columns, int]]:
    """As :func:`governed_serving.explainer.service.live.requests_in`, of completions that were generated to their
    end."""
    if "state" not in frame.outputs:
        return []
    completions: list[tuple[str, Columns, int]] = []
    states, said, asked = (
        strings(column) for column in (frame.outputs["state"], frame.outputs["completion"], frame.features["prompt"])
    )
    for index, request_id in enumerate(frame.ids):
        if states[index] != "complete" or not said[index] or not chosen(request_id, share):
            continue
        spoken = last_spoken(str(asked[index]))
        if spoken is not None:
            completions.append((request_id, _row(spoken.text, spoken.messages, str(said[index])), 0))
    return completions


def _row(prompt: str, messages: str, completion: str) -> Columns:
    texts = zip(FEATURES, (prompt, completion, messages), strict=True)
    return {name: np.array([text], object) for name, text in texts}
