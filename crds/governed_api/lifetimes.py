"""How long a manifest has payloads kept and keys last, in seconds: told to the archive by the model's pods, and by the
operator in an annotation of the model's GovernanceReport, which no pod may write."""

import json
from dataclasses import asdict, dataclass

from governed_api.model import GovernedModelSpec
from governed_api.quantities import seconds

__all__ = ["Lifetimes"]


@dataclass(frozen=True)
class Lifetimes:
    """Seconds; None: for ever."""

    payloads: int | None = None
    keys: int | None = None

    @classmethod
    def of(cls, spec: GovernedModelSpec) -> "Lifetimes":
        """Of ``governance.privacy.retention.payloads`` and ``governance.encryption.rotation``."""
        payloads, keys = spec.governance.privacy.retention.payloads, spec.governance.encryption.rotation
        return cls(seconds(payloads) if payloads else None, seconds(keys) if keys else None)

    @classmethod
    def parse(cls, text: str) -> "Lifetimes":
        """What :meth:`annotation` wrote. Raises ValueError."""
        parsed = json.loads(text)
        well_formed = isinstance(parsed, dict) and parsed.keys() == {"payloads", "keys"}
        if not well_formed or not all(v is None or (type(v) is int and v > 0) for v in parsed.values()):
            raise ValueError(f"expected seconds or null for payloads and keys, found {text[:80]!r}")
        return cls(**parsed)

    def annotation(self) -> str:
        """As JSON."""
        return json.dumps(asdict(self), sort_keys=True)
