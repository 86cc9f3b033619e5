"""How long-running set-up tells people what it does."""

import sys
import time
from collections.abc import Callable

Say = Callable[[str], None]

_started = time.monotonic()


def say(text: str) -> None:
    """Print one progress line with the seconds since the start, to stderr so that results stay clean on stdout."""
    print(f"{time.monotonic() - _started:5.0f} s  {text}", file=sys.stderr, flush=True)


class BedError(RuntimeError):
    """A bed or an image could not be made; the message says what was expected, what was found and what to do."""
