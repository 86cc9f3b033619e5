"""``python -m governed_serving.dossier html | zip | facts | verify``: the governance report of one model as one HTML
page; as a dossier with what it was made of; as the console shows it; and whether a dossier is what was signed."""

import argparse
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from governed_api.model import GovernedModelSpec
from governed_api.resolved import ResolvedModel
from governed_serving.archive.errors import ArchiveError
from governed_serving.archive.ledger.note import Verifier, open_dossier
from governed_serving.archive.verify.bundle import export
from governed_serving.archive.verify.command_line import (
    add_checkpoint,
    add_keys,
    add_witnesses,
    expected_errors,
    fail,
    say,
)
from governed_serving.archive.verify.findings import EXIT_STATUS, Findings
from governed_serving.archive.verify.inspection import Asked, inspect_source
from governed_serving.archive.verify.opening import noted_checkpoint, open_source, trusted_vkey
from governed_serving.archive.verify.printing import print_inspection
from governed_serving.archive.verify.sources import BundleSource
from governed_serving.archive.verify.witnesses import witness_rule
from governed_serving.crypto import load_kek
from governed_serving.decoding import decode_json
from governed_serving.dossier.dossier import Archived, Dossier, document_files, gather
from governed_serving.dossier.facts import decision_facts, model_facts
from governed_serving.dossier.laws.pack import PackError, packs
from governed_serving.dossier.package import (
    INDEX,
    LEDGER,
    NOTE,
    PAGE,
    REPORT,
    RULES,
    VKEY,
    Index,
    index_digest,
    packed,
    unpacked,
)  # fmt: skip
from governed_serving.dossier.page import render_page
from governed_serving.records import LedgerEntry

__all__ = ["main"]

_BY_ITSELF = "verified by the key that is in it: --key-file VKEY shows whether that is the archive's"


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the page or the dossier: 0, or 1 with one line on stderr; or verify one, with that command's status."""
    options = _parser().parse_args(arguments)
    expected: tuple[type[Exception], ...] = (*expected_errors(), PackError)
    try:
        if options.verb == "verify":
            return _verify(options)
        if options.verb == "zip":
            _zip(options)
        elif options.verb == "facts":
            options.output.write_bytes(_facts(options))
        else:
            options.output.write_text(_page(options), encoding="utf-8")
    except expected as error:
        return fail(options.verb if options.verb == "verify" else "report", error)
    print(f"{options.output}: {options.output.stat().st_size / 1024:.0f} KiB", file=sys.stderr)
    return 0


def _zip(options: argparse.Namespace) -> None:
    if not options.archive:
        raise ArchiveError("a dossier is made of a ledger: --archive names it")
    page = _page(options)
    with tempfile.TemporaryDirectory(prefix="governed-dossier-") as name:
        folder = Path(name)
        (folder / PAGE).write_text(page, encoding="utf-8")
        earlier = tuple(noted_checkpoint(path) for path in options.checkpoint)
        source, _ = open_source(options.archive, options.key_file, options.token_file, options.model)
        with closing(source):
            export(source, folder / LEDGER, model=options.model, blobs=options.blobs, earlier=earlier)
        with closing(BundleSource(folder / LEDGER)) as bundle:
            note = bundle.checkpoint()
            (folder / VKEY).write_text(bundle.vkey())
        files = {name: folder / name for name in (PAGE, LEDGER, VKEY)}
        given = {REPORT: options.report, RULES: options.manifest}
        files |= {name: path for name, path in given.items() if path}
        packed(options.output, options.model, note, files, partial(_signature, options))


def _signature(options: argparse.Namespace, digest: str) -> str:
    source, _ = open_source(options.archive, options.key_file, options.token_file, options.model)
    with closing(source):
        return source.signed_dossier(options.model, digest)


def _verify(options: argparse.Namespace) -> int:
    """As of a bundle, once the dossier is whole; its index is held against the ledger and its key's signature."""
    vkey = trusted_vkey(options.key_file)
    earlier = tuple(noted_checkpoint(path) for path in options.checkpoint)
    asked = Asked(vkey, earlier, options.id, witnesses=witness_rule(options.witness_key, options.quorum))
    with tempfile.TemporaryDirectory(prefix="governed-verify-") as name:
        folder = Path(name)
        index = unpacked(options.dossier, folder)
        with closing(BundleSource(folder / LEDGER)) as source:
            own = source.vkey().strip()
            inspection = inspect_source(source, asked)
            log, findings = inspection.log, inspection.findings
            if log is not None:
                _check_whose(source, log.size, index.model, findings)
        if own.encode() != (folder / VKEY).read_bytes().strip():
            findings.fault(VKEY, "it isn't the key in the ledger's bundle")
        if log is not None and (log.origin, log.size, log.root) != (index.origin, index.size, index.root):
            findings.fault("index.json", "it names another ledger, or another size of it, than the bundle's checkpoint")
        _check_signed(folder, index, vkey or own, findings)
    say(f"dossier     {index.model}: {len(index.files)} files are what {INDEX} says")
    print_inspection(inspection, trusted=bool(vkey), verified="verified" if vkey else _BY_ITSELF)
    return EXIT_STATUS[findings.status]


