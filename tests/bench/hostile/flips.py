"""One changed byte at each of many places of a work directory, then a restart: prints what became of each."""

import argparse
import hashlib
import json
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from governed_api.names import ARCHIVE
from governed_serving.archive.errors import ArchiveError
from governed_serving.archive.ledger.merkle import ProofError, hash_leaf, verify_inclusion
from governed_serving.archive.service import Archive
from governed_serving.archive.verify.inspection import Asked, inspect_folder
from governed_serving.archive.verify.opening import beside_workdir
from governed_serving.auditor.service.shipping import Shipper
from governed_serving.crypto import CryptoError, SegmentCipher, load_kek
from governed_serving.journal import Journal, JournalError
from governed_serving.records import EventRecord
from governed_serving.report import ReportWriter

sys.path.insert(0, str(Path(__file__).parents[2]))
from support.work_folder import MODEL, POD, DirectClient, WorkFolder, made

ROOMS = (
    ("spool/journal", "journal"),
    ("ledger/log", "ledger"),
    ("ledger/tile", "tiles"),
    ("ledger/index", "index"),
    ("ledger/state", "state"),
    ("keysets", "keysets"),
    ("keyset-cache", "keysets"),
    ("keys", "keysets"),
    ("blobs", "blobs and artefact"),
    ("ledger", "checkpoint, edge, keys of it"),
)
OUTCOMES = ("served right", "mended", "quarantined", "one thing refused", "start refused", "verify names it", "SILENT")
UNSHIPPED, VERDICTS = 60, 1
"""Predictions that are served after the last shipping, and verdicts over them."""
EXPECTED = (ArchiveError, CryptoError, JournalError, OSError)


def room(name: str) -> str:
    return next((title for part, title in ROOMS if f"/{part}" in f"/{name}"), "references, states, reports, cursors")


@dataclass
class Truth:
    """What an undamaged run has: entries, blobs, references and states; events that callers were told are kept."""

    leaves: list[bytes]
    blobs: dict[str, bytes]
    names: dict[tuple[str, str], bytes]
    unshipped: int


@dataclass
class Life:
    """One restart over a folder: what it said, and what it served that isn't the truth."""

    said: list[str] = field(default_factory=list)
    withheld: list[str] = field(default_factory=list)
    quarantined: int = 0
    wrong: list[str] = field(default_factory=list)
    refused: str = ""


def names_of(archive: Archive, life: Life | None = None) -> dict[tuple[str, str], bytes]:
    """References, states and keysets; what is refused is said."""
    found: dict[tuple[str, str], bytes] = {}
    kinds: Any = (
        ("reference", archive.references, archive.reference),
        ("state", archive.states, lambda model, name: archive.state(model, name)[0]),
        ("keyset", archive.purposes, archive.keyset),
    )
    for kind, listed, read in kinds:
        for name in listed(MODEL):
            try:
                found[kind, name] = read(MODEL, name)
            except EXPECTED as error:
                if life is None:
                    raise
                life.withheld.append(f"{kind} {name}: {error}")
    return found


def blobs_of(archive: Archive, leaves: list[bytes]) -> dict[str, bytes]:
    named = {str(json.loads(leaf).get("blob", "")) for leaf in leaves} - {""}
    return {digest: path.read_bytes() for digest in named if (path := archive.blobs.path(digest)).is_file()}


def live(work: WorkFolder, truth: Truth | None) -> Life:
    """Start the archive, then the pod; serve one more request each, ship, look at everything."""
    life = Life()
    try:
        note = ReportWriter((work.root / "reports" / f"{ARCHIVE}.json").as_uri()).read("archive").get("checkpoint", "")
    except OSError as error:
        life.withheld.append(f"report: {error}")
        note = ""
    try:
        archive = work.opened({"GovernanceReport": note} if note else {})
    except EXPECTED as error:
        life.refused = str(error) or type(error).__name__
        return life
    try:
        _serve_and_ship(work, archive, life)
        place = archive.ledger.inspect(0)
        while place:
            place = archive.ledger.inspect(place)
        if truth is not None:
            _compare(archive, truth, life)
        life.said += [*archive.ledger.said, *archive.ledger.faults.values()]
    except EXPECTED as error:
        life.refused = str(error) or type(error).__name__
    finally:
        archive.close()
    return life


def _serve_and_ship(work: WorkFolder, archive: Archive, life: Life) -> None:
    cipher = SegmentCipher(work.model_keys(archive).keyset("journal"))
    for name in (f"server-{POD}", f"auditor-{POD}"):
        with Journal(work.spool, name, cipher) as journal:
            life.said += [journal.damage] if journal.damage else []
            journal.append_blocking(EventRecord("label", f"after-{name}", MODEL, "r1", work.now, b"{}", {}))
    shipper = Shipper(work.spool, DirectClient(archive), cipher, "default")  # type: ignore[arg-type]
    while shipper.step():
        continue
    life.quarantined = shipper.unreadable


