"""``tests/run mutants [ROOM …] [--sample N] [--seed S] [--require PERCENT]``: plants faults, names those that no test
notices."""

import argparse
import os
import random
import sys
import tempfile
from pathlib import Path

from mutants.equivalent import equivalents
from mutants.planting import Mutant, mutants
from mutants.rooms import ROOMS, Room, chosen
from mutants.running import Outcome, copy_tree, judge, unmount_below
from mutants.traces import BaselineFailed, trace
from support.places import cache

ROOT = Path(__file__).parents[2]


def main() -> int:
    """Exit code: 0 when every room reaches ``--require``, 1 below it, 2 for what can't be run."""
    parser = argparse.ArgumentParser(prog="tests/run mutants", description=__doc__)
    parser.add_argument(
        "rooms", nargs="*", metavar="ROOM", help=f"{', '.join(ROOMS)}, or a path in one; all by default"
    )
    parser.add_argument("--sample", type=int, default=0, metavar="N", help="that many mutants of each room (0: all)")
    parser.add_argument("--seed", type=int, default=0, help="chooses the sample")
    parser.add_argument(
        "--require", type=float, default=95.0, metavar="PERCENT", help="least share killed in each room"
    )
    parser.add_argument("--workers", type=int, default=min(4, os.cpu_count() or 1), help="mutants that run at once")
    parser.add_argument("--all-tests", action="store_true", help="ask all tests of the room of a part too")
    given = parser.parse_args()
    enough = True
    try:
        for name in given.rooms or ROOMS:
            outcomes = _room(chosen(name, ROOT, all_tests=given.all_tests), given.sample, given.seed, given.workers)
            share = 100 * sum(o.killed for o in outcomes) / len(outcomes) if outcomes else 100.0
            print(f"{name}: {sum(o.killed for o in outcomes)} of {len(outcomes)} killed ({share:.1f} %)", flush=True)
            enough &= share >= given.require
    except (BaselineFailed, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    return 0 if enough else 1


def _room(room: Room, sample: int, seed: int, workers: int) -> list[Outcome]:
    equal = {entry.key for entry in equivalents()}
    planned = [mutant for path in room.files(ROOT) for mutant in mutants(ROOT, path)]
    if sample and sample < len(planned):
        planned = random.Random(seed).sample(planned, sample)
    planned = [mutant for mutant in planned if mutant.key not in equal]  # last: the list must not change the sample
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        trees = [copy_tree(ROOT, Path(folder) / str(i)) for i in range(workers)]
        try:
            return judge(trees, planned, trace(trees, room, cache("mutants")), _tell)
        finally:
            unmount_below(Path(folder))


def _tell(outcome: Outcome) -> None:
    """A dot on stderr for what is killed; a survivor at once, so that its test can be written meanwhile."""
    if outcome.killed:
        print(".", end="", file=sys.stderr, flush=True)
        return
    mutant: Mutant = outcome.mutant
    why = f"survived {outcome.tests} tests" if outcome.tests else "no test executes it"
    text = f"{mutant.path}:{mutant.line}  {why}\n    - {mutant.before}\n    + {mutant.after}\n    in: {mutant.source}"
    print(f"  {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
