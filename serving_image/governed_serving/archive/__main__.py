"""``python -m governed_serving.archive`` serve | fetch | verify | usage | export | backup | restore |
subject | rewrap."""

import argparse
import asyncio
import os
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from governed_api import runtime
from governed_api.printable import printable
from governed_serving.archive.errors import ArchiveError
from governed_serving.archive.verify.command_line import (
    add_checkpoint,
    add_keys,
    add_witnesses,
    expected_errors,
    fail,
    say,
)

if TYPE_CHECKING:
    from governed_serving.archive.verify.inspection import Asked, Inspection
    from governed_serving.archive.verify.sources import LogSource

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; 0 when it holds, 1 with one line on stderr when it doesn't, 2 for wrong usage."""
    options = _parser().parse_args(arguments)
    errors = expected_errors()
    try:
        return int(options.run(options))
    except errors as error:
        return fail(options.verb, error)
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m governed_serving.archive", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    serve = verbs.add_parser("serve", help="serve the archive of one namespace (GOVERNED_* environment)")
    serve.add_argument("--host", help=f"address to listen on (default: ${runtime.HOST}, else all)")
    serve.add_argument(
        "--accept-loss",
        action="store_true",
        help="go on although the ledger has less than was signed: an entry says for ever how much",
    )
    serve.set_defaults(run=_serve)
    fetch = verbs.add_parser("fetch", help="fetch the artefact into GOVERNED_MODEL_DIR and verify it (init container)")
    fetch.set_defaults(run=_fetch)
    _add_verify(verbs.add_parser("verify", help="recompute a ledger: signature, tree, blobs, one request's proof"))
    _add_detect(verbs.add_parser("detect", help="whether a content is ours, by what a ledger shows"))
    _add_usage(verbs.add_parser("usage", help="what each caller of a model used, by the entries of a ledger"))
    export = verbs.add_parser("export", help="write a self-contained bundle that verifies anywhere")
    _add_source(export)
    export.add_argument("output", type=Path, help="tar file to write (.tar or .tar.gz)")
    export.add_argument("--of", default="", metavar="MODEL", help="only the entries of this model, each with its proof")
    export.add_argument("--id", default="", help="only the entries with this id, each with its proof")
    export.add_argument("--blobs", action="store_true", help="with the (encrypted) blobs that the entries name")
    add_checkpoint(export, "the bundle then proves that the log extends it")
    export.set_defaults(run=_export)
    _add_backup(verbs)
    _add_subject(verbs)
    rewrap = verbs.add_parser("rewrap", help="wrap a model's keysets by another key-encryption key")
    rewrap.add_argument("url", help="the archive's URL")
    rewrap.add_argument("--model", required=True, help="the model whose keysets are wrapped")
    rewrap.add_argument("--token-file", type=Path, help=f"its bearer token (default: ${runtime.ARCHIVE_TOKEN_FILE})")
    rewrap.add_argument("--key-file", type=Path, help=f"the current key-encryption key (default: ${runtime.KEK_FILE})")
    rewrap.add_argument("--new-key-file", type=Path, required=True, help="the new key-encryption key")
    rewrap.set_defaults(run=_rewrap)
    return parser


def _add_verify(verify: argparse.ArgumentParser) -> None:
    _add_source(verify)
    verify.add_argument("--id", default="", help="also prove that this request (or other id) is in the ledger")
    verify.add_argument("--model-key", type=Path, help="the model's key-encryption key: shows the content of --id")
    add_checkpoint(verify)
    verify.add_argument(
        "--workdir", type=Path, help="work directory of the local run: spools and reports are checked as well"
    )
    verify.add_argument("--no-blobs", action="store_true", help="don't check that the blobs are present and unchanged")
    verify.add_argument(
        "--against",
        default="",
        help="for a receipt or promise: the folder, bundle or URL of the ledger that must have it",
    )
    add_witnesses(verify)
    verify.add_argument("--json", action="store_true", help="print the findings as JSON")
    verify.set_defaults(run=_verify)


def _add_detect(detect: argparse.ArgumentParser) -> None:
    _add_source(detect)
    detect.add_argument("content", help="file with an answer (JSON), its metadata or a text; - for the standard input")
    detect.add_argument("--id", default="", help="its ProduceID, where the content names none")
    detect.add_argument("--model-key", type=Path, help="the model's key-encryption key: opens the record")
    detect.add_argument("--json", action="store_true", help="print what was found as JSON")
    detect.set_defaults(run=_detect)


