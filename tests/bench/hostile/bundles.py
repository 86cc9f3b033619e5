"""Random tamperings of a ledger's bundles, each shown to the verifier of other people's code: prints a table."""

import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rich.console import Console
from rich.table import Table

from governed_serving.archive.verify.bundle import export
from governed_serving.archive.verify.sources import DirectorySource
from governed_serving.crypto import load_kek

sys.path.insert(0, str(Path(__file__).parents[2]))
from support.programs import program
from support.tampered_bundles import members, only_another_keys_line, rebuilt, tampered
from support.work_folder import MODEL, WorkFolder, made

__all__ = ["run"]

OUTCOMES = ("refused", "another key's line", "unnamed", "unsaid")


def run(count: int, seed: int) -> int:
    """Exit status: 1 where one went unsaid, or is refused without a word of what. A checkpoint from before the last
    round is what the auditor kept."""
    verifier, began = program("ledger-verifier"), time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        older: list[str] = []
        work = made(root / "work", requests=130, between=lambda w: older.append(w.checkpoint))
        (root / "kept").write_text(older[0])
        table, unsaid = dict[str, Counter[str]](), list[str]()
        for title, pristine in bundles(work, root, older[0]).items():
            show = Judge(str(verifier), root, pristine)
            if show.said(pristine, "whole"):
                print(f"{title}: untouched, and yet refused: {show.said(pristine, 'whole')}")
                return 1
            with ThreadPoolExecutor(os.cpu_count()) as pool:
                for name, outcome in pool.map(show.outcome, range(seed * count, seed * count + count // 2)):
                    table.setdefault(f"{title}: {name}", Counter())[outcome] += 1
                    if outcome in ("unnamed", "unsaid"):
                        unsaid.append(f"{outcome}: {title}: {name}")
    _print(table, unsaid, f"{count} tamperings, seed {seed}, {time.monotonic() - began:.0f} s")
    return 1 if unsaid else 0


def bundles(work: WorkFolder, root: Path, earlier: str) -> dict[str, dict[str, bytes]]:
    """Members of the whole log with its blobs, and of one model's part of it, by title."""
    source = DirectorySource(work.archive, load_kek(work.kek_file))
    export(source, root / "whole.tar", blobs=True)
    export(source, root / "part.tar", model=MODEL, earlier=(earlier,))
    return {"whole": members(root / "whole.tar"), "part": members(root / "part.tar")}


class Judge:
    """Shows tampered copies of ``pristine`` to the ``verifier``."""

    def __init__(self, verifier: str, root: Path, pristine: dict[str, bytes]) -> None:
        self._verifier, self._root, self._pristine = verifier, root, pristine

    def said(self, files: dict[str, bytes], name: str) -> str:
        """Why a bundle of ``files`` isn't verified; "" where it is."""
        path = rebuilt(self._root / f"{name}.tar", files)
        words = [self._verifier, "-checkpoint", str(self._root / "kept"), str(path)]
        done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=300)
        path.unlink()
        return "" if done.returncode == 0 else done.stdout.strip() or "nothing"

    def outcome(self, number: int) -> tuple[str, str]:
        """(Kind of the member that was changed, what came of it)."""
        rng = random.Random(number)
        while True:
            files = dict(self._pristine)
            name = tampered(rng, files)
            if files != self._pristine:
                break
        kind = name.partition("/")[0]
        if said := self.said(files, str(number)):
            return kind, "unnamed" if said == "nothing" else "refused"
        return kind, "another key's line" if only_another_keys_line(self._pristine, files) else "unsaid"


def _print(table: dict[str, Counter[str]], unsaid: list[str], footer: str) -> None:
    shown = Table("member changed", "tried", *OUTCOMES, box=None, title="verifier in Go")
    for title, counts in [*sorted(table.items()), ("all", sum(table.values(), Counter[str]()))]:
        shown.add_row(title, str(counts.total()), *(str(counts[o]) for o in OUTCOMES))
    Console(width=110).print(shown)
    for line in unsaid:
        print(line)
    print(footer)
    print("another key's line: an older key's signature, which who has the newest passes over (C2SP signed-note)")
