"""Errors of the trainer.

TrainingError
├── InvalidTraining   the manifest or its data can't be trained on: a person must change them (exit code 2)
└── TrainingFailed    training went wrong or missed its gates (exit code 1)
"""

from collections.abc import Sequence

__all__ = ["InvalidTraining", "TrainingError", "TrainingFailed", "listed"]


class TrainingError(Exception):
    """Base of the room's errors; the message is one line for people."""


class InvalidTraining(TrainingError):
    """What the manifest asks for can't be done; ``field`` is its path, such as spec.lifecycle.training.data.label."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}")
        self.field = field


class TrainingFailed(TrainingError):
    """Nothing ships: diverged, exported wrongly, or below the least accuracy."""


def listed(names: Sequence[str], *, none: str = "none", most: int = 10) -> str:
    """Names as a message has them; ``none``: what it says where there are none."""
    beyond = f" and {len(names) - most} more" if len(names) > most else ""
    return (", ".join(names[:most]) or none) + beyond
