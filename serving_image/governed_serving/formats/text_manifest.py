"""model.json of a folder with a tokenizer."""

from collections.abc import Sequence

from governed_serving.artefact import TOKENS_READ, TOKENS_TRUNCATED, Feature, Lineage, Manifest, Output
from governed_serving.formats.text_folder import TEXT_INPUT
from governed_serving.formats.trial_process import TextAnswer

__all__ = ["text_manifest"]


def text_manifest(name: str, answer: TextAnswer, attributes: Sequence[Feature], lineage: Lineage) -> Manifest:
    """``attributes``: of a request, which the graph isn't given: whom it is about."""
    features = [Feature(TEXT_INPUT, "text", "BYTES"), *attributes]
    main = {
        "classification": [Output("probabilities", "FP32", [-1, answer.width]), Output("label", "BYTES", [-1])],
        "regression": [Output("prediction", "FP32", [-1])],
        "embedding": [Output("embedding", "FP32", [-1, answer.width])],
    }[answer.task]
    return Manifest(
        name=name,
        task="tensors" if answer.task == "embedding" else answer.task,
        features=features,
        inputs=[feature.name for feature in features],
        outputs=[*main, *(Output(count, "INT32", [-1]) for count in (TOKENS_READ, TOKENS_TRUNCATED))],
        label={"classification": "label", "regression": "prediction"}.get(answer.task, ""),
        variant="float",
        lineage=lineage,
        files={},
        classes=[*answer.classes],
        settings={"imported": True},
        text=answer.text,
    )
