"""``python -m governed_serving.dossier html``: the governance report of one model as one HTML page."""

import argparse
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec

from governed_api import runtime
from governed_serving.archive.errors import ArchiveError
from governed_serving.archive.ledger.note import NoteError
from governed_serving.archive.verify.opening import noted_checkpoint, open_source
from governed_serving.crypto import CryptoError, load_kek
from governed_serving.decoding import decode_json
from governed_serving.dossier.dossier import document_files, gather
from governed_serving.dossier.page import render_page
from governed_serving.environment import InvalidSettings

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the page; 0, or 1 with one line on stderr."""
    options = _parser().parse_args(arguments)
    try:
        page = _page(options)
        options.output.write_text(page, encoding="utf-8")
    except (ArchiveError, NoteError, CryptoError, InvalidSettings, OSError, msgspec.DecodeError) as error:
        return _fail(str(error))
    print(f"{options.output}: {len(page.encode()) / 1024:.0f} KiB", file=sys.stderr)
    return 0


def _page(options: argparse.Namespace) -> str:
    report = decode_json(options.report.read_bytes()) if options.report else {}
    if not isinstance(report, dict):
        raise ArchiveError(f"{options.report}: expected a GovernanceReport as a JSON object")
    documents = document_files(options.artefact) if options.artefact else None
    kek = load_kek(options.model_key) if options.model_key else None
    earlier = tuple(noted_checkpoint(path) for path in options.checkpoint)
    common: dict[str, Any] = {
        "report": report,
        "documents": documents,
        "example": options.example,
        "earlier": earlier,
        "kek": kek,
    }
    if not options.archive:
        return render_page(gather(options.model, source=None, **common))
    source, vkey = open_source(options.archive, options.key_file, options.token_file, options.model)
    with closing(source):
        return render_page(gather(options.model, source=source, vkey=vkey, **common))


def _fail(message: str) -> int:
    print(f"report: {' '.join(message.split())}", file=sys.stderr)
    return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m governed_serving.dossier", description=__doc__)
    html = parser.add_subparsers(dest="verb", required=True).add_parser("html", help="write the page")
    html.add_argument("--model", required=True, help="name of the model")
    html.add_argument("--report", type=Path, help="its GovernanceReport (JSON)")
    html.add_argument("--archive", help="archive folder, exported bundle or URL")
    html.add_argument("--output", type=Path, required=True, help="HTML file to write")
    html.add_argument(
        "--model-key", type=Path, help="the model's key-encryption key: opens artefact, requests, explanations"
    )
    html.add_argument(
        "--key-file",
        type=Path,
        action="append",
        default=[],
        help=f"verifier key to trust, or the archive's key-encryption key (default: ${runtime.KEK_FILE})",
    )
    html.add_argument(
        "--token-file", type=Path, help=f"bearer token for a URL (default: ${runtime.ARCHIVE_TOKEN_FILE})"
    )
    html.add_argument("--artefact", type=Path, help="unpacked artefact, instead of the one in the archive")
    html.add_argument("--example", default="", help="id of the request to show (default: the newest explained one)")
    html.add_argument(
        "--checkpoint", type=Path, action="append", default=[], help="an earlier checkpoint or GovernanceReport"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
