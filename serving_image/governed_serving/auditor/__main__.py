"""``python -m governed_serving.auditor``: the auditor of one model."""

import sys

from pydantic import ValidationError

from governed_serving.archive.errors import ArchiveError
from governed_serving.artefact import ArtefactError
from governed_serving.auditor.service.log import log
from governed_serving.auditor.service.process import serve
from governed_serving.crypto import CryptoError
from governed_serving.journal import JournalError

EXPECTED = (ArchiveError, ArtefactError, CryptoError, JournalError, OSError, ValidationError)


def main() -> int:
    """Exit code: 0 after SIGTERM, 1 with one line that says why it couldn't start."""
    try:
        serve()
    except KeyError as error:
        log("error", f"environment: expected the variable {error.args[0]}, found none; set it")
        return 1
    except EXPECTED as error:
        log("error", f"{type(error).__name__}: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
