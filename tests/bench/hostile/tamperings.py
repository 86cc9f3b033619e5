"""Random tamperings of a work directory, each verified and undone: what goes unsaid is printed. Prints a table."""

import argparse
import json
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from governed_serving.archive.verify.findings import Findings
from governed_serving.archive.verify.inspection import Asked, inspect_folder
from governed_serving.archive.verify.opening import beside_workdir
from governed_serving.crypto import load_kek
from governed_serving.journal import cursor_text, written_twice

sys.path.insert(0, str(Path(__file__).parents[2]))
from support.work_folder import POD, WorkFolder, made

LIVE = {
    "observedAt",
    "phase",
    "message",
    "progress",
    "trainingHash",
    "alarm",
    "alarms",
    "inForce",
    "deadLetters",
    "server",
}
"""Fields of a report that nothing signs, as every verification says."""


@dataclass
class Folder:
    """The work directory, an older copy of it, and how to put things back."""

    work: WorkFolder
    older: Path
    kept: str
    rng: random.Random
    pristine: dict[str, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.pristine = self.files()

    def files(self) -> dict[str, bytes]:
        root = self.work.root
        found = {p.relative_to(root).as_posix(): p.read_bytes() for p in root.rglob("*") if p.is_file()}
        return {
            name: data for name, data in found.items() if not name.startswith("secrets/") and not name.endswith(".lock")
        }

    def one(self, *endings: str) -> str:
        return self.rng.choice(sorted(n for n in self.pristine if not endings or n.endswith(endings)))

    def write(self, name: str, data: bytes) -> None:
        path = self.work.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    def restore(self) -> None:
        now = self.files()
        for name in now.keys() - self.pristine.keys():
            (self.work.root / name).unlink()
        for name, data in self.pristine.items():
            if now.get(name) != data:
                self.write(name, data)

    def verify(self, asked: Asked) -> Findings:
        archive = self.work.archive
        beside = beside_workdir(self.work.root, archive)
        return inspect_folder(archive, load_kek(self.work.kek_file), asked, beside).findings


Tampering = Callable[[Folder], str]
"""Changes something; its place, in words that a finding should have."""


def flip_bit(f: Folder) -> str:
    name = f.one()
    data = bytearray(f.pristine[name])
    if not data:
        return ""
    data[f.rng.randrange(len(data))] ^= 1 << f.rng.randrange(8)
    f.write(name, bytes(data))
    return name


def overwrite(f: Folder) -> str:
    name = f.one()
    data = bytearray(f.pristine[name])
    if len(data) < 2:
        return ""
    start = f.rng.randrange(len(data))
    length = min(f.rng.choice((1, 4, 32, 256)), len(data) - start)
    data[start : start + length] = f.rng.choice((bytes(length), f.rng.randbytes(length), b" " * length))
    f.write(name, bytes(data))
    return name


def truncate(f: Folder) -> str:
    name = f.one()
    if f.pristine[name]:
        f.write(name, f.pristine[name][: f.rng.randrange(len(f.pristine[name]))])
    return name


def extend(f: Folder) -> str:
    name = f.one()
    f.write(
        name, f.pristine[name] + f.rng.choice((b"\n", b" ", b"\0" * 16, f.rng.randbytes(40), f.pristine[name] or b"x"))
    )
    return name


def cut_out(f: Folder) -> str:
    name = f.one()
    data = f.pristine[name]
    if len(data) > 2:
        start = f.rng.randrange(len(data) - 1)
        f.write(name, data[:start] + data[start + f.rng.choice((1, 8, 64)) :])
    return name


def delete(f: Folder) -> str:
    name = f.one()
    (f.work.root / name).unlink()
    return name


def swap(f: Folder) -> str:
    name = f.one()
    like = [n for n in f.pristine if n != name and Path(n).suffix == Path(name).suffix]
    other = f.rng.choice(sorted(like)) if like else f.one()
    f.write(name, f.pristine[other])
    f.write(other, f.pristine[name])
    return f"{name} {other}"


def put_over(f: Folder) -> str:
    name, other = f.one(), f.one()
    f.write(name, f.pristine[other])
    return name


def duplicate(f: Folder) -> str:
    name = f.one()
    path = Path(name)
    other = path.with_name(
        f.rng.choice((f"{path.stem}-2{path.suffix}", f"copy{path.suffix}", f"{'0' * 19}7{path.suffix}"))
    )
    if other.as_posix() in f.pristine:
        return ""
    f.write(other.as_posix(), f.pristine[name])
    return other.as_posix()


def roll_back_file(f: Folder) -> str:
    older = sorted(n for n in f.pristine if (f.older / n).is_file())
    name = f.rng.choice(older)
    f.write(name, (f.older / name).read_bytes())
    return name


FOLDERS = ("ledger", "ledger/log", "ledger/index", "ledger/tile", "blobs", "keys", "keysets", "refs", "states", "")


def _roll_back(f: Folder, below: Path) -> None:
    shutil.rmtree(f.work.root / below)
    shutil.copytree(f.older / below, f.work.root / below)


def _below(f: Folder) -> Path:
    archive = f.work.archive.relative_to(f.work.root)
    spool = f.work.spool.relative_to(f.work.root)
    those = [archive / name for name in FOLDERS]
    those += [spool, spool / "journal", spool / "journal" / f"server-{POD}", spool / "cursors", Path("reports")]
    return f.rng.choice([p for p in those if (f.older / p).is_dir()])


def roll_back_folder(f: Folder) -> str:
    below = _below(f)
    _roll_back(f, below)
    return below.as_posix()


def delete_folder(f: Folder) -> str:
    below = _below(f)
    shutil.rmtree(f.work.root / below)
    return below.as_posix()


def roll_back_all(f: Folder) -> str:
    for name in ("volumes", "reports"):
        _roll_back(f, Path(name))
    return "checkpoint"


def edit_json(f: Folder) -> str:
    name = f.one(".json", f"shipped-server-{POD}", f"shipped-auditor-{POD}")
    document = json.loads(cursor_text(f.pristine[name])[0] if "cursors" in name else f.pristine[name])
    places = list(_leaves(document))
    holder, key, way = f.rng.choice(places)
    value = holder[key]
    if f.rng.random() < 0.2:
        del holder[key]
    elif isinstance(value, bool) or value is None:
        holder[key] = not value
    elif isinstance(value, int | float):
        holder[key] = f.rng.choice((value + 1, -value or 7, value * 2 or 5))
    else:
        holder[key] = f.rng.choice((str(value)[::-1] + "x", "", "Pass"))
    # as the program that wrote it would write it
    text = (
        json.dumps(document, indent=1, ensure_ascii=False)
        if name.startswith("reports/")
        else json.dumps(document, separators=(",", ":"))
    )
    f.write(name, written_twice(text.encode()) if "cursors" in name else text.encode())
    return f"{name} {way}"


def _leaves(value: Any, way: str = "") -> Any:
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, below in list(items):
        if isinstance(below, dict | list) and below:
            yield from _leaves(below, f"{way}.{key}")
        else:
            yield value, key, f"{way}.{key}"


KINDS: dict[str, tuple[Tampering, int]] = {
    "a bit flipped": (flip_bit, 20),
    "bytes overwritten": (overwrite, 12),
    "cut short": (truncate, 10),
    "made longer": (extend, 8),
    "bytes cut out": (cut_out, 8),
    "file deleted": (delete, 8),
    "two files swapped": (swap, 6),
    "another file put over it": (put_over, 6),
    "file copied beside it": (duplicate, 6),
    "file rolled back": (roll_back_file, 8),
    "folder rolled back": (roll_back_folder, 5),
    "folder deleted": (delete_folder, 5),
    "whole folder rolled back": (roll_back_all, 1),
    "JSON edited": (edit_json, 12),
}
"""Kind → what it does, and how often."""


@dataclass
class Counted:
    said: Counter[str] = field(default_factory=Counter)
    unsaid: list[tuple[str, str]] = field(default_factory=list)


def live_only(f: Folder) -> bool:
    """Whether nothing but live status of reports differs: no verification can tell, each says so."""
    changed = {n for n, d in f.files().items() if f.pristine.get(n) != d} | (f.pristine.keys() - f.files().keys())
    if not changed or any(not n.startswith("reports/") for n in changed):
        return False
    try:
        now = f.files()
        return all(_signed(json.loads(now[n])) == _signed(json.loads(f.pristine[n])) for n in changed)
    except (KeyError, ValueError):
        return False


def _signed(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _signed(v) for k, v in value.items() if k not in LIVE}
    return [_signed(v) for v in value] if isinstance(value, list) else value


def texts(found: Findings) -> set[str]:
    return {str(one) for one in (*found.wrong, *found.unchecked, *found.beyond)}


def outcome(f: Folder, kind: str, usual: set[str]) -> str:
    asked = Asked(earlier=(f.kept,)) if kind == "whole folder rolled back" else Asked()
    found = f.verify(asked)
    if found.status != "verified":
        return found.status if named(f, found, usual) else "unnamed"
    if texts(found) - usual:
        return "noted"
    return "live status" if live_only(f) else "unsaid"


def named(f: Folder, found: Findings, usual: set[str]) -> bool:
    """Whether a new finding says where: a changed file by its name, its folder, or for the log an entry."""
    said = " ".join(texts(found) - usual)
    now = f.files()
    changed = {n for n in now.keys() | f.pristine.keys() if now.get(n) != f.pristine.get(n)}
    words = {word for n in changed for word in (Path(n).name, Path(n).name.split(".")[0], Path(n).parent.name)}
    if any("ledger/log" in n for n in changed):
        words |= {"entry", "entries"}
    return any(word in said for word in words)


def different(f: Folder) -> str:
    """Where a report differs, in short."""
    now = f.files()
    for name in f.pristine:
        if name.startswith("reports/") and name in now and now[name] != f.pristine[name]:
            first = next((i for i, (a, b) in enumerate(zip(now[name], f.pristine[name], strict=False)) if a != b), 0)
            return f": {f.pristine[name][first - 30 : first + 10]!r} → {now[name][first - 30 : first + 10]!r}"
    return ""


def run(f: Folder, count: int) -> dict[str, Counted]:
    table = {kind: Counted() for kind in KINDS}
    weights = [weight for _, weight in KINDS.values()]
    usual = texts(f.verify(Asked()))
    done = 0
    while done < count:
        (kind,) = f.rng.choices(list(KINDS), weights)
        place = KINDS[kind][0](f)
        if f.files() == f.pristine:
            continue
        done += 1
        said = outcome(f, kind, usual)
        table[kind].said[said] += 1
        if said in ("unsaid", "unnamed"):
            table[kind].unsaid.append((said, place + different(f)))
        f.restore()
    return table


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--smoke", action="store_true", help="seconds, to see that it runs and that nothing goes unsaid"
    )
    parser.add_argument(
        "--verifier", choices=("governed", "go"), default="governed", help="go: bundles, which is all that it can see"
    )
    given = parser.parse_args()
    count = 120 if given.smoke else given.count
    if given.verifier == "go":
        import bundles  # the bench beside this one, whose program is built when it is asked for

        return bundles.run(count, given.seed)
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        older = Path(scratch, "older")
        work = made(Path(scratch, "work"), requests=40 if given.smoke else 150, between=lambda w: keep(w, older))
        folder = Folder(work, older, work.checkpoint, random.Random(given.seed))
        if (found := folder.verify(Asked())).status != "verified":
            print(f"untouched, and yet {found.status}: {texts(found)}")
            return 1
        counted = run(folder, count)
    show(counted, count, given.seed, time.monotonic() - began)
    return 1 if any(c.unsaid for c in counted.values()) else 0


def keep(work: WorkFolder, older: Path) -> None:
    shutil.copytree(work.root, older, dirs_exist_ok=True)


def show(counted: dict[str, Counted], count: int, seed: int, seconds: float) -> None:
    columns = ("tampered", "incomplete", "noted", "live status", "unnamed", "unsaid")
    table = Table("kind", "tried", *columns, box=None)
    for kind, one in counted.items():
        table.add_row(kind, str(one.said.total()), *(str(one.said[c]) for c in columns))
    whole = sum((c.said for c in counted.values()), Counter[str]())
    table.add_row("all", str(whole.total()), *(str(whole[c]) for c in columns))
    console = Console(width=110)
    console.print(table)
    for kind, one in counted.items():
        for said, place in one.unsaid:
            console.print(f"{said}: {kind}: {place}", soft_wrap=True)
    console.print(
        f"{count} tamperings, seed {seed}, {seconds:.0f} s. noted: exit 0, in words (behind, as after a kill)"
    )
    console.print("live status: fields of reports that nothing signs, which every verification says")


if __name__ == "__main__":
    sys.exit(main())
