"""``python -m governed_serving.dossier html``: the governance report of one model as one HTML page."""

import argparse
import sys
from collections.abc import Sequence
from contextlib import closing
from functools import partial
from pathlib import Path

from governed_api.model import GovernedModelSpec
from governed_api.resolved import ResolvedModel
from governed_serving.archive.errors import ArchiveError
from governed_serving.archive.verify.command_line import add_checkpoint, add_keys, expected_errors, fail
from governed_serving.archive.verify.opening import noted_checkpoint, open_source
from governed_serving.crypto import load_kek
from governed_serving.decoding import decode_json
from governed_serving.dossier.dossier import Archived, document_files, gather
from governed_serving.dossier.laws.pack import PackError, packs
from governed_serving.dossier.page import render_page

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the page; 0, or 1 with one line on stderr."""
    options = _parser().parse_args(arguments)
    expected: tuple[type[Exception], ...] = (*expected_errors(), PackError)
    try:
        page = _page(options)
        options.output.write_text(page, encoding="utf-8")
    except expected as error:
        return fail("report", error)
    print(f"{options.output}: {len(page.encode()) / 1024:.0f} KiB", file=sys.stderr)
    return 0


def _page(options: argparse.Namespace) -> str:
    report = decode_json(options.report.read_bytes()) if options.report else {}
    if not isinstance(report, dict):
        raise ArchiveError(f"{options.report}: expected a GovernanceReport as a JSON object")
    documents = document_files(options.artefact) if options.artefact else None
    kek = load_kek(options.model_key) if options.model_key else None
    earlier = tuple(noted_checkpoint(path) for path in options.checkpoint)
    manifest = _manifest(options.manifest) if options.manifest else None
    laws = packs(options.laws)
    collect = partial(
        gather,
        options.model,
        report=report,
        documents=documents,
        example=options.example,
        kek=kek,
        manifest=manifest,
    )
    if not options.archive:
        return render_page(collect(), laws)
    source, vkey = open_source(options.archive, options.key_file, options.token_file, options.model)
    with closing(source):
        return render_page(collect(archive=Archived(source, vkey, earlier)), laws)


def _manifest(path: Path) -> GovernedModelSpec:
    try:
        return ResolvedModel.load(path).spec
    except ValueError as error:
        raise ArchiveError(f"{path}: expected a resolved GovernedModel (JSON): {error}") from error


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
    add_keys(html)
    html.add_argument("--artefact", type=Path, help="unpacked artefact, instead of the one in the archive")
    html.add_argument("--example", default="", help="id of the request to show (default: the newest explained one)")
    html.add_argument(
        "--manifest", type=Path, help="the resolved GovernedModel (JSON): rules, and what people supplied"
    )
    html.add_argument("--laws", type=Path, help="folder of law packs (*.yaml) beside those of the project")
    add_checkpoint(html)
    return parser


if __name__ == "__main__":
    sys.exit(main())
