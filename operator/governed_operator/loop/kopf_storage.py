"""kopf's stores of what it has seen and done, left empty: on.event needs neither, and they copy every object at every
event."""

from typing import Any

import kopf


class NoDiffBase(kopf.DiffBaseStorage):  # type: ignore[misc]
    """Remembers no last-seen state."""

    def build(self, **_: object) -> dict[str, object]:
        return {}

    def fetch(self, **_: object) -> None:
        return None

    def store(self, **_: object) -> None:
        return None


class NoProgress(kopf.ProgressStorage):  # type: ignore[misc]
    """Remembers no progress of handlers."""

    def fetch(self, **_: object) -> None:
        return None

    def store(self, **_: object) -> None:
        return None

    def purge(self, **_: object) -> None:
        return None

    def touch(self, **_: object) -> None:
        return None

    def clear(self, *, essence: Any) -> Any:
        return essence
