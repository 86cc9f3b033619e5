"""Clause → evidence: the rows of all law packs, judged over a dossier.

A verdict says whether evidence is present and current, never more. ``pass``: all that the row asks for was found;
``fail``: something contradicts it; ``no evidence``: a part is missing or outdated (what is there is named).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from governed_serving.dossier.dossier import Dossier
from governed_serving.dossier.laws.facts import Facts, ItemResult, Kind
from governed_serving.dossier.laws.pack import Pack, Row, packs
from governed_serving.dossier.laws.predicates import finding

__all__ = ["Clause", "Verdict", "judge_clauses"]

Verdict = Literal["pass", "fail", "not applicable", "no evidence"]
WHAT: dict[Kind, str] = {"decisions": "models that classify or estimate", "generation": "generative models"}


@dataclass(frozen=True)
class Clause:
    """One row. ``id``: PACK/ROW; ``since``: when it applies, in words; ``why``: it is not applicable."""

    id: str
    source: str
    asks: str
    verdict: Verdict
    since: str = ""
    findings: tuple[ItemResult, ...] = ()
    why: str = ""

    def in_state(self, *states: str) -> list[ItemResult]:
        return [f for f in self.findings if f.state in states]


def judge_clauses(dossier: Dossier, from_packs: Sequence[Pack] | None = None) -> list[Clause]:
    """All rows of ``from_packs`` (default: the packs of the project), judged over ``dossier``."""
    facts = Facts(dossier)
    chosen = packs() if from_packs is None else from_packs
    return [_judge(pack, row, facts) for pack in chosen for row in pack.rows]


def _judge(pack: Pack, row: Row, facts: Facts) -> Clause:
    name, source = f"{pack.id}/{row.id}", f"{pack.title}, {row.clause}"
    since, why = _since(pack, row, facts), _not_applicable(pack, row, facts)
    if why:
        return Clause(name, source, row.asks, "not applicable", since, why=why)
    if row.applies_to and not facts.kinds:
        unknown = ItemResult("missing", "artefact, predictions or manifest, which say what kind of model it is")
        return Clause(name, source, row.asks, "no evidence", since, (unknown,))
    results = tuple(finding(item, facts) for item in row.evidence)
    states = {f.state for f in results}
    verdict: Verdict = "pass" if states == {"present"} else "no evidence"
    return Clause(name, source, row.asks, "fail" if "contradicted" in states else verdict, since, results)


def _not_applicable(pack: Pack, row: Row, facts: Facts) -> str:
    if pack.applies_to_day is not None and pack.applies_to_day.day <= facts.today.isoformat():
        return f"no longer in force since {pack.applies_to_day.day}"
    if row.applies_to and facts.kinds and not facts.kinds & set(row.applies_to):
        asked = " and ".join(WHAT[kind] for kind in row.applies_to)
        (is_one,) = facts.kinds
        return f"asks this of {asked}; this is one of the {WHAT[is_one]}"
    return ""


def _since(pack: Pack, row: Row, facts: Facts) -> str:
    since = row.applies_from or pack.applies_from
    begun = since.day <= facts.today.isoformat()
    checked = "" if since.verified else " (date not checked against the official text)"
    return f"{'since' if begun else 'from'} {since.day}{checked}"
