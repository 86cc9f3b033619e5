"""`python -m governed_serving.trainer.generators NAME ROWS SEED`: sample requests in the form that
`governed run --once` reads.

Rows with a gap are left out: a request says what it knows. The label is left out as well.
"""

import json
import sys
from typing import TypedDict

from governed_api.json_types import Scalar
from governed_serving.trainer.generators import GENERATORS

LEFT_OUT = {"credit": ("approved", "applicant"), "reviews": ("sentiment",)}
"""The label, and what the sample has no use for."""


class Requests(TypedDict):
    """The file."""

    instances: list[dict[str, Scalar]]
    rows: int
    explain: list[int]


def requests(name: str, rows: int, seed: int) -> Requests:
    """The first ``rows`` complete rows of the generator ``name`` as instances; the first one is explained."""
    columns = GENERATORS[name](2 * rows + 20, seed).columns
    names = [column for column in columns if column not in LEFT_OUT[name]]
    drawn = [
        dict(zip(names, values, strict=True)) for values in zip(*(columns[n].tolist() for n in names), strict=True)
    ]
    complete = [row for row in drawn if all(value == value for value in row.values())]
    return {"instances": complete[:rows], "rows": 16, "explain": [0]}


def main(arguments: list[str]) -> int:
    """Print the file; 2 for a wrong call."""
    if len(arguments) != 3 or arguments[0] not in GENERATORS or not all(a.isdecimal() for a in arguments[1:]):
        print(f"expected NAME ROWS SEED with NAME one of {', '.join(GENERATORS)}", file=sys.stderr)
        return 2
    drawn = requests(arguments[0], int(arguments[1]), int(arguments[2]))
    lines = ",\n  ".join(json.dumps(row, ensure_ascii=False) for row in drawn["instances"])
    print(f'{{"rows": {drawn["rows"]}, "explain": {drawn["explain"]}, "instances": [\n  {lines}\n]}}')
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
