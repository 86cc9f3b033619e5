"""``python -m governed_serving.explainer``: the explainer of one model."""

import os
import sys

# One BLAS thread, set before numpy is loaded: sums in one order, hence the same bits at a replay, and no fight for
# cores.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from governed_serving import hosting
from governed_serving.archive.errors import ArchiveError
from governed_serving.artefact import ArtefactError
from governed_serving.blackbox.errors import ExplainerError
from governed_serving.crypto import CryptoError
from governed_serving.explainer.service.process import serve
from governed_serving.journal import JournalError

EXPECTED = (ArchiveError, ArtefactError, CryptoError, ExplainerError, JournalError)


def main() -> int:
    """Exit code: 0 after SIGTERM, 1 with one line that says why it couldn't start."""
    return hosting.run("explainer", serve, EXPECTED)


if __name__ == "__main__":
    sys.exit(main())
