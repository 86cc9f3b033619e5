"""The predictor of an artefact: of columns, or of texts where it has a tokenizer."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from governed_serving.artefact import Artefact, MalformedArtefact
from governed_serving.artefact.package import COIN_KEY, TOKENIZER
from governed_serving.crypto import Coins, CryptoError
from governed_serving.server.predictors.onnx import OnnxPredictor, segmented
from governed_serving.server.predictors.text import TextPredictor
from governed_serving.server.signature import Signature

__all__ = ["predictor_of"]


def predictor_of(
    artefact: Artefact,
    *,
    threads: int,
    seconds: float = float("inf"),
    segmented: Callable[[NDArray[np.generic], str], NDArray[np.generic]] = segmented,
) -> OnnxPredictor:
    """``seconds``: what a call for texts may take. Raises ArtefactError, ValueError."""
    signature = Signature.of(artefact.manifest)
    if signature.text is None:
        held, coins = artefact.background(), _coins(artefact)
        return OnnxPredictor(artefact.model, signature, threads=threads, segmented=segmented, held=held, coins=coins)
    tokenizer = artefact.content(TOKENIZER)
    if tokenizer is None:
        raise MalformedArtefact(f"artefact: expected {TOKENIZER} beside a model of texts, found none")
    return TextPredictor(artefact.model, tokenizer, signature, threads=threads, seconds=seconds)


def _coins(artefact: Artefact) -> Coins | None:
    """Draws of a model whose graph takes some. Raises MalformedArtefact for an artefact without their key."""
    if artefact.manifest.coin is None:
        return None
    subject = artefact.manifest.coin.subject
    try:
        place = artefact.manifest.inputs.index(subject) if subject else None
        return Coins(artefact.content(COIN_KEY) or b"", place)
    except (CryptoError, ValueError) as error:
        raise MalformedArtefact(f"artefact: expected the key and the input of its draws, found: {error}") from error
