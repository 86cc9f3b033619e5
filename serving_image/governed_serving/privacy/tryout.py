"""Masking tried on a file: by the very rules and code of the path, without a server. Documents by their kind: plain
text, JSON and lines of JSON (which stay valid), CSV by cells."""

import csv
import io
import re
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

import msgspec

from governed_api.governance import Masking
from governed_serving.decoding import decode_json
from governed_serving.privacy.masker import Masker, MaskingError, masker, names_of
from governed_serving.privacy.ruled import NameSearch, RuledFinder
from governed_serving.privacy.scores import Find

__all__ = ["FORMATS", "Located", "Tried", "tried"]

Format = Literal["text", "json", "jsonl", "csv", "tsv"]
FORMATS: tuple[Format, ...] = ("text", "json", "jsonl", "csv", "tsv")


class Located(NamedTuple):
    """A find. ``start`` and ``end`` count characters: of the document, or of the cell that ``row`` (from 1, without the
    header) and ``column`` name."""

    entity: str
    start: int
    end: int
    score: float
    rule: str
    row: int = 0
    column: str = ""

    def plain(self) -> dict[str, object]:
        """As JSON has it."""
        return {key: value for key, value in self._asdict().items() if self.row or key not in ("row", "column")}

    def said(self) -> str:
        """As a line."""
        where = f"row {self.row}, column {self.column}, " if self.row else ""
        return f"{where}{self.start}-{self.end} {self.entity} {self.score:g} {self.rule}"


class Tried(NamedTuple):
    """The document as it would pass, and what was found in it."""

    text: str
    finds: list[Located]


def tried(text: str, form: Format, rules: Masking) -> Tried:
    """Raises ValueError for a document that isn't of its kind or can't be masked; the message doesn't quote it."""
    trial = _Trial(rules)
    if form in ("csv", "tsv"):
        return trial.table(text, "," if form == "csv" else "\t", rules.fields)
    if form == "jsonl":
        return trial.lines(text)
    if form == "json":
        _parsed(text, "a JSON document")
    return Tried(*trial.one(text, json=form == "json"))


class _Trial:
    def __init__(self, rules: Masking) -> None:
        names = names_of(rules)
        self._ruled, self._masker = RuledFinder(rules, names=names), _keyless(rules, names)

    def one(self, text: str, *, json: bool) -> tuple[str, list[Located]]:
        try:
            covered = self._masker.covered(text, json=json)
        except MaskingError as error:
            raise ValueError(str(error)) from error
        return covered.text, [Located(*found) for found in self._shown(text, covered.findings)]

    def _shown(self, text: str, covered: Sequence[tuple[str, int, int]]) -> Iterator[Find]:
        """How each of what was covered was found."""
        told = {(found.start, found.end): found for found in self._ruled.explained(text)}
        return (told[start, end] for _, start, end in covered)

    def lines(self, text: str) -> Tried:
        masked: list[str] = []
        finds: list[Located] = []
        place = 0
        for number, line in enumerate(re.findall(r"[^\n]*\n|[^\n]+", text), 1):
            if line.strip():
                _parsed(line, f"line {number}: a JSON document")
            one, found = self.one(line, json=True)
            finds += (f._replace(start=f.start + place, end=f.end + place) for f in found)
            masked.append(one)
            place += len(line)
        return Tried("".join(masked), finds)

    def table(self, text: str, delimiter: str, fields: Sequence[str]) -> Tried:
        """``fields``: columns to mask; none: all."""
        try:
            rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True))
        except csv.Error as error:
            raise ValueError(f"expected a table with a header, found none: {error}") from error
        header = rows[0] if rows else []
        chosen = {place for place, name in enumerate(header) if not fields or name in fields}
        if fields and not chosen:
            raise ValueError(
                f"expected a column of spec.governance.privacy.masking.fields ({', '.join(fields)}), found none"
            )
        finds: list[Located] = []
        for number, row in enumerate(rows[1:], 1):
            for place in range(len(row)):
                if place in chosen or place >= len(header):
                    row[place], found = self.one(row[place], json=False)
                    column = header[place] if place < len(header) else str(place + 1)
                    finds += (f._replace(row=number, column=column) for f in found)
        if not finds:
            return Tried(text, finds)
        out = io.StringIO()
        csv.writer(out, delimiter=delimiter, lineterminator="\r\n" if "\r\n" in text else "\n").writerows(rows)
        return Tried(out.getvalue(), finds)


def _keyless(rules: Masking, names: NameSearch | None) -> Masker:
    """The masker of ``rules``; the model's key stays in its place: of Hash and Tokenize the entity is shown."""
    shown = rules.model_copy(update={"action": "Replace"}) if rules.action in ("Hash", "Tokenize") else rules
    return masker(shown, names=names)


def _parsed(text: str, what: str) -> None:
    try:
        decode_json(text)
    except msgspec.DecodeError as error:
        raise ValueError(f"expected {what}, found none: {error}; name what it is with --format") from error
