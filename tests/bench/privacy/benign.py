"""Documents without personal data, full of numbers: arrays of floats, code, logs, prices, hashes, versions, product
codes, timestamps. What masking changes in them is destroyed for nothing."""

import json
import random
import uuid
from collections.abc import Callable, Iterator

Rng = random.Random


def _floats(rng: Rng) -> str:
    scale = rng.choice((1, 1e-3, 100, 1e6))
    return json.dumps([rng.uniform(-scale, scale) for _ in range(rng.randint(5, 40))])


def _table(rng: Rng) -> str:
    rows = [
        {"id": rng.getrandbits(30), "score": rng.random(), "price": round(9 * rng.random(), 2), "n": rng.getrandbits(9)}
        for _ in range(rng.randint(3, 12))
    ]  # fmt: skip
    return json.dumps(rows)


def _csv(rng: Rng) -> str:
    return "\n".join(
        f"{rng.randrange(10**5)},{rng.gauss(0, 1):.9f},{rng.random():.17f},{rng.randrange(100)}" for _ in range(20)
    )


def _code(rng: Rng) -> str:
    names = ("weight", "offset", "size", "rate", "index")

    def value() -> object:
        return rng.choice((hex(rng.getrandbits(64)), repr(rng.random()), rng.randrange(10**6)))

    lines = [f"{rng.choice(names)}_{rng.randrange(100)} = {value()}" for _ in range(15)]
    return "def main(argv: list[str]) -> int:\n    " + "\n    ".join(
        [*lines, "@cached_property", "return std::min(a::b, 0)"]
    )


def _log(rng: Rng) -> str:
    def line() -> str:
        when = f"2026-{rng.randint(1, 12):02d}-{rng.randint(1, 28):02d}T{rng.randrange(24):02d}:{rng.randrange(60):02d}:{rng.randrange(60):02d}.{rng.randrange(10**6):06d}Z"  # noqa: E501
        return f"{when} INFO worker-{rng.randrange(99)} pid={rng.randrange(1, 99999)} took {rng.uniform(0, 9):.6f}s trace={rng.getrandbits(128):032x} bytes={rng.randrange(10**8)}"  # noqa: E501

    return "\n".join(line() for _ in range(12))


def _prices(rng: Rng) -> str:
    return "，".join(f"第{k}项 ¥{rng.randrange(10**7):,}.{rng.randrange(100):02d}" for k in range(1, 12)) + (
        f"; total ${rng.uniform(0, 1e6):,.2f}, up {rng.uniform(0, 99):.2f} % on {rng.randrange(10**6):,} units"
    )


def _hashes(rng: Rng) -> str:
    def one() -> str:
        size = rng.choice((64, 40, 7, 0))
        return f"{rng.getrandbits(4 * size):0{size}x}" if size else str(uuid.UUID(int=rng.getrandbits(128), version=4))

    return "\n".join(one() for _ in range(15))


def _versions(rng: Rng) -> str:
    def part(most: int) -> int:
        return rng.randrange(most)

    return "\n".join(
        rng.choice((
            f"numpy=={part(3)}.{part(30)}.{part(10)}",
            f"Chrome/{part(200)}.0.{part(9999)}.{part(200)} Safari/{part(999)}.36",
            f"Chrome/{part(200)}.0.0.0",
            f"Windows 10.0.{part(30000)}.{part(9999)}",
            f"Version={part(20)}.{part(9)}.0.0, Culture=neutral",
            f"version {part(20)}.{part(9)}.{part(9)}.{part(99)}",
            f"v{part(9)}.{part(9)}.{part(9)}-rc.{part(5)}+build.{part(10**6)}",
        ))
        for _ in range(12)
    )  # fmt: skip


def _products(rng: Rng) -> str:
    def ean() -> str:
        body = f"{rng.choice((400, 489, 500, 690, 694, 978, 871))}{rng.randrange(10**9):09d}"
        return body + str(-sum(int(d) * (3 if k % 2 else 1) for k, d in enumerate(body)) % 10)

    def isbn() -> str:
        return f"978-7-{rng.randrange(100, 999)}-{rng.randrange(10000, 99999)}-{rng.randrange(10)}"

    def part() -> str:
        return f"{rng.choice('ABXQ')}{rng.randrange(100, 999)}-{rng.randrange(10**4):04d}-{rng.randrange(10**2):02d}"

    lines = (f"EAN {ean()}", f"ISBN {isbn()}", f"part {part()}", f"{ean()},{rng.randrange(99)}")
    return "\n".join(rng.choice(lines) for _ in range(4)) + f"\n{ean()} {ean()}, {isbn()}; {part()}/{part()}"


def _times(rng: Rng) -> str:
    def row() -> dict[str, object]:
        stamp, day = rng.randrange(1_500_000_000, 1_999_999_999), rng.randint(1, 28)
        return {
            "ts": stamp, "ms": stamp * 1000 + rng.randrange(1000), "ns": stamp * 10**9 + rng.randrange(10**9),
            "at": f"{stamp}.{rng.randrange(10**6):06d}", "day": f"2026{rng.randint(1, 12):02d}{day:02d}",
        }  # fmt: skip

    return json.dumps([row() for _ in range(10)])


KINDS: dict[str, Callable[[Rng], str]] = {
    "arrays of floats": _floats, "tables (JSON)": _table, "tables (CSV)": _csv, "code": _code, "logs": _log,
    "prices": _prices, "hashes, UUIDs": _hashes, "versions": _versions, "product codes": _products,
    "timestamps": _times,
}  # fmt: skip


def documents(count: int, seed: int) -> Iterator[tuple[str, str]]:
    """(kind, text), as many of each kind."""
    rng = Rng(seed)
    names = sorted(KINDS)
    for k in range(count):
        name = names[k % len(names)]
        yield name, KINDS[name](rng)
