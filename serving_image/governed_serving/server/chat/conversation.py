"""One completion on its way, and what the journal keeps of it."""

from array import array
from time import time
from typing import Literal

import msgspec

from governed_serving.completions.generated import MASKED
from governed_serving.completions.labelling import LABELLED, AnswerLabel
from governed_serving.journal.columns import pack
from governed_serving.records import Column, PredictionFrame
from governed_serving.server.chat.answers import AnswerMask, Masked
from governed_serving.server.chat.events import Completion
from governed_serving.server.chat.request import budget
from governed_serving.server.chat.runtime import Message
from governed_serving.server.identity import Identity
from governed_serving.server.pipeline import Exchange

__all__ = ["Conversation", "State"]

State = Literal["started", "complete", "cut"]


class Conversation(Exchange):
    """A completion of ``message`` by the runtime's route ``path``. ``attributes``: columns of the record beside the
    prompt. Raises InvalidRequest."""

    __slots__ = (
        "attributes",
        "began",
        "client_id",
        "completion",
        "ended",
        "id",
        "label",
        "mask",
        "masked",
        "max_tokens",
        "message",
        "path",
        "promise",
        "prompt",
        "prompt_tokens",
    )

    def __init__(
        self, identity: str, path: str, message: Message, attributes: dict[str, str], client_id: str = ""
    ) -> None:
        self.reserved, self.max_tokens = budget(path, message)
        self.id, self.client_id, self.account = identity, client_id, None
        self.path, self.message, self.attributes = path, message, attributes
        self.prompt = ""
        """What the journal keeps of the request, once it is masked."""
        self.prompt_tokens = self.reserved - self.max_tokens
        self.completion = Completion()
        self.mask: AnswerMask | None = None
        """What masks the answer, where that is asked for."""
        self.label: AnswerLabel | None = None
        """What labels the answer, where that is asked for."""
        self.masked: Masked = {}
        """What was masked of the request."""
        self.promise = False
        """It asks for a signed promise."""
        self.began = 0.0
        """Reading of the pipeline's clock when the runtime was about to be asked."""
        self.ended = False
        """Settled and recorded, or about to be."""

    def frame(
        self, identity: Identity, state: State, texts: list[str], tokens: int, *, seconds: float = 0.0
    ) -> PredictionFrame:
        """``texts``: the completion, and where it differs the answer without reasoning, as the client got them;
        ``seconds`` since the runtime was asked."""
        outputs = dict(zip(("completion", "answer"), texts, strict=False)) | {"state": state}
        masked = {"request": self.masked, "answer": self.mask.masked if self.mask else {}}
        if any(masked.values()):
            outputs[MASKED] = msgspec.json.encode({part: where for part, where in masked.items() if where}).decode()
        if self.label is not None and state != "started":
            outputs[LABELLED] = msgspec.json.encode(self.label.record).decode()
        return PredictionFrame(
            identity.model,
            identity.revision,
            identity.artefact,
            [self.id],
            array("d", [time()]).tobytes(),
            array("i", [1]).tobytes(),
            _texts({"prompt": self.prompt} | self.attributes),
            _texts(outputs) | {"tokens": pack("INT64", 1, [[tokens]], 1)},
            [self.client_id] if self.client_id else [],
            [self.account.pseudonym] if self.account is not None else [],
            self._units(state, tokens, seconds) if self.account is not None else {},
        )

    def _units(self, state: State, tokens: int, seconds: float) -> dict[str, bytes]:
        if state == "started":
            units = {"started": 1}
        else:
            read, cached = self.completion.read(self.prompt_tokens, tokens)
            units = {
                "microseconds": max(0, round(1e6 * seconds)),
                "tokensIn": read,
                "tokensOut": tokens - read,
                **({"cached": cached} if cached else {}),
            }
        return {name: pack("INT64", 1, [[value]], 1).data for name, value in units.items()}


def _texts(values: dict[str, str]) -> dict[str, Column]:
    return {name: pack("BYTES", 1, [[value]], 1) for name, value in values.items()}
