"""python -m governed_serving.server: live at once, ready when the model is verified and warm, drained on SIGTERM."""

import asyncio
import sys
import time

import uvloop
from pydantic import ValidationError

from governed_api import runtime
from governed_api.resolved import ResolvedModel
from governed_serving.artefact import ArtefactError
from governed_serving.crypto import CryptoError
from governed_serving.journal.errors import JournalError
from governed_serving.server import logs
from governed_serving.server.process import Process
from governed_serving.server.serve import PortTaken
from governed_serving.server.settings import InvalidSettings, Settings


def main() -> int:
    """0 after a drain, 1 with one line on stderr when it can't serve."""
    started = time.monotonic()
    logs.install()
    try:
        settings = Settings.from_environment()
        resolved = _resolved(settings)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(Process(settings, resolved, started).run())
    except (InvalidSettings, PortTaken, ArtefactError, CryptoError, JournalError, ValueError, OSError) as error:
        logs.event(f"not serving: {error}", level=40, kind=type(error).__name__)
        return 1
    return 0


def _resolved(settings: Settings) -> ResolvedModel:
    try:
        return ResolvedModel.load(settings.spec)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InvalidSettings(f"{runtime.SPEC}={settings.spec}: {where}: {first['msg']}") from error


if __name__ == "__main__":
    sys.exit(main())
