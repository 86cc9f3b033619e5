"""The page: one self-contained HTML file, no script, no external resource."""

from collections.abc import Sequence

from governed_api.page import style
from governed_api.page.markup import Safe, tag, text
from governed_api.page.parts import card, pill
from governed_serving.dossier.contests import contests_section
from governed_serving.dossier.dossier import Dossier
from governed_serving.dossier.fairness import fairness_section
from governed_serving.dossier.laws.judging import Clause, judge_clauses
from governed_serving.dossier.laws.pack import Pack, packs
from governed_serving.dossier.sections import (
    clauses_section,
    data_section,
    explanations_section,
    gates_section,
    keys_section,
    ledger_section,
    model_section,
    privacy_section,
    training_section,
)

__all__ = ["page_body", "render_page"]

_CONTENTS = (
    ("model", "Model"),
    ("data", "Data"),
    ("training", "Training"),
    ("gates", "Gates"),
    ("fairness", "Groups"),
    ("explanations", "Explanations"),
    ("contests", "Contests"),
    ("privacy", "Privacy"),
    ("keys", "Keys"),
    ("ledger", "Ledger"),
    ("clauses", "Clauses"),
)
# The page may load nothing and run nothing, whatever a value in it says.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"


def render_page(dossier: Dossier, laws: Sequence[Pack] | None = None) -> str:
    """The whole document; ``laws``: packs to judge by, all of the project's by default."""
    chosen = packs() if laws is None else laws
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        tag("title", f"Governance report: {dossier.model}"),
        tag("style", Safe(style())),
    )
    body = tag("body", page_body(dossier, chosen, judge_clauses(dossier, chosen)))
    return "<!doctype html>\n" + tag("html", head, body, lang="en") + "\n"


def page_body(dossier: Dossier, laws: Sequence[Pack], clauses: Sequence[Clause]) -> Safe:
    """What the document shows, for one that has a head of its own; ``clauses``: as judged by ``laws``."""
    main = tag(
        "main",
        model_section(dossier),
        data_section(dossier),
        training_section(dossier),
        gates_section(dossier),
        fairness_section(dossier),
        explanations_section(dossier),
        contests_section(dossier),
        privacy_section(dossier),
        keys_section(dossier),
        ledger_section(dossier),
        clauses_section(laws, clauses),
    )
    made = dossier.made.strftime("%Y-%m-%d %H:%M UTC")
    footer = tag(
        "footer",
        f"Generated {made} from report, artefact and ledger. Figures of what was served are recomputed from the "
        "ledger where a model key was given.",
    )
    return text([_top(dossier, made), main, footer])


def _top(dossier: Dossier, made: str) -> Safe:
    contents = tag(
        "nav", tag("ol", [tag("li", tag("a", name, href=f"#{id}")) for id, name in _CONTENTS]), aria_label="Contents"
    )
    return tag(
        "header",
        tag("p", f"Governance report · {made}", class_="eyebrow"),
        tag("h1", dossier.model),
        _sentence(dossier),
        tag("div", _cards(dossier), class_="cards"),
        tag("ul", [tag("li", note) for note in dossier.notes], class_="notes") if dossier.notes else None,
        contents,
        class_="top",
    )


def _sentence(dossier: Dossier) -> Safe:
    data, card = dossier.data, dossier.card
    source = f" Data: {data.source}." if data and data.source else ""
    what = f"A {card.task} model that predicts {card.label}." if card.task else ""
    return tag("p", what + source, class_="lead") if what or source else Safe("")


def _ships(dossier: Dossier, failed: list[str]) -> str:
    variant = dossier.card.variant or dossier.shipped.variant
    kept = f"ships: {variant}" if variant else ""
    return f"not passed: {', '.join(failed)}; {kept}" if failed else kept


def _cards(dossier: Dossier) -> Safe:
    return text([*_verdict_cards(dossier), *_record_cards(dossier)])


def _verdict_cards(dossier: Dossier) -> list[Safe]:
    auditor, ledger, gates = dossier.auditor, dossier.ledger, dossier.gates
    failed = [g.name for g in gates if g.verdict == "fail"]
    judged = sum(g.verdict != "not applicable" for g in gates)
    verified = ledger.verification if ledger else None
    state = "verified" if verified else "does not verify" if ledger else "not given"
    summary = f"{verified.size:,} entries, root {verified.root[:12]}…" if verified else (ledger.error if ledger else "")
    return [
        card(
            "Bias verdict",
            pill(auditor.verdict if auditor else "Unknown"),
            f"{auditor.samples if auditor else 0:,} decisions judged",
        ),
        card("Ledger", pill(state), summary),
        card("Gates", f"{judged - len(failed)} of {judged} passed" if gates else "none", _ships(dossier, failed)),
    ]


def _record_cards(dossier: Dossier) -> list[Safe]:
    counts = dossier.ledger.counts if dossier.ledger else {}
    accuracy = dossier.metrics.get("accuracy")
    rows = f"{dossier.evaluation.rows.get('test', 0):,} rows" if dossier.documents.evaluation else ""
    purposes = sorted({k.purpose for k in dossier.keys})
    return [
        card("Held-out accuracy", f"{accuracy:.1%}" if accuracy is not None else "–", rows),
        card("On record", f"{_requests(dossier):,}", f"requests, {counts.get('explanation', 0):,} explanations"),
        card("Keys", f"{len(dossier.keys)}", f"for {', '.join(purposes)}" if purposes else ""),
    ]


def _requests(dossier: Dossier) -> int:
    """Requests on record; a completion has two records, so that counting them needs all of them opened."""
    served = dossier.served
    if served is not None and served.chunks == served.chunks_known:
        return served.requests
    return dossier.ledger.counts.get("prediction", 0) if dossier.ledger else 0
