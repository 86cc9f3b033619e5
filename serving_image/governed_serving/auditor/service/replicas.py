"""The exchange of counts between the auditors of one revision, through states in the archive.

Each auditor keeps one state ``counts.{group}.{replica}``, its sealed :class:`Published`, and reads the others'. What a
replica counted outlives it, so that scaling down takes nothing from a verdict; the ledger has the digest of every state
there was. ``group`` stands for revision and rules: counts over other attributes, bands or outcomes don't add up.
"""

import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

import msgspec

from governed_serving.archive.client import ArchiveClient
from governed_serving.auditor.service.tally import Tally
from governed_serving.crypto import Keyset
from governed_serving.decoding import decode_msgpack
from governed_serving.durable import replace_file

__all__ = ["NOBODY", "OtherReplicas", "Published", "Replicas", "group_of", "replica_of"]

_AAD = b"auditor counts 2\0"
RUNNING_SECONDS = 600.0
"""A replica whose state hasn't changed for so long sees no requests; its last window says nothing of now."""
_RESTING = 60.0
"""Seconds after which the state of a replica that has ended is looked at again."""


class Published(msgspec.Struct, frozen=True):
    """What a replica says. ``final``: it has ended, and counts on only if it is started again."""

    revision: str
    final: bool
    tally: Tally


def group_of(revision: str, rules: Sequence[object]) -> str:
    """16 hexadecimal digits for a revision and what it counts; ``rules`` is JSON-ready."""
    return sha256(msgspec.json.encode([revision, rules], order="deterministic")).hexdigest()[:16]


def replica_of(spool: Path, pod: str) -> str:
    """Name of the replica whose spool this is: a spool that was lost begins another one, whose counts are added. Raises
    OSError."""
    path = spool / "auditor" / "replica"
    try:
        return path.read_text()
    except FileNotFoundError:
        name = f"{pod}.{secrets.token_hex(4)}"
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        replace_file(path, name.encode())
        return name


@dataclass(frozen=True)
class OtherReplicas:
    """What the other replicas published, as it was read at one time."""

    tallies: Sequence[Tally] = ()
    """Sorted by the replicas' names."""
    running: Sequence[Tally] = ()
    """Of those the ones that still count."""
    sources: Mapping[str, str] = field(default_factory=dict)
    """Replica → SHA-256 of the state whose counts were added."""


NOBODY = OtherReplicas()


class Replicas:
    """``refresh`` and ``publish`` are one thread's; ``others`` is immutable and replaced as a whole, so that any may
    read it."""

    def __init__(
        self,
        client: ArchiveClient,
        keyset: Keyset,
        group: str,
        replica: str,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._client, self._keyset, self._clock = client, keyset, clock
        self._prefix = f"counts.{group}."
        self._me = self._prefix + replica
        self._known: dict[str, tuple[str, Published]] = {}
        self._again: dict[str, float] = {}
        self._changed: dict[str, float] = {}
        self._sent = b""
        self.others: OtherReplicas | None = None
        """None: not read yet."""

    @property
    def tallies(self) -> Sequence[Tally]:
        """The others' counts."""
        return (self.others or NOBODY).tallies

    @property
    def running(self) -> Sequence[Tally]:
        """Of those the ones that still count."""
        return (self.others or NOBODY).running

    def publish(self, tally: Tally, revision: str, final: bool) -> None:
        """Replace our state, if anything changed. Raises ArchiveError, OSError."""
        plain = msgspec.msgpack.encode(Published(revision, final, tally))
        if plain != self._sent:
            self._client.put_state(self._me, self._keyset.seal(plain, _AAD + self._me.encode()))
            self._sent = plain

    def refresh(self) -> None:
        """Read what the others published. Raises ArchiveError, CryptoError."""
        now = self._clock()
        for name in self._client.states():
            if name.startswith(self._prefix) and name != self._me and self._again.get(name, 0.0) <= now:
                self._read(name, now)
        digests = sorted(self._known.items())
        self.others = OtherReplicas(
            [said.tally for _, (_, said) in digests],
            [s.tally for name, (_, s) in digests if not s.final and now - self._changed[name] <= RUNNING_SECONDS],
            {name.removeprefix(self._prefix): digest for name, (digest, _) in digests},
        )

    def _read(self, name: str, now: float) -> None:
        digest, said = self._known.get(name, ("", None))
        if state := self._client.state(name, digest):
            sealed, digest = state
            said = decode_msgpack(self._keyset.open(sealed, _AAD + name.encode()), type=Published)
            self._known[name] = (digest, said)
            self._changed[name] = now
        if said is not None and said.final:
            self._again[name] = now + _RESTING
