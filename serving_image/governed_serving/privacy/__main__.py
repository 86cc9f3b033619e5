"""``python -m governed_serving.privacy --rules FILE [--format F] [--json | --explain] FILE``: what masking makes of a
file (``-``: standard input). RULES is spec.governance.privacy.masking as JSON. The masked text goes to standard output,
with ``--explain`` each find to standard error, which quotes nothing of the text."""

import argparse
import json
import sys
from pathlib import Path

from governed_api.governance import Masking
from governed_api.printable import printable
from governed_serving.privacy.tryout import FORMATS, Tried, tried

MOST_BYTES = 64 << 20
_BY_ENDING = {f".{form}": form for form in FORMATS} | {".ndjson": "jsonl"}


def _read(name: str) -> str:
    """Raises OSError, ValueError."""
    with open(sys.stdin.fileno() if name == "-" else name, "rb", closefd=name != "-") as file:
        data = file.read(MOST_BYTES + 1)
    if len(data) > MOST_BYTES:
        raise ValueError(f"expected at most {MOST_BYTES >> 20} MiB, found more; try a part of it")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"expected UTF-8, found another byte at {error.start}; convert it first") from error


def _print(found: Tried, *, as_json: bool, explain: bool) -> None:
    if as_json:
        finds = [one.plain() for one in found.finds]
        print(json.dumps({"masked": found.text, "finds": finds}, ensure_ascii=False))
        return
    sys.stdout.write(found.text)
    sys.stdout.flush()
    for one in found.finds if explain else ():
        print(printable(one.said()), file=sys.stderr)


def main() -> int:
    """0: masked; 1: refused, and why is on standard error."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rules", required=True)
    parser.add_argument("--format", choices=FORMATS)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--explain", action="store_true")
    parser.add_argument("file")
    given = parser.parse_args()
    form = given.format or _BY_ENDING.get(Path(given.file).suffix.lower(), "text")
    try:
        rules = Masking.model_validate_json(Path(given.rules).read_bytes())
        found = tried(_read(given.file), form, rules)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        print(f"governed: {printable(given.file)}: {why}", file=sys.stderr)
        return 1
    sys.stdout.reconfigure(encoding="utf-8", newline="")  # type: ignore[union-attr]
    _print(found, as_json=given.json, explain=given.explain)
    if rules.action in ("Hash", "Tokenize"):
        print(f"action {rules.action} takes the model's key, which isn't here: <ENTITY> stands for it", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
