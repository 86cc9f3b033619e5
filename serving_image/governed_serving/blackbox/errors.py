"""What can go wrong in an explanation; the service translates each to one HTTP status."""

__all__ = [
    "BudgetExhausted",
    "EngineAway",
    "ExplainerError",
    "ModelMisbehaved",
    "NotExplainable",
    "PredictorAway",
    "UnknownMethod",
]


class ExplainerError(Exception):
    """Root of the explainer's errors."""


class NotExplainable(ExplainerError):
    """The request names features, targets or parameters that this model doesn't have (HTTP 400)."""


class UnknownMethod(NotExplainable):
    """No such method, or not one for this kind of model (HTTP 400)."""


class ModelMisbehaved(ExplainerError):
    """The model answered with another shape than asked for, or with NaN or infinity (HTTP 502)."""


class PredictorAway(ExplainerError):
    """The model server could not be reached or is not ready (HTTP 503)."""


class EngineAway(ExplainerError):
    """The process of another's engine can't be started, ended, or said nothing for too long (HTTP 503)."""


class BudgetExhausted(ExplainerError):
    """The latency budget ended before even a first answer was possible (HTTP 504)."""
