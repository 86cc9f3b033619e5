"""Receipts: that an answer's entry is in the ledger, asked of the archive, which signs; the server has no key to."""

import re
from typing import Protocol

import httpx
import msgspec

from governed_api import routes
from governed_serving.archive.ledger.note import NoteError
from governed_serving.archive.ledger.proof import LogProof
from governed_serving.decoding import decode_json
from governed_serving.environment import Token, token_reader
from governed_serving.records import LedgerEntry
from governed_serving.server.errors import NotFound, Unavailable

__all__ = ["ArchiveReceipts", "Receipts", "check_own"]

_SECONDS = 5.0
_AT_A_TIME = 8
_RETRY = 5
_MOST = 256 << 10
_OURS = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")


class Receipts(Protocol):
    """Of one model's answers."""

    async def receipt(self, id: str) -> bytes:
        """A C2SP tlog-proof of the answer with our ``id``. Raises NotFound, Unavailable."""


class _NotYet(NotFound):
    """Waiting helps, if there was such an answer: the server keeps no list of them."""

    retry_after = _RETRY


def _none(id: str) -> str:
    return f"receipt: no answer {id} is in the ledger; one that was just given will be: retry after {_RETRY} s"


def check_own(proof: bytes, id: str, caller: str) -> None:
    """That the answer was given to ``caller`` (a pseudonym). Raises NotFound, as for one that nobody was given."""
    try:
        entry = decode_json(LogProof.parse(proof.decode()).extra, type=LedgerEntry)
    except (NoteError, UnicodeDecodeError, msgspec.DecodeError):
        raise _NotYet(_none(id)) from None
    if entry.summary.get("caller") != caller:
        raise _NotYet(_none(id))


class ArchiveReceipts:
    """From the archive at ``url``, by the model's ``token``. At most eight are asked for at a time, whoever asks."""

    def __init__(
        self, url: str, token: Token, model: str, *, transport: httpx.AsyncBaseTransport | None = None
    ) -> None:
        self._token = token_reader(token)
        self._model, self._asking = model, 0
        self._client = httpx.AsyncClient(
            base_url=url,
            headers={"x-governed-model": model},
            timeout=_SECONDS,
            transport=transport,
            trust_env=False,
        )

    async def receipt(self, id: str) -> bytes:
        if not _OURS.fullmatch(id):
            raise NotFound(f"receipt: expected the X-Prediction-Id of an answer, found {id[:128]!r}")
        if self._asking >= _AT_A_TIME:
            raise Unavailable(f"receipt: {self._asking} are being asked for already; retry in a moment")
        self._asking += 1
        try:
            bearer = {"authorization": f"Bearer {self._token()}"}  # a Secret may have been replaced
            asked = {"model": self._model, "id": id}
            answer = await self._client.get(routes.LEDGER_RECEIPT, params=asked, headers=bearer)
        except httpx.HTTPError as error:
            raise Unavailable(
                f"receipt: expected an answer of the archive, found {type(error).__name__}; retry in a moment"
            ) from error
        finally:
            self._asking -= 1
        if answer.status_code == 404:
            raise _NotYet(_none(id))
        if answer.status_code != 200 or len(answer.content) > _MOST:
            raise Unavailable(f"receipt: expected a proof from the archive, found status {answer.status_code}")
        return answer.content

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()
