"""What an archive holds about one person, by the keyed digest of who it is: found, given out, made unreadable.

The journal's frames about a person are sealed under a key of their own (crypto/subjects.py). Erasing destroys it:
blobs and journals keep the ciphertext, no proof changes, and nobody can open it. The archive's entry of type
``erasure`` and the receipt in the key's place say what was erased.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

import msgspec

from governed_serving.archive.client import HIDDEN, ArchiveClient
from governed_serving.archive.errors import ArchiveError, Refused
from governed_serving.archive.verify.record import opened_frame
from governed_serving.crypto import Kek, KeyMissing, Keyring, SegmentCipher, Subjects, canonical, purposes_of
from governed_serving.decoding import decode_with
from governed_serving.journal import open_chunk
from governed_serving.records import Erasure, LedgerEntry, timestamp

__all__ = ["Held", "Person", "named_person"]

_PAGE = 1000
_ABOUT = frozenset({"prediction", "acknowledgement", "review"})
_WHO_BYTES = 4096
_decoder = msgspec.json.Decoder(LedgerEntry)


@dataclass(frozen=True)
class Held:
    """A ledger entry about the person."""

    index: int
    entry: LedgerEntry


def named_person(said: str, file: IO[bytes]) -> str:
    """``said``, or the one line of ``file`` where that is "-". Raises ArchiveError, which doesn't repeat it."""
    line = file.read(_WHO_BYTES + 1) if said == "-" else said.encode(errors="surrogateescape")
    if len(line) > _WHO_BYTES:
        raise ArchiveError(f"the person: expected one line of at most {_WHO_BYTES} bytes, found more")
    try:
        who = line.decode()
    except UnicodeDecodeError:
        raise ArchiveError("the person: expected Unicode text (UTF-8), found other bytes") from None
    if said == "-":
        who = who.removesuffix("\n").removesuffix("\r")
        if who and who.splitlines() != [who]:
            raise ArchiveError("the person: expected one line, found more; ask about one person at a time")
    if not canonical(who):
        raise ArchiveError("the person: expected one as requests say it, found nothing; blanks around it don't count")
    return who


class Person:
    """``who`` they are, as requests said it, in whichever form (:func:`canonical`).

    ``client``: of one model, with a token that may read all of it and destroy its keysets; ``kek``: the model's. Raises
    ArchiveError, CryptoError.
    """

    def __init__(self, client: ArchiveClient, kek: Kek, who: str):
        self._client, self._kek = client, kek
        self._store = client.keysets()
        self._subjects = Subjects(kek, self._store)
        try:
            self._known = self._subjects.digests(who)
        except KeyMissing:
            raise ArchiveError(
                f"{client.model} knows no persons: expected a model with spec.governance.privacy.subject"
            ) from None

    @property
    def subject(self) -> str:
        """The digest that the ledger knows them by."""
        return self._known[0]

    def keys(self) -> list[str]:
        """Purposes of the keysets under which there is something to open."""
        purposes = self._store.purposes()
        return [purpose for subject in self._known for purpose in purposes_of(subject, purposes)]

    def held(self) -> list[Held]:
        """Predictions about the person, those included that can't be opened any more."""
        return [record for record in self.said() if record.entry.type == "prediction"]

    def said(self) -> list[Held]:
        """As :meth:`held`, and what they, or a person about them, contested and decided."""
        return [Held(index, entry) for index, entry in self._entries() if self._is_about(entry)]

    def content(self) -> Iterator[dict[str, object]]:
        """What was asked and answered, oldest first, but for what was erased, or deleted under retention."""
        cipher = SegmentCipher(Keyring(self._kek, self._store).keyset("journal", create=False), self._subjects)
        for record in self.said():
            try:
                data = self._client.get_blob(record.entry.blob, entry=record.index)
            except Refused as error:
                if error.status != 410:
                    raise
                continue
            frames = dict(open_chunk(data, cipher))
            shown = opened_frame(frames.get(record.entry.frame or 0), record.entry)
            if shown is not None:
                yield {"ledgerIndex": record.index, "time": record.entry.time, **shown}

    def erase(self, by: str, reason: str, now: float) -> Erasure:
        """Destroy the person's keys. Raises ArchiveError when there is nothing to erase."""
        keys = self.keys()
        if not keys:
            raise ArchiveError("nothing is held about this person, or it was erased before")
        places = [record.index for record in self.held()]
        receipt = Erasure(
            predictions=len(places),
            first=min(places, default=None),
            last=max(places, default=None),
            by=by,
            reason=reason,
            time=timestamp(now),
        )
        for purpose in keys:
            self._store.destroy(purpose, msgspec.json.encode(receipt))
        if left := self.keys():
            raise ArchiveError(f"{len(left)} keys were made meanwhile: erase again")
        return receipt

    def _is_about(self, entry: LedgerEntry) -> bool:
        about = entry.summary.get("subject") in self._known
        return about and entry.type in _ABOUT and entry.model == self._client.model

    def _entries(self) -> Iterator[tuple[int, LedgerEntry]]:
        start = 0
        while page := self._client.entries(start, start + _PAGE):
            for index, data in enumerate(page, start):
                if data != HIDDEN:
                    yield index, decode_with(_decoder, data)
            start += len(page)
