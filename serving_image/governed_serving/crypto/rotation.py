"""Rotation while everything runs: whoever has the say adds a key when it is due, and every writer takes it without a
restart."""

import threading
from collections.abc import Callable
from datetime import UTC, datetime

from governed_serving.containment import contained
from governed_serving.crypto.errors import KeyDestroyed, KeyMissing, KeysetChanged
from governed_serving.crypto.keyring import KeyEvent, Keyring
from governed_serving.crypto.keyset import Keyset

__all__ = ["ROTATED", "KeyWatch", "rotate_due"]

ROTATED = ("artefact", "data", "journal")
"""A model's keysets that encrypt. Those of masking stay: the same value must go on giving the same token and
digest. So do those of draws: a person's must stay what it was."""
LONGEST_LOOK = 300.0


def rotate_due(
    keyring: Keyring, period: float, purposes: tuple[str, ...] = ROTATED, now: datetime | None = None
) -> list[KeyEvent]:
    """Add a key to each keyset whose primary key is ``period`` seconds old. Where another process was first, its key
    counts."""
    now = now or datetime.now(UTC)
    primary = {k.purpose: k for k in keyring.inventory() if k.status == "primary"}
    events = []
    for purpose in purposes:
        old = primary.get(purpose)
        if old is not None and (now - datetime.fromisoformat(old.created)).total_seconds() >= period:
            try:
                events.append(keyring.rotate(purpose, old.key_id))
            except (KeysetChanged, KeyDestroyed, KeyMissing):
                continue
    return events


class KeyWatch:
    """Looks after ``keyset`` every tenth of ``period`` seconds, five minutes at most: rotates when it has the say,
    takes what is new.

    ``pause``: seconds between two looks. ``on_new`` is told of a new primary key; ``on_trouble`` of what kept a look
    from being done (it is done again).
    """

    def __init__(
        self,
        keyset: Keyset,
        period: float,
        on_new: Callable[[int], None],
        on_trouble: Callable[[Exception], None],
        rotate: Callable[[], object] = lambda: None,
    ):
        self._keyset, self._on_new, self._on_trouble, self._rotate = keyset, on_new, on_trouble, rotate
        self.pause = max(0.2, min(LONGEST_LOOK, period / 10))
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="keys", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Returns at once; a look that is under way ends by itself."""
        self._stop.set()

    def look(self) -> None:
        """Once. Raises what the store raises."""
        before = self._keyset.primary_key_id
        self._rotate()
        self._keyset.refresh()
        if self._keyset.primary_key_id != before:
            self._on_new(self._keyset.primary_key_id)

    def _run(self) -> None:
        while not self._stop.wait(self.pause):
            try:
                contained(self.look)
            except Exception as error:  # stores have errors of their own; none may end the watch
                self._on_trouble(error)
