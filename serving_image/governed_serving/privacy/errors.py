"""Why names could not be searched: apart from the model's code, which is loaded only where it is used."""

from typing import Literal

__all__ = ["NamesFailed", "Reason"]

Reason = Literal["budget", "queue", "model"]


class NamesFailed(Exception):
    """Names could not be searched. The message says why and what to do, and quotes nothing."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason
