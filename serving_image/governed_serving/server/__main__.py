"""python -m governed_serving.server: live at once, ready when the model is verified and warm, drained on SIGTERM."""

import sys
import time

from governed_serving import hosting
from governed_serving.artefact import ArtefactError
from governed_serving.crypto import CryptoError
from governed_serving.environment import read_model
from governed_serving.journal.errors import JournalError
from governed_serving.server.process import Process
from governed_serving.server.settings import ServerSettings

EXPECTED = (ArtefactError, CryptoError, JournalError, ValueError)


async def _serve(started: float) -> None:
    settings = ServerSettings.from_environment()
    await Process(settings, read_model(settings.spec), started).run()


def main() -> int:
    """0 after a drain, 1 with one line on stderr when it can't serve."""
    started = time.monotonic()
    hosting.short_turns()
    return hosting.run("server", lambda: _serve(started), EXPECTED)


if __name__ == "__main__":
    sys.exit(main())
