"""The exchange of counts between the auditors of one revision, through references in the archive.

Each auditor keeps one reference ``counts.{group}.{replica}`` to a sealed blob with its :class:`Tally`, and reads the others'. What
a replica counted outlives it, so that scaling down takes nothing from a verdict; the ledger has an entry for every value that a
reference had. ``group`` stands for revision and rules: counts over other attributes, bands or outcomes don't add up.
"""

import secrets
import time
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec

from governed_serving.archive.client import ArchiveClient
from governed_serving.auditor.service.tally import Tally
from governed_serving.crypto import Keyset
from governed_serving.durable import replace_file

__all__ = ["Replicas", "group_of", "replica_of"]

_AAD = b"auditor counts 1\0"
_RESTING = 60.0
"""Seconds after which the reference of a replica that has ended is looked at again."""


def group_of(revision: str, rules: Any) -> str:
    """16 hexadecimal digits for a revision and what it counts; ``rules`` is JSON-ready."""
    return sha256(msgspec.json.encode([revision, rules], order="deterministic")).hexdigest()[:16]


def replica_of(spool: Path, pod: str) -> str:
    """Name of the replica whose spool this is: a spool that was lost begins another one, whose counts are added. Raises OSError."""
    path = spool / "auditor" / "replica"
    try:
        return path.read_text()
    except FileNotFoundError:
        name = f"{pod}.{secrets.token_hex(4)}"
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        replace_file(path, name.encode())
        return name


class Replicas:
    """``refresh`` and ``publish`` are one thread's; ``tallies`` may be read by any."""

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
        self._known: dict[str, tuple[str, Tally]] = {}
        self._again: dict[str, float] = {}
        self._sent = b""
        self.tallies: list[Tally] = []
        """The others', sorted by their names."""
        self.sources: dict[str, str] = {}
        """Replica → blob of the counts that were added."""
        self.known = False
        """The others' counts have been read at least once."""

    def publish(self, tally: Tally, revision: str, final: bool) -> None:
        """Replace our reference, if anything changed. Raises ArchiveError, OSError."""
        plain = msgspec.msgpack.encode(tally)
        state = plain + bytes([final])
        if state == self._sent:
            return
        blob = self._client.put_blob(self._keyset.seal(plain, _AAD + self._me.encode()))
        self._client.put_ref(self._me, {"blob": blob, "revision": revision, "rows": tally.rows, "final": final})
        self._sent = state

    def refresh(self) -> None:
        """Read what the others published. Raises ArchiveError, CryptoError."""
        now, changed = self._clock(), not self.known
        for name in self._client.refs():
            if not name.startswith(self._prefix) or name == self._me or self._again.get(name, 0.0) > now:
                continue
            changed |= self._read(name, now)
        if changed:
            self.tallies = [tally for _, (_, tally) in sorted(self._known.items())]
            self.sources = {name.removeprefix(self._prefix): blob for name, (blob, _) in sorted(self._known.items())}
            self.known = True

    def _read(self, name: str, now: float) -> bool:
        value = self._client.ref(name)
        if value is None:
            return False
        if value["final"]:
            self._again[name] = now + _RESTING
        blob = str(value["blob"])
        if name in self._known and self._known[name][0] == blob:
            return False
        plain = self._keyset.open(self._client.get_blob(blob), _AAD + name.encode())
        self._known[name] = (blob, msgspec.msgpack.decode(plain, type=Tally))
        return True
