"""MLServer 1.7.1 with the least that a custom runtime needs."""

import os

import numpy as np
import onnxruntime
from mlserver import MLModel
from mlserver.types import InferenceRequest, InferenceResponse, ResponseOutput


class Credit(MLModel):
    async def load(self) -> bool:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.mixed = onnxruntime.InferenceSession(os.environ["MIXED"], options, providers=["CPUExecutionProvider"])
        self.single = onnxruntime.InferenceSession(os.environ["SINGLE"], options, providers=["CPUExecutionProvider"])
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        tensors = payload.inputs
        session = self.single if len(tensors) == 1 else self.mixed
        feeds = {
            t.name: np.array(t.data.root, object if t.datatype == "BYTES" else np.float32).reshape(t.shape)
            for t in tensors
        }
        scores, label = session.run(None, feeds)
        outputs = [
            ResponseOutput(
                name="probabilities", shape=list(scores.shape), datatype="FP32", data=scores.ravel().tolist()
            ),
            ResponseOutput(name="label", shape=list(label.shape), datatype="BYTES", data=label.tolist()),
        ]
        return InferenceResponse(model_name="credit", id=payload.id, outputs=outputs)
