"""What the command lines that open a ledger share: their options (``opening`` takes them), and how they fail."""

import argparse
import sys
from pathlib import Path
from typing import TextIO

import msgspec

from governed_api import runtime
from governed_api.printable import printable
from governed_serving.archive.errors import ArchiveError
from governed_serving.archive.ledger.note import NoteError
from governed_serving.environment import InvalidSettings

__all__ = ["add_checkpoint", "add_keys", "add_witnesses", "expected_errors", "fail", "say"]


def add_keys(parser: argparse.ArgumentParser) -> None:
    """``--key-file`` (as often as one likes) and ``--token-file``."""
    parser.add_argument(
        "--key-file",
        type=Path,
        action="append",
        default=[],
        help=f"verifier key to trust (text), or the archive's key-encryption key (default: ${runtime.KEK_FILE})",
    )
    parser.add_argument(
        "--token-file", type=Path, help=f"bearer token for a URL (default: ${runtime.ARCHIVE_TOKEN_FILE})"
    )


def add_checkpoint(parser: argparse.ArgumentParser, consequence: str = "") -> None:
    """``--checkpoint``, as often as one likes; ``consequence``: what comes of it."""
    parser.add_argument(
        "--checkpoint",
        type=Path,
        action="append",
        default=[],
        help=f"an earlier checkpoint, anchor or GovernanceReport, kept elsewhere{consequence and f': {consequence}'}",
    )


def add_witnesses(parser: argparse.ArgumentParser) -> None:
    """``--witness-key``, as often as one likes, and ``--quorum``: ``witness_rule`` takes them."""
    parser.add_argument(
        "--witness-key",
        type=Path,
        action="append",
        default=[],
        metavar="VKEY",
        help="file with a witness's verifier key, kept elsewhere: its cosignature must be there",
    )
    parser.add_argument(
        "--quorum", type=int, default=0, help="how many of the witnesses must have cosigned (default: all)"
    )


def expected_errors() -> tuple[type[Exception], ...]:
    """Those that speak for themselves; another one is a bug and keeps its traceback."""
    from governed_serving.artefact import ArtefactError
    from governed_serving.crypto import CryptoError

    return (ArchiveError, NoteError, CryptoError, ArtefactError, InvalidSettings, OSError, msgspec.DecodeError)


def say(line: str, file: TextIO | None = None) -> None:
    """One line on the standard output; what others wrote in it (names, entries, keys) acts on no terminal."""
    print(printable(line), file=file)


def fail(verb: str, error: Exception) -> int:
    """One line on stderr; exit code 1."""
    say(f"{verb}: {' '.join((str(error) or type(error).__name__).split())}", sys.stderr)
    return 1
