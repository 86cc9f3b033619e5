"""Who may call a model."""

from typing import Literal

from governed_api.base import Part

__all__ = ["Access"]


class Access(Part):
    """Whether callers must say who they are. Who may call is said by ModelConsumers."""

    authentication: Literal["Off", "Required"]
    """Required: every port of the model's pods refuses whom no ModelConsumer names (401) or gives no role for the route
    (403); probes excepted. "Off" (in quotes: YAML reads the bare word as false): whoever reaches a port may use it."""

    @property
    def required(self) -> bool:
        """Callers must say who they are."""
        return self.authentication == "Required"
