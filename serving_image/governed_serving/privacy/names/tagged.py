"""What a model says of a text, whatever model it is."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

__all__ = ["Run", "Tag", "Tagger"]


class Tag(NamedTuple):
    """``piece[start:end]`` is a PERSON, PLACE or ORGANISATION, in characters; ``score`` as the model is sure of it."""

    entity: str
    start: int
    end: int
    score: float


class Run(Protocol):
    """One request's use of a model."""

    @property
    def options(self) -> object:
        """onnxruntime's RunOptions: ``terminate`` ends a call that goes on."""
        ...

    def check(self) -> None:
        """Asked between two calls. Raises NamesFailed when the budget is used up."""
        ...


class Tagger(Protocol):
    """A model. Thread-safe."""

    @property
    def rule(self) -> str:
        """What a find is attributed to: ner/NAME@DIGEST."""
        ...

    def reads(self, piece: str) -> bool:
        """There may be something in ``piece`` that the model knows."""
        ...

    def tag(self, pieces: Sequence[str], run: Run) -> list[list[Tag]]:
        """For each piece what is in it, in order and not overlapping; a piece's tags don't depend on the others."""
        ...
