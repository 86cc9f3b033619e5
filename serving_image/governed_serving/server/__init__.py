"""The gateway and model server of one model; see README.md."""

from governed_serving.server.dataplane import DataPlane
from governed_serving.server.errors import ServerError
from governed_serving.server.identity import Identity
from governed_serving.server.messages import ExplainRequest, InferRequest, InferResponse
from governed_serving.server.pipeline import Pipeline
from governed_serving.server.predictors import Predictor

__all__ = [
    "DataPlane",
    "ExplainRequest",
    "Identity",
    "InferRequest",
    "InferResponse",
    "Pipeline",
    "Predictor",
    "ServerError",
]
