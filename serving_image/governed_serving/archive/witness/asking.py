"""Asks the witnesses for cosignatures, one round at a time, and says what comes of it.

A round takes the newest checkpoint: those in between are no witness's business, so nothing queues up. Within it all
witnesses that are due are asked at once, each within its own deadline; one that fails is asked again after a pause that
grows. A witness's word alone stops nothing: a checkpoint that this log's own key signed, and that the ledger doesn't go
on from, does (:meth:`Archive.hold_against`).
"""

import asyncio
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from governed_api.jitter import JITTER
from governed_serving.archive.errors import ArchiveError
from governed_serving.archive.ledger.cosignature import Cosignature
from governed_serving.archive.ledger.note import Checkpoint, NoteError, split_note
from governed_serving.archive.ledger.witnessed import Standing
from governed_serving.archive.service import Archive
from governed_serving.archive.witness.client import Conflict, Inconsistent, WitnessClient, WitnessProblem
from governed_serving.archive.witness.policy import Witness, WitnessPolicy
from governed_serving.hosting import log

__all__ = ["Witnessing"]

_PERIOD = 5.0
_LONGEST = 300.0
_NUMBERS = re.compile(r"\d+")
"""Times and sizes in what is wrong with an answer, which change each time though it is the same that is wrong."""
_REFRESH = 3600.0
"""Seconds after which a checkpoint that hasn't changed is cosigned again: its time says how fresh a view is."""
_AHEAD = 300
"""Seconds that a witness's clock may be ahead of ours."""


@dataclass
class _Asked:
    """A witness, and when it is asked next (monotonic seconds)."""

    client: WitnessClient
    standing: Standing
    text: str = ""
    """What it cosigned last."""
    cosignature: Cosignature | None = None
    again: float = 0.0
    pause: float = 0.0
    """Seconds that it was left alone for after its last failure; 0: it answered."""


@dataclass(frozen=True)
class _Round:
    """The checkpoint that is to be cosigned."""

    note: str
    text: str = field(init=False)
    checkpoint: Checkpoint = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "text", split_note(self.note)[0])
        object.__setattr__(self, "checkpoint", Checkpoint.parse(self.text))


