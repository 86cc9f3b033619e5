"""``python -m governed_serving.auditor``: the auditor of one model."""

import sys

from governed_serving import hosting
from governed_serving.archive.errors import ArchiveError
from governed_serving.artefact import ArtefactError
from governed_serving.auditor.service.process import serve
from governed_serving.completions.generated import PatternRefused
from governed_serving.crypto import CryptoError
from governed_serving.journal import JournalError

EXPECTED = (ArchiveError, ArtefactError, CryptoError, JournalError, PatternRefused)


def main() -> int:
    """Exit code: 0 after SIGTERM, 1 with one line that says why it couldn't start."""
    return hosting.run("auditor", serve, EXPECTED)


if __name__ == "__main__":
    sys.exit(main())
