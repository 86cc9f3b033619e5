"""A made-up request's whole way: the codec of the Open Inference Protocol, batching, the predictor, the journal."""

import msgspec
import numpy as np

from governed_api.json_types import Json
from governed_serving.artefact import MalformedArtefact
from governed_serving.records import decode_frame, encode_frame
from governed_serving.server.batch import Batch, BatchPlan, PendingRequest
from governed_serving.server.errors import ServerError
from governed_serving.server.identity import Identity
from governed_serving.server.messages import InferResponse
from governed_serving.server.predictors.onnx import OnnxPredictor
from governed_serving.server.protocol.v2 import V2Codec
from governed_serving.server.recording import PredictionRecorder
from governed_serving.server.request_batch import RequestBatch

__all__ = ["answered"]

TOGETHER = 3
"""Requests that share a call, where requests are merged."""
TEXT = "text"
"""In a made-up request: an empty one is a missing value, which a column of categories may not take."""


def answered(predictor: OnnxPredictor) -> None:
    """Raises MalformedArtefact where a request isn't answered, or differently beside others than alone."""
    alone = _asked(predictor, 1)
    together = _asked(predictor, TOGETHER) if predictor.merges else alone
    for answer in together:
        if _bits(answer) != _bits(alone[0]):
            raise MalformedArtefact(
                "ONNX file: expected the same answer to the same request alone and beside others, found another one; "
                "is there anything random in the graph?"
            )


def _asked(predictor: OnnxPredictor, requests: int) -> list[InferResponse]:
    signature = predictor.signature
    codec = V2Codec(signature, "trial", "")
    body = _body(predictor)
    try:
        items = [PendingRequest(codec.decode(body)[0], lambda _: None, 0, False) for _ in range(requests)]
        for place, item in enumerate(items):
            item.request.id, item.over = f"trial-{place}", False
        plan = BatchPlan(signature, None, PredictionRecorder(signature, Identity("trial", "default", "", "")))
        batch = (RequestBatch if signature.whole else Batch)(plan, items)
        batch.finish(predictor.answer(batch.columns()))
        decode_frame(encode_frame(batch.frame()))
        answers = [response for _, response in batch.responses("")]
        for answer in answers:
            codec.encode(answer)
    except (ServerError, ValueError, TypeError, msgspec.MsgspecError) as error:
        raise MalformedArtefact(f"ONNX file: expected an answer to a made-up request, found: {error}") from error
    return answers


def _body(predictor: OnnxPredictor) -> bytes:
    tensors: list[dict[str, Json]] = []
    for spec, column in zip(predictor.signature.inputs, predictor.example(), strict=True):
        data = [TEXT] * column.size if spec.textual else np.asarray(column).ravel().tolist()
        tensors.append({"name": spec.name, "shape": list(column.shape), "datatype": spec.dtype, "data": data})
    return msgspec.json.encode({"inputs": tensors})


def _bits(answer: InferResponse) -> list[tuple[list[int], str]]:
    return [(output.shape, repr(output.values)) for output in answer.outputs]