class Witnessing:
    """Of one archive. ``client``, ``clock`` (monotonic seconds) and ``period`` are injected by tests."""

    def __init__(
        self,
        archive: Archive,
        policy: WitnessPolicy,
        *,
        client: Callable[[Witness], WitnessClient] = WitnessClient,
        clock: Callable[[], float] = time.monotonic,
        period: float = _PERIOD,
    ) -> None:
        self._archive, self._policy, self._clock, self._period = archive, policy, clock, period
        self._asked = [_Asked(client(one), Standing(one.cosigner)) for one in policy.witnesses]
        archive.witnessed.standings = tuple(one.standing for one in self._asked)
        archive.witnessed.quorum = policy.quorum
        self._hold_kept()

    def _hold_kept(self) -> None:
        """A cosignature that was changed on the disk isn't told any more."""
        kept = self._archive.witnessed
        try:
            for witness in self._policy.witnesses if kept.note else ():
                witness.cosigner.cosigned(kept.note)
        except NoteError as error:
            self._archive.ledger.say(f"witnessed isn't what was cosigned ({error}): the witnesses are asked anew")
            kept.discard()

    async def run(self) -> None:
        """Until it is cancelled; without witnesses it ends at once."""
        while self._asked:
            try:
                await self.round()
            except (ArchiveError, OSError) as error:
                log("error", "cosignatures weren't kept, retrying", error=str(error))
            await asyncio.sleep(self._period)

    async def greet(self, *, accept_loss: bool = False) -> None:
        """Before anything is appended: hold the ledger against what the witnesses keep of it. ``accept_loss``: a person
        lets go of what they have and the ledger hasn't."""
        await asyncio.gather(*(self._greet(asked, accept_loss=accept_loss) for asked in self._asked))

    async def _greet(self, asked: _Asked, *, accept_loss: bool) -> None:
        try:
            await self._examine(asked, accept_loss=accept_loss)
        except WitnessProblem as error:
            self._failed(asked, error)

    async def round(self) -> None:
        """Ask whoever is due about the newest checkpoint, and keep it once enough have cosigned it. Raises OSError,
        ArchiveError."""
        archive = self._archive
        if archive.ledger.size == 0:
            return
        if await asyncio.to_thread(archive.witnessed.restored):
            archive.ledger.say("witnessed wasn't what was cosigned: it was written anew")
        wanted = _Round(await asyncio.to_thread(archive.show))
        due = [asked for asked in self._asked if self._is_due(asked, wanted)]
        await asyncio.gather(*(self._ask(asked, wanted) for asked in due))
        cosignatures = [asked.cosignature for asked in self._asked if asked.cosignature and asked.text == wanted.text]
        lines = tuple(cosignature.line for cosignature in cosignatures)
        archive.witnessed.add(wanted.note, lines)
        if due and cosignatures and len(cosignatures) >= self._policy.quorum:
            await asyncio.to_thread(archive.witnessed.keep, wanted.note + "".join(f"{line}\n" for line in lines))

    def _is_due(self, asked: _Asked, wanted: _Round) -> bool:
        now = self._clock()
        if asked.pause:
            return now >= asked.again
        return asked.text != wanted.text or now >= asked.again

    async def _ask(self, asked: _Asked, wanted: _Round) -> None:
        try:
            asked.cosignature = await self._cosigned(asked, wanted)
        except WitnessProblem as error:
            self._failed(asked, error)
            return
        asked.text, asked.standing.size = wanted.text, wanted.checkpoint.size
        asked.standing.answers["cosigned"] += 1
        if asked.pause:
            log("info", "a witness cosigns again", witness=asked.standing.cosigner.name)
        asked.standing.problem, asked.pause, asked.again = "", 0.0, self._clock() + _REFRESH

    async def _cosigned(self, asked: _Asked, wanted: _Round) -> Cosignature:
        """Raises WitnessProblem."""
        try:
            return await self._requested(asked, wanted)
        except Conflict as conflict:
            if conflict.size > wanted.checkpoint.size:
                raise await self._suspected(asked, conflict, wanted) from None
            asked.standing.size = conflict.size
        try:
            return await self._requested(asked, wanted)
        except Conflict as again:
            raise WitnessProblem("garbage", f"answered 409 twice, the second time with {again.size}") from None

    async def _requested(self, asked: _Asked, wanted: _Round) -> Cosignature:
        size, old = wanted.checkpoint.size, asked.standing.size
        proof: list[bytes] = []
        if 0 < old < size:
            proof = await asyncio.to_thread(self._archive.ledger.consistency, old, size)
        try:
            cosignature = await asked.client.add_checkpoint(old, proof, wanted.note)
        except Inconsistent as refusal:
            raise await self._suspected(asked, refusal, wanted) from None
        if cosignature.time > time.time() + _AHEAD:
            raise WitnessProblem("garbage", f"cosigned at a time to come ({cosignature.time}); check both clocks")
        return cosignature

    async def _suspected(self, asked: _Asked, claim: WitnessProblem, wanted: _Round) -> WitnessProblem:
        """A split view, or so the witness says: what it keeps shows whether this log's key signed it."""
        size = wanted.checkpoint.size
        try:
            proven = await self._examine(asked)
        except WitnessProblem as problem:
            return WitnessProblem(claim.outcome, f"{claim}, the ledger {size}; it can't be examined: {problem}")
        if proven:
            return WitnessProblem("contradicted", proven)
        return WitnessProblem(
            claim.outcome, f"{claim}, the ledger {size}; it shows no checkpoint of ours that contradicts the ledger"
        )

    async def _examine(self, asked: _Asked, *, accept_loss: bool = False) -> str:
        """What contradicts the ledger in what the witness keeps, in words. Raises WitnessProblem."""
        archive, name = self._archive, asked.standing.cosigner.name
        note = await asked.client.kept(archive.ledger.origin)
        if not note:
            return ""
        try:
            return await asyncio.to_thread(archive.hold_against, f"witness {name}", note, accept_loss=accept_loss)
        except NoteError as error:
            raise WitnessProblem("garbage", f"the checkpoint that it keeps isn't signed by this log: {error}") from None

    def _failed(self, asked: _Asked, problem: WitnessProblem) -> None:
        standing, text = asked.standing, str(problem)
        standing.answers[problem.outcome] += 1
        proven = problem.outcome == "contradicted"
        alike = _NUMBERS.sub("", text) == _NUMBERS.sub("", standing.problem) and not proven
        if text != standing.problem and not alike:
            log(
                "error" if proven else "warning",
                "a witness doesn't cosign",
                witness=standing.cosigner.name,
                problem=text,
            )
        standing.problem = text
        asked.pause = min(_LONGEST, 2 * asked.pause or self._period)
        asked.again = self._clock() + asked.pause * JITTER.uniform(0.5, 1.0)
