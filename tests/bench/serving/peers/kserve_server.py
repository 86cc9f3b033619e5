"""KServe 0.21's Python server with the least that a custom model needs; access and latency logs off."""

import logging
import sys

import numpy as np
import onnxruntime
from kserve import InferOutput, InferRequest, InferResponse, Model, ModelServer

port, mixed, single = sys.argv[1:]


class Credit(Model):
    def __init__(self) -> None:
        super().__init__("credit")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.mixed = onnxruntime.InferenceSession(mixed, options, providers=["CPUExecutionProvider"])
        self.single = onnxruntime.InferenceSession(single, options, providers=["CPUExecutionProvider"])
        self.ready = True

    def predict(self, payload: InferRequest, *_: object, **__: object) -> InferResponse:
        tensors = payload.inputs
        session = self.single if len(tensors) == 1 else self.mixed
        feeds = {
            t.name: np.array(t.data, object if t.datatype == "BYTES" else np.float32).reshape(t.shape) for t in tensors
        }
        scores, label = session.run(None, feeds)
        outputs = [
            InferOutput("probabilities", list(scores.shape), "FP32", scores.ravel().tolist()),
            InferOutput("label", list(label.shape), "BYTES", label.tolist()),
        ]
        return InferResponse(payload.id, "credit", outputs)


logging.disable(logging.INFO)
ModelServer(
    http_port=int(port),
    workers=1,
    enable_grpc=False,
    enable_docs_url=False,
    enable_latency_logging=False,
    access_log_format=None,
).start([Credit()])