def _check_whose(source: BundleSource, size: int, about: str, findings: Findings) -> None:
    """Each entry is of the model that the index names."""
    with findings.looking_at(LEDGER):
        models = Counter(decode_json(leaf.data, type=LedgerEntry).model for leaf in source.leaves(size))
        for model in sorted(models.keys() - {about}):
            findings.fault(LEDGER, f"{models[model]} entries are about {model}, the dossier is about {about}")


def _check_signed(folder: Path, index: Index, vkey: str, findings: Findings) -> None:
    """Whether the ledger's key signed the index, and so what is in the dossier beside the ledger."""
    beside = ", ".join(one.name for one in index.files if one.name not in (LEDGER, VKEY))
    if not (folder / NOTE).exists():
        findings.skip(beside, f"not proved: no {NOTE} is in it (made of a bundle, or the signature was taken away)")
        return
    with findings.looking_at(NOTE):
        open_dossier(
            (folder / NOTE).read_text(encoding="utf-8"), Verifier.parse(vkey), index.model, index_digest(folder)
        )
        findings.hold("unchanged", f"{beside}: as they were when the key that signs the ledger signed {INDEX}")
        findings.note(f"whether {beside} are true", "that they are unchanged is proved, and the entries in the ledger")


def _page(options: argparse.Namespace) -> str:
    laws = packs(options.laws)
    with _archived(options) as archived:
        return render_page(_gathered(options, archived), laws)


def _facts(options: argparse.Namespace) -> bytes:
    laws = packs(options.laws)
    with _archived(options) as archived:
        if not options.id:
            return model_facts(_gathered(options, archived), laws)
        if archived is None:
            raise ArchiveError("a decision is looked up in a ledger: --archive names it")
        kek = load_kek(options.model_key) if options.model_key else None
        return decision_facts(Dossier(options.model, datetime.now(UTC)), archived, kek, options.id)


@contextmanager
def _archived(options: argparse.Namespace) -> Iterator[Archived | None]:
    """None where no archive was given."""
    if not options.archive:
        yield None
        return
    earlier = tuple(noted_checkpoint(path) for path in options.checkpoint)
    source, vkey = open_source(options.archive, options.key_file, options.token_file, options.model)
    with closing(source):
        yield Archived(source, vkey, earlier)


def _gathered(options: argparse.Namespace, archived: Archived | None) -> Dossier:
    report = decode_json(options.report.read_bytes()) if options.report else {}
    if not isinstance(report, dict):
        raise ArchiveError(f"{options.report}: expected a GovernanceReport as a JSON object")
    return gather(
        options.model,
        report=report,
        archive=archived,
        documents=document_files(options.artefact) if options.artefact else None,
        example=options.example,
        kek=load_kek(options.model_key) if options.model_key else None,
        manifest=_manifest(options.manifest) if options.manifest else None,
    )


def _manifest(path: Path) -> GovernedModelSpec:
    try:
        return ResolvedModel.load(path).spec
    except ValueError as error:
        raise ArchiveError(f"{path}: expected a resolved GovernedModel (JSON): {error}") from error


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m governed_serving.dossier", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    _add_inputs(verbs.add_parser("html", help="write the page"))
    dossier = verbs.add_parser("zip", help="write the page with what it was made of")
    _add_inputs(dossier)
    dossier.add_argument("--blobs", action="store_true", help="with the (encrypted) blobs that the entries name")
    facts = verbs.add_parser("facts", help="write what the console shows, as JSON")
    _add_inputs(facts)
    facts.add_argument("--id", default="", help="of this request alone, with its proofs")
    verify = verbs.add_parser("verify", help="whether a dossier is what was signed")
    verify.add_argument("dossier", type=Path, help="zip file")
    add_keys(verify)
    add_checkpoint(verify)
    verify.add_argument("--id", default="", help="also prove that this request (or other id) is in its ledger")
    add_witnesses(verify)
    return parser


def _add_inputs(html: argparse.ArgumentParser) -> None:
    html.add_argument("--model", required=True, help="name of the model")
    html.add_argument("--report", type=Path, help="its GovernanceReport (JSON)")
    html.add_argument("--archive", help="archive folder, exported bundle or URL")
    html.add_argument("--output", type=Path, required=True, help="file to write")
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


if __name__ == "__main__":
    sys.exit(main())
