"""When the ledger is copied: at once when an answer waits for it, else within seconds of a change."""

import asyncio
import time

from governed_serving.archive.errors import ArchiveError, Busy
from governed_serving.archive.mirror.mirror import Mirror, Superseded
from governed_serving.archive.service import Archive
from governed_serving.archive.store.objects import LedgerCopy
from governed_serving.crypto import CryptoError
from governed_serving.hosting import log

__all__ = ["Copying"]

PACE = 1.0
"""Seconds between two rounds: what comes meanwhile shares the next one."""
_PATIENCE = 20.0
_RETRY = 5.0


class Copying:
    """``waits``: nothing is acknowledged, and no checkpoint shown, before it is stored."""

    def __init__(self, archive: Archive, mirror: Mirror, pace: float = PACE) -> None:
        assert archive.blobs.bucket is not None
        self.waits = archive.blobs.bucket.place.ledger is LedgerCopy.STORED
        self.problem = "the ledger in object storage hasn't been compared with this one yet"
        """Why what was appended last isn't there yet; "": nothing holds it up."""
        self._archive, self._mirror, self._pace = archive, mirror, pace
        self._asked = self._done = 0
        self._over = False
        """No round comes any more."""
        self._wake, self._turn = asyncio.Event(), asyncio.Condition()
        self._since = time.monotonic()
        if self.waits:
            archive.show = self._shown

    @property
    def behind(self) -> int:
        """Entries that aren't there yet."""
        return max(0, self._archive.ledger.size - self._mirror.size)

    @property
    def seconds(self) -> float:
        """How long it has been so that not all was there."""
        return time.monotonic() - self._since if self.behind or self.problem else 0.0

    def _shown(self) -> str:
        if not self._mirror.checkpoint:
            raise Busy(f"no checkpoint is shown before it is stored: {self.problem or 'retry later'}")
        return self._mirror.checkpoint

    async def stored(self) -> None:
        """Returns once all that was written before the call is in object storage. Raises Busy."""
        if not self.waits:
            return
        self._asked += 1
        ticket = self._asked
        self._wake.set()
        try:
            async with asyncio.timeout(_PATIENCE), self._turn:
                while self._done < ticket:
                    if not self._over:
                        await self._turn.wait()
                    if self.problem and self._done < ticket:
                        raise Busy(f"it is on the volume, not in object storage yet: {self.problem}")
        except TimeoutError:
            raise Busy(
                f"it is on the volume, and wasn't in object storage after {_PATIENCE:g} s: send it again"
            ) from None

    async def run(self) -> None:
        """Until it is cancelled, or another archive writes to this place."""
        while True:
            began, ticket = time.monotonic(), self._asked
            self._wake.clear()
            pause = await self._round()
            async with self._turn:
                self._done = self._done if self.problem else ticket
                self._over = pause is None
                self._turn.notify_all()
            if pause is None:
                return
            await asyncio.sleep(max(0.0, began + self._pace - time.monotonic()))
            try:
                await asyncio.wait_for(self._wake.wait(), pause)
            except TimeoutError:
                continue

    async def _round(self) -> float | None:
        """Seconds until the next one at the latest; None: there is none."""
        try:
            await asyncio.to_thread(self._mirror.round)
        except Superseded as error:
            self._tell(str(error))
            self._archive.appender.refuse(f"nothing is appended: {error}")
            return None
        except (ArchiveError, CryptoError, OSError) as error:
            self._tell(str(error) or type(error).__name__)
            return _RETRY
        self._tell("")
        if not self.behind:
            self._since = time.monotonic()
        return self._pace if self.behind else 2 * self._pace

    def _tell(self, problem: str) -> None:
        if problem != self.problem:
            log("error" if problem else "info", "the ledger in object storage", problem=problem or "all is there")
        self.problem = problem

    def finish(self) -> None:
        """One round more as the archive stops: the next one may start over an empty volume."""
        try:
            self._mirror.round()
        except (ArchiveError, CryptoError, OSError) as error:
            log("error", "the ledger's end isn't in object storage", error=str(error), entries=self.behind)
