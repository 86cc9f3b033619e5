"""What computes: ONNX Runtime in this process, or a foreign runtime over HTTP. The same governance lies above both."""

from governed_serving.server.predictors.protocol import Columns, Outputs, Predictor

__all__ = ["Columns", "Outputs", "Predictor"]
