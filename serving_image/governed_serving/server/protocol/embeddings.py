"""OpenAI's POST /v1/embeddings over a model of texts: a body to a request for rows, its answer to a body."""

import base64
from typing import Literal, NamedTuple

import msgspec
import numpy as np

from governed_api.json_types import Json
from governed_serving.artefact import TOKENS_READ
from governed_serving.server.errors import InvalidRequest, NotFound
from governed_serving.server.messages import InferRequest, InferResponse
from governed_serving.server.predictors.text import MOST_TEXTS
from governed_serving.server.protocol.json_errors import decode_object
from governed_serving.server.protocol.tensors import values_of
from governed_serving.server.signature import Input, Signature, Values

__all__ = ["EMBEDDING", "EmbeddingsCodec", "Wanted"]

EMBEDDING = "embedding"
"""The output that is answered."""


class Wanted(NamedTuple):
    """A request, and the form of its vectors."""

    request: InferRequest
    encoding: Literal["float", "base64"]


class EmbeddingsCodec:
    """Translates for one model, ``model`` by name."""

    def __init__(self, signature: Signature, model: str) -> None:
        self._signature, self._model = signature, model
        self._width = next((spec.width for spec in signature.outputs if spec.name == EMBEDDING), 0)

    def decode(self, body: bytes) -> Wanted:
        """Raises InvalidRequest, NotFound (another model, or one that gives no embeddings)."""
        if self._signature.text is None or not self._width:
            raise NotFound(
                f"model {self._model!r}: expected a model of texts that gives embeddings, found another kind; "
                "ask it by the V2 protocol"
            )
        message = decode_object(body, "an OpenAI request for embeddings")
        if message.get("model", self._model) != self._model:
            raise NotFound(
                f"model {str(message['model'])[:200]!r}: expected {self._model!r}, the one served here; correct it or "
                "leave it out"
            )
        if message.get("dimensions", self._width) not in (None, self._width):
            raise InvalidRequest(f"dimensions: expected {self._width}, as the model has, found another number")
        encoding = message.get("encoding_format") or "float"
        if encoding not in ("float", "base64"):
            raise InvalidRequest("encoding_format: expected float or base64, found something else")
        texts = _texts(message.get("input"))
        columns: list[Values] = [
            texts if k == 0 else _said(spec, message.get("metadata"), len(texts))
            for k, spec in enumerate(self._signature.inputs)
        ]
        request = InferRequest("", len(texts), columns, size=len(body))
        return Wanted(request, "base64" if encoding == "base64" else "float")

    def encode(self, response: InferResponse, wanted: Wanted) -> bytes:
        """OpenAI's answer; ``usage`` counts the tokens that the model read."""
        outputs = {output.spec.name: output for output in response.outputs}
        vectors, tokens = outputs[EMBEDDING], sum(int(str(count)) for count in outputs[TOKENS_READ].values)
        matrix = np.array(vectors.values, np.float32).reshape(vectors.rows, self._width)
        packed = wanted.encoding == "base64"
        shown = [_base64(row.astype("<f4").tobytes()) for row in matrix] if packed else matrix.tolist()
        return msgspec.json.encode(
            {
                "object": "list",
                "data": [{"object": "embedding", "index": k, "embedding": vector} for k, vector in enumerate(shown)],
                "model": self._model,
                "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
            }
        )


def _texts(given: Json) -> list[str]:
    """Raises InvalidRequest."""
    texts: Json = [given] if isinstance(given, str) else given
    if not isinstance(texts, list) or not 1 <= len(texts) <= MOST_TEXTS:
        count = f"{len(texts)}" if isinstance(texts, list) else type(texts).__name__
        raise InvalidRequest(f"input: expected a string, or 1 to {MOST_TEXTS} strings, found {count}")
    strings: list[str] = []
    for place, text in enumerate(texts):
        if not isinstance(text, str):
            raise InvalidRequest(
                f"input[{place}]: expected a string, found {type(text).__name__}; token ids can't be masked: send text"
            )
        strings.append(text)
    return strings


def _said(spec: Input, metadata: Json, rows: int) -> Values:
    """An attribute of the request, for each of its rows. Raises InvalidRequest."""
    value = metadata.get(spec.name) if isinstance(metadata, dict) else None
    if value is None or isinstance(value, list | dict):
        raise InvalidRequest(f"metadata.{spec.name}: expected whom the request is about, found nothing")
    return values_of(spec.name, spec.textual, spec.dtype, [value] * rows)


def _base64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()