def _compare(archive: Archive, truth: Truth, life: Life) -> None:
    ledger = archive.ledger
    leaves = ledger.entries(0, ledger.size)
    size, root = ledger.size, ledger.root_hash()
    if leaves[: len(truth.leaves)] != truth.leaves:
        life.wrong.append("entries differ")
    for index, leaf in enumerate(leaves):
        try:
            verify_inclusion(hash_leaf(leaf), index, size, ledger.inclusion(index, size), root)
        except ProofError as error:
            life.wrong.append(f"proof of {index}: {error}")
        entry = json.loads(leaf)
        if entry["id"] and index not in [f.index for f in ledger.find(entry["model"], entry["id"], limit=10_000)]:
            life.wrong.append(f"entry {index} isn't found by its id")
    behind = [json.loads(leaf) for leaf in leaves[len(truth.leaves) :]]
    told = sum(e["summary"]["frames"] for e in behind if e["type"] == "unreadable")
    kept = records_in(behind)
    if kept + told != truth.unshipped + 2:
        life.wrong.append(f"{truth.unshipped + 2} records were acknowledged, {kept} are kept and {told} told")
    for (kind, name), data in names_of(archive, life).items():
        if truth.names.get((kind, name), data) != data:
            life.wrong.append(f"{kind} {name} differs")
    for digest, data in blobs_of(archive, truth.leaves).items():
        if hashlib.sha256(data).hexdigest() != digest:
            life.withheld.append(f"blob {digest}: clients hold what they get against its address")


def outcome(life: Life, named: str) -> str:
    """``named``: what verify says of the damaged folder before anything was started."""
    if life.wrong:
        return "verify names it" if named else "SILENT"
    if life.refused:
        return "start refused"
    if life.withheld:
        return "one thing refused"
    if life.quarantined:
        return "quarantined"
    return "mended" if life.said else "served right"


def places(root: Path, count: int, rng: random.Random) -> list[tuple[str, int]]:
    """``count`` places: each room of the folder has as many, however large its files are."""
    rooms: dict[str, list[str]] = {}
    for path in sorted(p for p in root.rglob("*") if p.is_file() and p.stat().st_size):
        name = path.relative_to(root).as_posix()
        if not name.startswith("secrets/"):
            rooms.setdefault(room(name), []).append(name)
    found: list[tuple[str, int]] = []
    while len(found) < count:
        for names in rooms.values():
            name = rng.choice(names)
            found.append((name, rng.randrange((root / name).stat().st_size)))
    return found[:count]


def the_truth(made: WorkFolder, aside: Path, unshipped: int) -> Truth:
    """Of an undamaged copy: what is in the ledger now, and how many records aren't shipped yet, all of which must come
    to be kept: ``unshipped`` predictions, and a verdict over them."""
    shutil.copytree(made.root, aside)
    work = WorkFolder.again(aside, made.now)
    archive = work.opened()
    leaves = archive.ledger.entries(0, archive.ledger.size)
    truth = Truth(leaves, blobs_of(archive, leaves), names_of(archive), 0)
    archive.close()
    life = live(work, None)
    assert life == Life(), life
    archive = work.opened()
    behind = [json.loads(leaf) for leaf in archive.ledger.entries(len(leaves), archive.ledger.size)]
    archive.close()
    truth.unshipped = records_in(behind) - 2
    assert truth.unshipped == unshipped + VERDICTS, f"{unshipped} served and not shipped: {behind[-1]}"
    return truth


def records_in(entries: list[Any]) -> int:
    """What callers were told is kept; a dead letter is none of it."""
    return sum(entry["type"] in ("prediction", "verdict", "label") for entry in entries)


def verified(work: WorkFolder) -> str:
    findings = inspect_folder(
        work.archive, load_kek(work.kek_file), Asked(), beside_workdir(work.root, work.archive)
    ).findings
    return "; ".join(str(one) for one in (*findings.wrong, *findings.unchecked) if "secrets" not in str(one))


def run(count: int, seed: int, *, verbose: bool) -> int:
    rng = random.Random(seed)
    table: dict[str, Counter[str]] = {}
    silent: list[str] = []
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        pristine = made(Path(folder, "pristine"), rounds=3, requests=100)
        pristine.serve_more(UNSHIPPED)
        truth = the_truth(pristine, Path(folder, "truth"), UNSHIPPED)
        for number, (name, at) in enumerate(places(pristine.root, count, rng)):
            root = Path(folder, "case")
            shutil.copytree(pristine.root, root)
            data = bytearray((root / name).read_bytes())
            data[at] ^= rng.randrange(1, 256)
            (root / name).write_bytes(data)
            work = WorkFolder.again(root, pristine.now)
            named = verified(work)
            life = live(work, truth)
            found = outcome(life, named)
            table.setdefault(room(name), Counter())[found] += 1
            if verbose:
                print(f"{name}:{at} {found}: {life.refused or '; '.join(life.said + life.withheld + life.wrong)[:300]}")
            if found == "SILENT":
                silent.append(f"{number}: {name} byte {at}: {'; '.join(life.wrong)[:300]}")
            shutil.rmtree(root)
    _print(table, silent, f"{count} bytes flipped, seed {seed}, {time.monotonic() - began:.0f} s")
    return 1 if silent else 0


def _print(table: dict[str, Counter[str]], silent: list[str], footer: str) -> None:
    shown = Table("one byte of", "tried", *OUTCOMES, box=None)
    for title, counts in [*sorted(table.items()), ("all", sum(table.values(), Counter[str]()))]:
        shown.add_row(title, str(counts.total()), *(str(counts[o]) for o in OUTCOMES))
    Console(width=140).print(shown)
    print(footer)
    for line in silent:
        print(line)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--verbose", action="store_true", help="a line for each: the place, and what was said")
    parser.add_argument("--smoke", action="store_true", help="few places, to see that it runs")
    options = parser.parse_args()
    return run(12 if options.smoke else options.count, options.seed, verbose=options.verbose)


if __name__ == "__main__":
    sys.exit(main())
