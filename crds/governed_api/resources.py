"""Container resources and what else is passed on to pods."""

from typing import ClassVar, Literal

from pydantic import Field

from governed_api.base import Part
from governed_api.quantities import Quantity
from governed_api.rules import Rule


class Resources(Part):
    """Requests and limits of a container (cpu, memory, nvidia.com/gpu …)."""

    requests: dict[str, Quantity] = Field(default={}, max_length=16)
    """What is reserved."""
    limits: dict[str, Quantity] = Field(default={}, max_length=16)
    """What is allowed."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!has(self.requests) || !has(self.limits) || self.requests.all(k, !(k in self.limits) || "
            "!isQuantity(string(self.requests[k])) || !isQuantity(string(self.limits[k])) || "
            "quantity(string(self.requests[k])).compareTo(quantity(string(self.limits[k]))) <= 0)",
            "a request must not exceed its limit",
        ),
    )


class Toleration(Part):
    """core/v1 Toleration."""

    key: str | None = Field(default=None, max_length=316)
    """Taint key; absent matches all."""
    operator: Literal["Exists", "Equal"] = "Equal"
    """How value is compared."""
    value: str | None = Field(default=None, max_length=63)
    """Taint value."""
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    """Absent matches all."""
