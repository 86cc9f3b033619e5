"""The protocol of a witness, from the log's side: https://c2sp.org/tlog-witness.

What a witness answers is bounded in size and time, and never believed without a signature.
"""

import asyncio
import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import httpx

from governed_api.printable import printable
from governed_serving.archive.ledger.cosignature import Cosignature
from governed_serving.archive.ledger.note import DECIMAL, NoteError, split_note
from governed_serving.archive.witness.policy import Witness
from governed_serving.outbound import Resolve, resolved, target

__all__ = ["Conflict", "Inconsistent", "WitnessClient", "WitnessProblem"]

_SECONDS = 10.0
_ANSWER_BYTES = 16 << 10
_NOTE_BYTES = 64 << 10
_SIZE_TYPE = "text/x.tlog.size"
_REMEDY = "name the address itself if that is meant"


class WitnessProblem(Exception):
    """No cosignature this time; ``outcome`` is a word for counting."""

    def __init__(self, outcome: str, message: str):
        super().__init__(message)
        self.outcome = outcome


class Conflict(WitnessProblem):
    """It has cosigned ``size`` entries, which isn't what the request began with."""

    def __init__(self, size: int):
        super().__init__("conflict", f"it has cosigned {size} entries")
        self.size = size


class Inconsistent(WitnessProblem):
    """It doesn't accept the proof that the log extends what it has cosigned."""


@dataclass(frozen=True)
class _Answer:
    status: int
    type: str
    body: bytes

    def words(self) -> str:
        """What it says, on one line that acts on no terminal."""
        return printable(" ".join(self.body[:200].decode("utf-8", "replace").split()))


class WitnessClient:
    """One witness. ``resolve`` and ``transport`` are injected by tests."""

    def __init__(
        self,
        witness: Witness,
        *,
        resolve: Resolve = resolved,
        transport: httpx.AsyncBaseTransport | None = None,
        seconds: float = _SECONDS,
    ) -> None:
        self._witness, self._resolve, self._transport, self._seconds = witness, resolve, transport, seconds

    async def add_checkpoint(self, old: int, proof: Sequence[bytes], note: str) -> Cosignature:
        """Ask for a cosignature of ``note``, which extends the ``old`` entries that the witness knows. Raises
        :class:`Conflict`, :class:`Inconsistent`, :class:`WitnessProblem`."""
        lines = [f"old {old}", *(base64.b64encode(step).decode() for step in proof), ""]
        body = ("\n".join(lines) + "\n" + note).encode()
        answer = await self._asked("POST", "add-checkpoint", body, _ANSWER_BYTES)
        if answer.status == 200:
            return self._cosignature(answer, note)
        if answer.status == 409:
            raise Conflict(_size(answer))
        if answer.status == 422:
            raise Inconsistent("inconsistent", f"it refused the consistency proof from {old} entries: {answer.words()}")
        raise WitnessProblem(f"status{answer.status}", _refusal(answer))

    async def kept(self, origin: str) -> str:
        """The checkpoint that it keeps of a log; "" where it has none. Raises :class:`WitnessProblem`."""
        path = f"{hashlib.sha256(origin.encode()).hexdigest()}/checkpoint"
        answer = await self._asked("GET", path, b"", _NOTE_BYTES)
        if answer.status == 404:
            return ""
        if answer.status != 200:
            raise WitnessProblem(f"status{answer.status}", f"asked for the checkpoint it keeps: {_refusal(answer)}")
        try:
            return answer.body.decode()
        except UnicodeDecodeError:
            raise WitnessProblem("garbage", "the checkpoint that it keeps isn't UTF-8") from None

    def _cosignature(self, answer: _Answer, note: str) -> Cosignature:
        try:
            cosignature = self._witness.cosigner.cosigned(split_note(note)[0] + "\n" + answer.body.decode())
        except (NoteError, UnicodeDecodeError) as error:
            raise WitnessProblem("garbage", f"answered 200 with what is no cosignature of ours: {error}") from None
        if cosignature is None:
            raise WitnessProblem("garbage", "answered 200 without a cosignature by its key; check the key given for it")
        return cosignature

    async def _asked(self, method: str, path: str, body: bytes, most: int) -> _Answer:
        try:
            async with asyncio.timeout(self._seconds):
                return await self._sent(method, f"{self._witness.url}/{path}", body, most)
        except TimeoutError:
            raise WitnessProblem("timeout", f"no answer within {self._seconds:g} s") from None
        except (OSError, ValueError, httpx.HTTPError, httpx.InvalidURL) as error:
            raise WitnessProblem("unreachable", f"{type(error).__name__}: {printable(str(error)[:200])}") from None

    async def _sent(self, method: str, url: str, body: bytes, most: int) -> _Answer:
        """Redirects aren't followed: they would lead anywhere."""
        where = await target(url, self._resolve, remedy=_REMEDY)
        headers = {"host": where.host, "content-type": "text/plain; charset=utf-8", "accept-encoding": "identity"}
        extensions = {"sni_hostname": where.server_name}
        client = httpx.AsyncClient(timeout=self._seconds, trust_env=False, transport=self._transport)
        async with (
            client,
            client.stream(method, where.url, content=body, headers=headers, extensions=extensions) as got,
        ):
            received = bytearray()
            async for chunk in got.aiter_raw():
                received += chunk
                if len(received) > most:
                    raise WitnessProblem("garbage", f"answered more than {most} bytes")
            return _Answer(got.status_code, got.headers.get("content-type", ""), bytes(received))


def _size(answer: _Answer) -> int:
    """Of a 409: a decimal and a newline, and nothing else."""
    text = answer.body.decode("ascii", "replace")
    number = text.removesuffix("\n")
    if answer.type.partition(";")[0].strip() != _SIZE_TYPE or not DECIMAL.fullmatch(number):
        raise WitnessProblem("garbage", f"answered 409 without a tree size: {answer.words()}")
    return int(number)


def _refusal(answer: _Answer) -> str:
    if answer.status in (403, 404):
        return f"status {answer.status}: it doesn't know this log, or not by this key; give it the ledger's vkey"
    return f"status {answer.status}: {answer.words()}"
