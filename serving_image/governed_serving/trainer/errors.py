"""Errors of the trainer.

TrainingError
├── InvalidTraining   the manifest or its data can't be trained on: a person must change them (exit code 2)
└── TrainingFailed    training went wrong or missed its gates (exit code 1)
"""


class TrainingError(Exception):
    """Base of the room's errors; the message is one line for people."""


class InvalidTraining(TrainingError):
    """What the manifest asks for can't be done; ``field`` is its path, such as spec.lifecycle.training.data.label."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}")
        self.field = field


class TrainingFailed(TrainingError):
    """Nothing ships: diverged, exported wrongly, or below the least accuracy."""