def _add_usage(usage: argparse.ArgumentParser) -> None:
    _add_source(usage)
    usage.add_argument("--of", required=True, metavar="MODEL", help="the model that was called")
    usage.add_argument("--start", default="", help="from this time on: 2026-11-01T00:00:00.000Z")
    usage.add_argument("--end", default="", help="before this time")
    usage.add_argument("--caller", default="", help="only of this pseudonym, or of this name among --names")
    usage.add_argument("--names", type=Path, help="file (JSON): who pseudonyms are")
    add_checkpoint(usage, "the log must go on from it")
    form = usage.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print it as JSON")
    form.add_argument("--csv", action="store_true", help="print it in the columns of FOCUS")
    usage.set_defaults(run=_usage)


def _add_backup(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    backup = verbs.add_parser("backup", help="write an archive to one file; it may be running")
    backup.add_argument("source", help="the archive's folder (stopped), or its URL")
    backup.add_argument("output", help="file to write, new or an older backup; - for the standard output")
    backup.add_argument("--url", default="", help="where a running archive is asked when its folder is named")
    backup.add_argument(
        "--key-file", type=Path, help=f"the archive's key-encryption key (default: ${runtime.KEK_FILE})"
    )
    backup.add_argument(
        "--token-file", type=Path, help=f"the reader's token (default: made of ${runtime.ARCHIVE_ROOT_FILE})"
    )
    backup.add_argument("--namespace", default="", help=f"of an archive that is asked (default: ${runtime.NAMESPACE})")
    backup.set_defaults(run=_backup)
    restore = verbs.add_parser("restore", help="put a backup into an empty folder, once all of it is verified")
    restore.add_argument("input", help="file that `backup` wrote; - for the standard input")
    restore.add_argument("folder", type=Path, help="where the archive is to lie: empty, or not there yet")
    restore.add_argument(
        "--key-file",
        type=Path,
        action="append",
        default=[],
        help=f"the archive's key-encryption key (default: ${runtime.KEK_FILE}); verifier key that must have signed",
    )
    add_checkpoint(restore, "an older backup is refused")
    restore.add_argument(
        "--accept-loss",
        action="store_true",
        help="take a backup that is older, or lacks something: an entry says for ever what was let go",
    )
    restore.add_argument(
        "--after",
        action="append",
        default=[],
        metavar="SOURCE",
        help="a newer copy of the same log (folder, bundle): persons erased since are erased again",
    )
    restore.add_argument(
        "--erased",
        type=Path,
        metavar="FILE",
        help="who was erased since an older backup: the digests that `subject erase` printed, a line each",
    )
    restore.add_argument(
        "--accept-return",
        action="store_true",
        help="persons who were erased since an older backup may come back: an entry says how many keys it has",
    )
    add_witnesses(restore)
    restore.set_defaults(run=_restore)


def _add_subject(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    subject = verbs.add_parser("subject", help="find, give out or erase what is held about a person")
    subject.add_argument("act", choices=("find", "export", "erase"))
    subject.add_argument("url", help="the archive's URL")
    subject.add_argument("--model", required=True, help="the model that was asked about the person")
    subject.add_argument(
        "--who", required=True, help="as requests said it, in spec.governance.privacy.subject; - reads standard input"
    )
    subject.add_argument("--by", default="", help="who erases")
    subject.add_argument("--reason", default="", help="why")
    subject.add_argument(
        "--token-file", type=Path, help=f"the operator's token (default: ${runtime.ARCHIVE_TOKEN_FILE})"
    )
    subject.add_argument("--key-file", type=Path, help=f"the model's key-encryption key (default: ${runtime.KEK_FILE})")
    subject.set_defaults(run=_subject)


def _add_source(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "source",
        help="an archive's folder, an exported bundle, or the archive's URL; for verify a receipt or promise",
    )
    add_keys(parser)
    parser.add_argument("--model", default="", help="the model that the token belongs to")


def _serve(options: argparse.Namespace) -> int:
    from governed_serving import hosting
    from governed_serving.archive.recovery import recover
    from governed_serving.archive.serve import serve
    from governed_serving.environment import PodEnvironment

    address = options.host or PodEnvironment().text(runtime.HOST, "0.0.0.0")

    async def start() -> None:
        await asyncio.to_thread(recover)
        await serve(address, accept_loss=options.accept_loss)

    return hosting.run("archive", start, expected_errors())


def _fetch(_: argparse.Namespace) -> int:
    """Exit status: runtime.EXIT_REFUSED where what was brought can't be served, however often it is asked for."""
    from governed_serving.archive.fetching.fetch import fetch, final

    try:
        say(f"fetch: {fetch()}", sys.stderr)
    except expected_errors() as error:
        code = fail("fetch", error)
        return runtime.EXIT_REFUSED if final(error) else code
    return 0


def _verify(options: argparse.Namespace) -> int:
    """Exit status: 0 verified, 1 not what was signed, 3 nothing wrong but something could not be checked."""
    from governed_serving.archive.verify.findings import EXIT_STATUS
    from governed_serving.archive.verify.inspection import Asked
    from governed_serving.archive.verify.opening import noted_checkpoint, trusted_vkey
    from governed_serving.archive.verify.promise import is_promise
    from governed_serving.archive.verify.receipt import is_receipt
    from governed_serving.archive.verify.witnesses import witness_rule

    vkey = trusted_vkey(options.key_file)
    earlier = tuple(noted_checkpoint(path) for path in options.checkpoint)
    witnesses = witness_rule(options.witness_key, options.quorum)
    asked = Asked(vkey, earlier, options.id, blobs=not options.no_blobs, witnesses=witnesses)
    if Path(options.source).is_file() and is_receipt(Path(options.source)):
        return EXIT_STATUS[_verify_receipt(options, asked)]
    if Path(options.source).is_file() and is_promise(Path(options.source)):
        return EXIT_STATUS[_verify_promise(options, asked)]
    if options.against:
        raise ArchiveError(f"--against is for a receipt or a promise, {options.source} is none")
    return EXIT_STATUS[_verify_log(options.source, options, asked)]


def _verify_log(where: str, options: argparse.Namespace, asked: "Asked") -> str:
    """The status of a folder, bundle or URL."""
    from governed_serving.archive.verify.inspection import inspect_folder, inspect_source
    from governed_serving.archive.verify.opening import beside_workdir, folder_kek, open_source
    from governed_serving.archive.verify.printing import print_content
    from governed_serving.archive.verify.sources import DirectorySource

    folder = Path(where)
    if "://" not in where and folder.is_dir():
        kek = folder_kek(options.key_file)
        source: LogSource = DirectorySource(folder, kek)
        beside = beside_workdir(options.workdir, folder) if options.workdir else None
        inspection = inspect_folder(folder, kek, asked, beside)
    else:
        source, _ = open_source(where, options.key_file, options.token_file, options.model)
        inspection = inspect_source(source, asked)
    with closing(source):
        _print(inspection, options, asked)
        if options.model_key and inspection.log is not None:
            print_content(source, inspection.log.proofs, options.model_key)
    return inspection.findings.status


def _verify_receipt(options: argparse.Namespace, asked: "Asked") -> str:
    """Offline; with ``--against`` also held against a ledger as it is now, which tells of keys that were rotated."""
    from governed_serving.archive.verify.findings import Findings
    from governed_serving.archive.verify.inspection import Inspection
    from governed_serving.archive.verify.receipt import check_receipt, read_receipt

    findings = Findings()
    with findings.looking_at("receipt"):
        receipt = read_receipt(Path(options.source))
        vkey = "" if options.against else asked.vkey
        check_receipt(receipt, vkey, asked.id, asked.witnesses, findings)
        if not vkey and not options.against:
            findings.skip("signature", "no key to check it: give the ledger's, kept elsewhere, as --key-file VKEY")
    inspection = Inspection(findings)
    _print(inspection, options, asked)
    if not options.against or findings.wrong:
        return findings.status
    earlier = (*asked.earlier, receipt.proof.note)
    return _verify_log(
        options.against, options, replace(asked, earlier=earlier, id="", witnesses=type(asked.witnesses)())
    )


def _verify_promise(options: argparse.Namespace, asked: "Asked") -> str:
    """Offline, by the ledger that ``--against`` names, which is verified first."""
    from governed_serving.archive.verify.findings import Findings
    from governed_serving.archive.verify.inspection import Inspection
    from governed_serving.archive.verify.opening import open_source
    from governed_serving.archive.verify.promise import check_promise, read_promise

    findings = Findings()
    status = "verified"
    with findings.looking_at("promise"):
        signed = read_promise(Path(options.source))
        if not options.against:
            findings.skip("key", "nothing tells who signed: name the ledger (folder, bundle or URL) as --against")
        else:
            alone = argparse.Namespace(**vars(options) | {"workdir": None})  # what lies beside a ledger shows nothing
            status = _verify_log(options.against, alone, replace(asked, id=""))
            if status == "tampered":
                raise ArchiveError("the ledger that it is held against isn't what was signed: it shows nothing")
            source, _ = open_source(options.against, options.key_file, options.token_file, options.model)
            with closing(source):
                check_promise(signed, asked.id, source, findings)
    _print(Inspection(findings), options, asked)
    return status if findings.status == "verified" else findings.status


def _print(inspection: "Inspection", options: argparse.Namespace, asked: "Asked") -> None:
    from governed_serving.archive.verify.printing import inspection_json, print_inspection

    if options.json:
        sys.stdout.write(
            printable(msgspec.json.format(inspection_json(inspection), indent=1).decode(), keep="\n") + "\n"
        )
    else:
        print_inspection(inspection, trusted=bool(asked.vkey))


def _detect(options: argparse.Namespace) -> int:
    """Exit status: 0 proved to be ours, 1 refuted or the ledger isn't what was signed, 3 not provable either way, 2
    nothing could be held against anything: no such file, ledger or key."""
    from governed_serving.archive.errors import Unreachable
    from governed_serving.archive.verify.detection import MOST_BYTES, AnotherKey, detect, read_content
    from governed_serving.archive.verify.opening import open_source
    from governed_serving.crypto import load_kek

    try:
        if options.content == "-":
            data = sys.stdin.buffer.read(MOST_BYTES + 1)
        else:
            with Path(options.content).open("rb") as file:
                data = file.read(MOST_BYTES + 1)
        content = read_content(data, options.id)
        key = load_kek(options.model_key) if options.model_key else None
        source, vkey = open_source(options.source, options.key_file, options.token_file, options.model)
    except expected_errors() as error:
        return 2 * fail(options.verb, error)
    with closing(source):
        try:
            found = detect(content, source, vkey=vkey, model_key=key)
        except (OSError, Unreachable, AnotherKey) as error:
            return 2 * fail(options.verb, error)
    if options.json:
        told = msgspec.to_builtins(found) | {"lines": [{"about": a, "found": words} for a, words in found.lines]}
        sys.stdout.write(printable(msgspec.json.format(msgspec.json.encode(told), indent=1).decode(), keep="\n") + "\n")
    else:
        for about, words in found.lines:
            say(f"{about:<11} {words}")
        say({"ours": "proved: ours", "refuted": "not ours by this ledger", "unproved": "not proved"}[found.outcome])
    return {"ours": 0, "refuted": 1, "unproved": 3}[found.outcome]


def _usage(options: argparse.Namespace) -> int:
    """Exit status: 0 all counted, 1 an entry isn't what was signed, 3 something could not be counted."""
    from governed_serving.archive.verify.bill import Name, print_usage, usage_json, write_csv
    from governed_serving.archive.verify.opening import noted_checkpoint, open_source
    from governed_serving.archive.verify.usage import fold
    from governed_serving.archive.verify.verification import verify
    from governed_serving.decoding import decode_json
    from governed_serving.records import CALLER_FORM

    names = decode_json(options.names.read_bytes(), type=dict[str, Name]) if options.names else {}
    caller = next((one for one, known in names.items() if known.name == options.caller), options.caller)
    if caller and not CALLER_FORM.fullmatch(caller):
        raise ArchiveError(f"{caller}: expected a ModelConsumer whose name may be told here, or a pseudonym")
    source, vkey = open_source(options.source, options.key_file, options.token_file, options.model)
    with closing(source):
        if options.checkpoint:
            earlier = tuple(noted_checkpoint(path) for path in options.checkpoint)
            verify(source, vkey=vkey, earlier=earlier, blobs=False, differing=[])
        found = fold(source, options.of, vkey=vkey, start=options.start, end=options.end, caller=caller)
    if options.json:
        sys.stdout.write(usage_json(found, names))
    elif options.csv:
        write_csv(found, names)
    else:
        print_usage(found, names, trusted=bool(vkey))
    for one in found.uncounted if options.csv else ():
        say(f"usage: not counted: entry {one.index}: {one.why}", sys.stderr)
    return 1 if found.altered else 3 if found.uncounted else 0


def _export(options: argparse.Namespace) -> int:
    from governed_serving.archive.verify.bundle import export
    from governed_serving.archive.verify.opening import noted_checkpoint, open_source

    source, _ = open_source(options.source, options.key_file, options.token_file, options.model)
    with closing(source):
        earlier = tuple(noted_checkpoint(path) for path in options.checkpoint)
        chosen = {"model": options.of, "id": options.id, "blobs": options.blobs}
        entries, blobs = export(source, options.output, **chosen, earlier=earlier)
    say(f"{options.output}: {entries} entries, {blobs} blobs; verify it with: verify {options.output}")
    return 0


def _backup(options: argparse.Namespace) -> int:
    """Exit status: 0 whole, 3 written, but the archive itself lacks something; 1 no backup."""
    from governed_serving.archive.taking import Asked, take, take_file

    asked = Asked(options.url, options.key_file, options.token_file, options.namespace)
    if options.output == "-":
        take(options.source, _write_out, asked)
        return 0
    target = Path(options.output)
    manifest = take_file(options.source, target, asked)
    held = f"{manifest.size} entries, {manifest.blobs} blobs, {len(manifest.files)} other files"
    say(f"{target}: {held} of {manifest.origin}")
    for fault in manifest.faults:
        say(f"the archive isn't whole: {fault}", sys.stderr)
    return 3 if manifest.faulty else 0


def _write_out(data: bytes) -> None:
    """To the standard output, unbuffered: what can't be written is an error here, not one more as the process ends."""
    view = memoryview(data)
    while view:
        view = view[os.write(1, view) :]


def _restore(options: argparse.Namespace) -> int:
    from governed_serving.archive.restore import Request, erased_list, restore
    from governed_serving.archive.verify.opening import folder_kek, noted_checkpoint, open_source, trusted_vkey
    from governed_serving.archive.verify.witnesses import witness_rule

    kek, vkey = folder_kek(options.key_file), trusted_vkey(options.key_file)
    told = {str(path): noted_checkpoint(path) for path in options.checkpoint}
    after = [open_source(where, options.key_file)[0] for where in options.after]
    request = Request(
        options.folder,
        kek,
        vkey,
        told,
        after,
        accept_loss=options.accept_loss,
        erased=erased_list(options.erased) if options.erased else frozenset(),
        accept_return=options.accept_return,
        witnesses=witness_rule(options.witness_key, options.quorum),
    )
    with open(0, "rb", closefd=False) if options.input == "-" else Path(options.input).open("rb") as file:
        done = restore(file, request)
    for finding in done.accepted:
        say(f"accepted: {finding}", sys.stderr)
    if not told:
        how = "give --checkpoint (a GovernanceReport, or one kept elsewhere)"
        say(f"not checked: whether a newer state was signed; {how}", sys.stderr)
    again = f"{done.deleted} deleted under retention, {done.erased} keys of erased persons destroyed"
    say(f"{options.folder}: {done.size} entries, {done.blobs} blobs, verified; again {again}")
    return 0


def _subject(options: argparse.Namespace) -> int:
    from governed_serving.archive.client import ArchiveClient
    from governed_serving.archive.errors import ArchiveError
    from governed_serving.archive.subjects import Person, named_person
    from governed_serving.crypto import load_kek
    from governed_serving.environment import PodEnvironment

    env = PodEnvironment()
    kek = load_kek(options.key_file or env.required_path(runtime.KEK_FILE, "the model's key, or --key-file"))
    token = options.token_file.read_text() if options.token_file else env.token()
    who = named_person(options.who, sys.stdin.buffer)
    with ArchiveClient(options.url, token, options.model, patience=10.0) as client:
        person = Person(client, kek, who)
        if options.act == "export":
            for record in person.content():
                sys.stdout.write(printable(msgspec.json.encode(record).decode(), keep="\n") + "\n")
        elif options.act == "find":
            held, keys = person.held(), person.keys()
            places = ", ".join(str(record.index) for record in held[:20]) + (" …" if len(held) > 20 else "")
            state = "can be opened" if keys else "nothing can be opened"
            say(f"{person.subject}: {len(held)} predictions in the ledger ({places or 'none'}); {state}")
        else:
            if not (options.by.strip() and options.reason.strip()):
                raise ArchiveError("erasing needs --by and --reason: the receipt tells who and why")
            done = person.erase(options.by, options.reason, time.time())
            said = "can't be opened by anyone any more, the ledger says so"
            say(f"{person.subject}: erased; {done.predictions} predictions {said}")
    return 0


def _rewrap(options: argparse.Namespace) -> int:
    """Interrupted, it is run again with the same two keys. Pods that hold the old key go on with what they have opened,
    and must be given the new one before they start again."""
    from governed_serving.archive.client import ArchiveClient
    from governed_serving.crypto import Keyring, load_kek
    from governed_serving.environment import PodEnvironment

    env = PodEnvironment()
    old = load_kek(options.key_file or env.required_path(runtime.KEK_FILE, "the key-encryption key, or --key-file"))
    new = load_kek(options.new_key_file)
    token = options.token_file.read_text() if options.token_file else env.token()
    with ArchiveClient(options.url, token, options.model, patience=10.0) as client:
        events = Keyring(old, client.keysets()).rewrap(new)
    purposes = ", ".join(event.purpose for event in events) or "none: all are wrapped by it already"
    say(f"keysets of {options.model} that are wrapped by key {new.id} now: {purposes}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
