"""The ledger on this machine: leaves per second against a bare hashing loop, proofs, memory. Prints a table."""

import argparse
import hashlib
import random
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.table import Table

from governed_serving.archive.ledger.entrylog import Batch
from governed_serving.archive.ledger.ledger import Ledger
from governed_serving.archive.ledger.merkle import hash_leaf, verify_consistency, verify_inclusion
from governed_serving.archive.service import Archive, open_ledger
from governed_serving.archive.verify.sources import DirectorySource
from governed_serving.archive.verify.verification import verify
from governed_serving.crypto import DirectoryStore, Kek, Keyring
from governed_serving.records import LedgerEntry, canonical


def leaves(count: int) -> list[bytes]:
    when = "2026-01-01T00:00:00.000Z"
    entries = (
        LedgerEntry("prediction", "default", "credit", f"req-{i}", when, "r1", "ab" * 32, i, 0) for i in range(count)
    )
    return [canonical(e) for e in entries]


def timed(action: Callable[[], object]) -> tuple[float, float]:
    """(wall seconds, CPU seconds)."""
    wall, cpu = time.perf_counter(), time.process_time()
    action()
    return time.perf_counter() - wall, time.process_time() - cpu


def append(ledger: Ledger, stream: str, data: list[bytes], size: int) -> None:
    for start in range(0, len(data), size):
        ledger.append(Batch("credit", stream, start, data[start : start + size]))


def median_ms(action: Callable[[int], object], samples: list[int]) -> float:
    return statistics.median(timed(lambda i=i: action(i))[0] for i in samples) * 1000  # type: ignore[misc]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--entries", type=int, default=50_000)
    parser.add_argument("--smoke", action="store_true", help="seconds, to see that it runs: its numbers mean nothing")
    given = parser.parse_args()
    count = 600 if given.smoke else given.entries
    data = leaves(count)
    table = Table("what", "leaves/s (wall)", "leaves/CPU-s", "of bare hashing", box=None)
    bare = timed(lambda: [hashlib.sha256(b"\0" + e).digest() for e in data])
    table.add_row("bare SHA-256 loop", f"{count / bare[0]:,.0f}", f"{count / bare[1]:,.0f}", "1")
    with tempfile.TemporaryDirectory() as folder:
        kek = Kek(bytes(32))
        archive = Archive(Path(folder), kek, "bench")  # with every keyset that verification opens
        ledger = archive.ledger
        for size in (1_000, 100, 1):
            part = data if size > 1 else data[:500]
            wall, cpu = timed(lambda size=size, part=part: append(ledger, f"s{size}", part, size))  # type: ignore[misc]
            table.add_row(
                f"append, encrypted, fsynced, batches of {size:,}",
                f"{len(part) / wall:,.0f}",
                f"{len(part) / cpu:,.0f}",
                f"{len(part) / cpu / (count / bare[1]):.3f}",
            )
        proofs(ledger)
        Console().print(table)
        archive.close()
        wall, cpu = timed(lambda: verify(DirectorySource(Path(folder), kek), blobs=False))
        Console().print(
            f"verify, whole log: {ledger.size / wall:,.0f} entries/s (wall), {ledger.size / cpu:,.0f} per CPU-s"
        )
        opened: list[Ledger] = []
        keyring = Keyring(kek, DirectoryStore(Path(folder) / "keys"))
        wall, _ = timed(lambda: opened.append(open_ledger(Path(folder), keyring, "bench")))
        opened[0].close()
        Console().print(f"open a log of {ledger.size:,} entries: {wall * 1000:.0f} ms")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    Console().print(f"peak resident memory, the bench's own {count:,} leaves included: {peak:.0f} MiB")


def proofs(ledger: Ledger) -> None:
    size, root = ledger.size, ledger.root_hash()
    samples = random.Random(0).sample(range(1, size), 200)
    inclusion = median_ms(lambda i: ledger.inclusion(i, size), samples)
    consistency = median_ms(lambda i: ledger.consistency(i, size), samples)
    for i in samples[:20]:
        verify_inclusion(hash_leaf(ledger.entries(i, i + 1)[0]), i, size, ledger.inclusion(i, size), root)
        verify_consistency(i, size, ledger.consistency(i, size), ledger.root_hash(i), root)
    checkpoint = median_ms(lambda _: ledger.root_hash(), samples[:20])
    Console().print(
        f"proofs over {size:,} entries, median: inclusion {inclusion:.3f} ms, consistency {consistency:.3f} ms, "
        f"root {checkpoint:.3f} ms"
    )


if __name__ == "__main__":
    main()
