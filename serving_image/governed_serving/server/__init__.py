"""The gateway and model server of one model; see README.md."""

from governed_serving.server.dataplane import DataPlane, Identity
from governed_serving.server.errors import ServerError
from governed_serving.server.messages import ExplainRequest, InferRequest, InferResponse
from governed_serving.server.predictors import Predictor

__all__ = ["DataPlane", "ExplainRequest", "Identity", "InferRequest", "InferResponse", "Predictor", "ServerError"]
