"""Who serves: what every record, answer and metric names."""

from dataclasses import dataclass

__all__ = ["Identity"]


@dataclass(frozen=True)
class Identity:
    """One revision of one model; ``artefact`` is its digest, "" where a foreign runtime holds the model."""

    model: str
    namespace: str
    revision: str
    artefact: str = ""
