"""The page's sections other than groups: model, data, training, gates, explanations, privacy, keys, ledger, clauses."""

from typing import Any

from governed_serving.decoding import decode_json
from governed_serving.dossier.clauses import Clause
from governed_serving.dossier.dossier import Dossier, LedgerView
from governed_serving.dossier.markup import Safe, tag, text
from governed_serving.dossier.parts import digest, facts, figure, number, pill, section, table
from governed_serving.dossier.svg import Estimate, Line, curves, signed_bars
from governed_serving.explainer.overall.quality_windows import MEASURES, QualityWindows
from governed_serving.records import LedgerEntry, timestamp

__all__ = [
    "clauses_section",
    "data_section",
    "explanations_section",
    "gates_section",
    "keys_section",
    "ledger_section",
    "model_section",
    "privacy_section",
    "training_section",
]

QUALITY_WINDOWS = 24
"""Newest windows shown."""


def _none(sentence: str) -> Safe:
    return tag("p", sentence, class_="none")


def _entry_link(index: int | None) -> Safe:
    return tag("span", f"entry {index:,}", class_="entry") if index is not None else Safe("")


def model_section(dossier: Dossier) -> Safe:
    """Identity, interface, lineage."""
    m = dossier.manifest
    artefact = dossier.trainer.get("artefact") or {}
    found = dossier.ledger.latest("artefact") if dossier.ledger else None
    identity = facts(
        [
            ("Model", dossier.model),
            ("Task", m.get("task")),
            ("Artefact", digest((found[1].digest if found else "") or artefact.get("digest", ""), 64)),
            ("Variant that ships", m.get("variant") or artefact.get("variant")),
            ("Predicts", m.get("label")),
            ("Classes", ", ".join(map(str, m.get("classes", [])))),
            ("Favourable outcome", m.get("favorable") or m.get("threshold")),
            ("In the ledger as", _entry_link(found[0]) if found else None),
        ]
    )
    lineage = m.get("lineage", {})
    steps = [
        ("data", lineage.get("dataset")),
        ("training", lineage.get("training")),
        ("code", lineage.get("code")),
        ("artefact", (found[1].digest if found else artefact.get("digest"))),
    ]
    chain = tag(
        "ol", [tag("li", tag("b", name), digest(str(value), 12)) for name, value in steps if value], class_="chain"
    )
    versions = ", ".join(f"{k} {v}" for k, v in sorted(lineage.get("versions", {}).items()))
    features = [[f["name"], f["type"], f.get("dtype", ""), _domain(f)] for f in m.get("features", [])]
    return section(
        "model",
        "Model and lineage",
        identity,
        tag("h3", "Lineage") if lineage else None,
        chain if lineage else None,
        tag("p", f"Made with {versions}.", class_="small") if versions else None,
        table(["feature", "type", "datatype", "values"], features, "What clients send") if features else None,
    )


def _domain(feature: dict[str, Any]) -> str:
    categories = feature.get("categories") or []
    if categories:
        return ", ".join(map(str, categories[:12])) + (f" … ({len(categories)})" if len(categories) > 12 else "")
    if feature.get("min") is not None:
        return f"{number(feature['min'])} … {number(feature.get('max'))}, mean {number(feature.get('mean'))}"
    return ""


def data_section(dossier: Dossier) -> Safe:
    """The data-set manifest."""
    data = dossier.data
    if not data:
        return section("data", "Data", _none("No data-set manifest is recorded."))
    found = dossier.ledger.latest("dataset") if dossier.ledger else None
    known = facts(
        [
            ("Digest", digest(data.get("digest", ""), 64)),
            ("Source", data.get("source")),
            ("Source digest", digest(data.get("sourceDigest", ""), 64)),
            ("Licence", data.get("licence") or "not stated"),
            ("Legal basis", data.get("consentBasis") or "not stated"),
            ("Rows", f"{data.get('rows', 0):,}"),
            ("Label", _label(data.get("label"))),
            ("In the ledger as", _entry_link(found[0]) if found else None),
        ]
    )
    schema = [
        [
            c["name"],
            c["type"],
            f"{c.get('missing', 0):,}",
            f"{c['distinct']:,}" if c.get("distinct") is not None else "",
            f"{number(c['min'])} … {number(c['max'])} (mean {number(c.get('mean'))})"
            if c.get("min") is not None
            else "",
        ]
        for c in data.get("schema", [])
    ]
    rows = dossier.evaluation.get("rows", {})
    split = ", ".join(f"{name} {count:,}" for name, count in rows.items())
    return section(
        "data",
        "Data",
        known,
        table(["column", "type", "missing", "distinct", "range"], schema, "Schema", numeric=(2, 3)) if schema else None,
        tag("p", f"Split: {split} rows.", class_="small") if split else None,
    )


def _label(label: Any) -> str:
    if not isinstance(label, dict):
        return str(label or "")
    classes = ", ".join(map(str, label.get("classes", [])))
    return f"{label.get('name')}: {classes}" if classes else str(label.get("name"))


def training_section(dossier: Dossier) -> Safe:
    """Curves and what the Job reported."""
    trainer = dossier.trainer
    curve = dossier.documents.get("training.json", {}).get("curve", [])
    known = facts(
        [
            ("Phase", pill(trainer["phase"]) if trainer.get("phase") else None),
            ("Said", trainer.get("message")),
            ("Training hash", digest(trainer.get("trainingHash", ""))),
            ("Epochs", len(curve) or None),
        ]
    )
    names = [k for k in (curve[0] if curve else {}) if isinstance(curve[0][k], int | float) and k != "epoch"]
    losses = [n for n in names if "loss" in n.lower()]
    rates = [n for n in names if "learning" in n.lower() or n == "lr"]
    others = [n for n in names if n not in losses and n not in rates]
    plots = [
        _curve(curve, losses, "Loss", "loss"),
        _curve(curve, others, "Quality on validation rows", "value"),
        _curve(curve, rates, "Learning rate", "learning rate", 160),
    ]
    shown = [[str(i + 1), *(number(e.get(n)) for n in names)] for i, e in enumerate(curve)]
    return section(
        "training",
        "Training",
        known,
        *plots,
        tag(
            "details",
            tag("summary", "Every epoch in figures"),
            table(["epoch", *names], shown, numeric=range(len(names) + 1)),
        )
        if curve
        else None,
        _none("No training curve can be shown.") if not curve and not trainer else None,
    )


def _curve(curve: list[dict[str, Any]], names: list[str], title: str, unit: str, height: float = 260) -> Safe:
    lines = [
        Line(n, [(i + 1.0, float(e[n])) for i, e in enumerate(curve) if isinstance(e.get(n), int | float)])
        for n in names
    ]
    return figure(curves(title, lines, "epoch", unit, height), f"{title} by epoch.")


def _words(name: str) -> str:
    """trainingLoss → training loss."""
    return "".join(f" {c.lower()}" if c.isupper() else c for c in name)


def gates_section(dossier: Dossier) -> Safe:
    """Gate table, held-out quality."""
    gates = dossier.gates
    metrics = dossier.evaluation.get("metrics") or dossier.trainer.get("metrics") or {}
    index = dossier.ledger.index("gates") if dossier.ledger else None
    rows = [
        [g["name"], number(g.get("measured")), number(g.get("budget")), pill(g["verdict"]), g.get("message", "")]
        for g in gates
    ]
    variant = dossier.manifest.get("variant") or (dossier.trainer.get("artefact") or {}).get("variant")
    return section(
        "gates",
        "Gates: what decides what ships",
        table(["gate", "measured", "budget", "verdict", "in words"], rows, numeric=(1, 2))
        if gates
        else _none("No gate table is recorded."),
        tag("p", "What ships: ", tag("strong", variant), ". ", _entry_link(index)) if variant else None,
        table(
            ["metric", "held-out"],
            [[k, number(v)] for k, v in metrics.items()],
            "Quality on held-out rows of what ships",
            numeric=(1,),
            narrow=True,
        )
        if metrics
        else None,
        lead="A compressed model ships only inside every budget of the manifest; otherwise the uncompressed one does.",
    )


def explanations_section(dossier: Dossier) -> Safe:
    """Global importances, and one request explained."""
    blocks: list[Any] = []
    importances = dossier.evaluation.get("importances", [])
    bars = [Estimate(i["feature"], float(i["value"]), note=number(float(i["value"]))) for i in importances[:20]]
    blocks.append(
        figure(
            signed_bars(
                "Global importance (held-out rows)", bars, "mean change of the output when the feature is shuffled"
            ),
            "Permutation importance on held-out rows (Breiman 2001).",
        )
    )
    served = dossier.served
    if served and served.importances:
        means = {name: sum(v) / len(v) for name, v in served.importances.items()}
        top = sorted(means.items(), key=lambda item: -item[1])[:20]
        bars = [Estimate(n, v, note=number(v)) for n, v in top]
        blocks.append(
            figure(
                signed_bars("Global importance (explanations served)", bars, "mean |attribution|"),
                f"Mean absolute attribution over {served.explanations:,} explanations in the ledger.",
            )
        )
    if served and served.explanations:
        blocks += [_quality(served.quality), _drift(dossier.ledger)]
    example = dossier.example
    if example and example.explanation:
        blocks.append(tag("h3", "One request, explained"))
        blocks += [_explained(one) for one in example.explanation[:3]]
    elif example and example.prediction:
        blocks.append(_none("The example request has no explanation in the ledger."))
    if example and example.prediction:
        blocks.append(_asked(example.prediction))
    if not any(blocks):
        blocks.append(_none("No explanation can be shown."))
    return section("explanations", "Explanations", *blocks)


def _quality(windows: QualityWindows) -> Safe:
    """The newest windows, recomputed from the explanations in the ledger."""
    rows = []
    for start in sorted(windows.windows)[-QUALITY_WINDOWS:]:
        window = windows.windows[start]
        measures = window.report()["measures"]
        means = [number(measures[name]["mean"]) if name in measures else "–" for name in MEASURES]
        rows.append([timestamp(start), f"{window.explanations:,}", f"{window.exact:,}", *means])
    head = ["from", "explanations", "exact", *(name.replace("_", " ") for name in MEASURES)]
    words = "; ".join(f"{name.replace('_', ' ')}: {meaning}" for name, meaning in MEASURES.items())
    return text(
        [
            tag("h3", "Quality over time"),
            table(head, rows, numeric=tuple(range(1, len(head)))),
            tag("p", f"Means by hour. {words}."),
        ]
    )


def _drift(ledger: LedgerView | None) -> Safe:
    """Alarms of the explainer: which feature's weight in the decisions has moved."""
    alarms = ledger.entries.get("importanceDrift", []) if ledger else []
    if not alarms:
        return tag("p", "No drift of global importances was reported.")
    rows = [
        [
            _entry_link(index),
            one.time,
            one.summary.get("player"),
            number(one.summary.get("before")),
            number(one.summary.get("after")),
        ]
        for index, one in alarms
    ]
    return text(
        [
            tag("h3", "Drift of global importances"),
            table(["", "at", "feature", "share before", "share after"], rows, numeric=(3, 4)),
        ]
    )


def _explained(one: dict[str, Any]) -> Safe:
    entries = sorted(one.get("attributions", []), key=lambda e: -abs(float(e.get("attribution") or 0)))
    rows = []
    for e in entries[:20]:
        name = str(e.get("feature") or e.get("group") or e.get("value", ""))
        value = e.get("value")
        shown = f"{name} = {value}" if e.get("feature") else name
        low, high = e["interval"] if isinstance(e.get("interval"), list) else (None, None)
        rows.append(Estimate(shown, float(e.get("attribution") or 0), low, high))
    known = facts(
        [
            ("Method", _method(one)),
            ("Target", str(one.get("target", ""))),
            ("Base value", number(one.get("base_value"))),
            ("Prediction", number(one.get("prediction"))),
            ("Additivity residual", number(one.get("additivity_residual"))),
            ("Evaluations", number(one.get("evaluations"))),
            ("Seed", str(one["seed"]) if one.get("seed") is not None else None),
        ]
    )
    caption = "Attributions: what each feature adds to the base value. Whiskers: the explainer's own error."
    return text(
        [figure(signed_bars(f"Attributions to {one.get('target', 'the output')}", rows, "attribution"), caption), known]
    )


def _method(one: dict[str, Any]) -> str:
    method = str(one.get("method", ""))
    return f"{method}, exact" if one.get("exact") and "exact" not in method else method


def _asked(prediction: dict[str, Any]) -> Safe:
    rows = [[name, _values(v)] for name, v in prediction.get("features", {}).items()]
    rows += [[tag("b", name), _values(v)] for name, v in prediction.get("outputs", {}).items()]
    return tag(
        "details",
        tag("summary", f"The request {prediction.get('id')} as it was served (masked) and its answer"),
        table(["field", "value"], rows),
        tag(
            "p",
            "Revision ",
            tag("code", prediction.get("revision", "")),
            ", artefact ",
            digest(prediction.get("artefact", "")),
            class_="small",
        ),
    )


def _values(values: list[Any]) -> str:
    shown = [number(v) if isinstance(v, int | float) else str(v) for v in values[:8]]
    return ", ".join(shown) + (" …" if len(values) > 8 else "")


def privacy_section(dossier: Dossier) -> Safe:
    """Personal data found in the data, and masked in service."""
    found = dossier.data.get("personalData")
    scan = [[c, e, f"{n:,}"] for c, entities in (found or {}).items() for e, n in entities.items()]
    served = dossier.served
    masked = [
        [f, e, f"{n:,}"] for f, entities in (served.masked if served else {}).items() for e, n in entities.items()
    ]
    blocks: list[Any] = [tag("h3", "In the training data")]
    if found is None:
        blocks.append(_none("No scan for personal data is recorded."))
    elif scan:
        blocks.append(
            table(
                ["column", "entity", "findings"], scan, "What the scan found before training", numeric=(2,), narrow=True
            )
        )
    else:
        blocks.append(tag("p", "The scan found no personal data that its recognisers know."))
    if dossier.data.get("masked"):
        blocks.append(tag("p", "Masked before training: ", ", ".join(dossier.data["masked"]), "."))
    blocks.append(tag("h3", "In service"))
    counters = (dossier.report.get("server") or {}).get("masking")
    if isinstance(counters, dict):
        blocks.append(
            table(
                ["entity", "masked"],
                [[k, number(v)] for k, v in counters.items()],
                "Counters of the server",
                numeric=(1,),
            )
        )
    if masked:
        caption = (
            f"Placeholders in {served.rows:,} journalled rows: masked before the model, the journal and the ledger saw them"
            if served
            else ""
        )
        blocks.append(table(["field", "entity", "placeholders"], masked, caption, numeric=(2,), narrow=True))
    elif served and served.rows:
        blocks.append(tag("p", f"No placeholders in the {served.rows:,} journalled rows that were opened."))
    else:
        blocks.append(
            _none("Journalled requests were not opened (no model key), so placeholders can't be counted here.")
        )
    blocks.append(
        tag(
            "p",
            "Recognisers find what has a form (numbers, addresses of mail); names and postal addresses need more and are not claimed.",
            class_="small",
        )
    )
    return section("privacy", "Privacy", *blocks)


def keys_section(dossier: Dossier) -> Safe:
    """Key inventory and key events."""
    rows = [[k.purpose, str(k.key_id), k.type, pill(k.status), k.created, digest(k.kek)] for k in dossier.keys]
    events = dossier.ledger.entries.get("key", []) if dossier.ledger else []
    happened = [
        [_entry_link(i), e.time, e.summary.get("purpose", ""), e.summary.get("action", e.id), digest(e.digest)]
        for i, e in events[-20:]
    ]
    return section(
        "keys",
        "Keys",
        table(
            ["purpose", "key", "type", "status", "since", "wrapped by"],
            rows,
            "Inventory: what seals what, without any key's material",
        )
        if rows
        else _none("No key inventory can be shown."),
        table(["ledger", "time", "purpose", "event", "digest"], happened, "Key events in the ledger (newest 20)")
        if happened
        else None,
        lead="Data, artefacts, journal and ledger are ciphertext on disk. Destroying a purpose's keyset destroys all that it sealed; the ledger still verifies.",
    )


def ledger_section(dossier: Dossier) -> Safe:
    """Checkpoint, counts, the example's inclusion proof."""
    ledger = dossier.ledger
    if ledger is None:
        return section("ledger", "Ledger", _none("No archive was given."))
    blocks: list[Any] = []
    if ledger.error:
        blocks.append(tag("p", tag("strong", "The ledger does not verify. "), ledger.error, class_="callout bad"))
    v = ledger.verification
    if v:
        blocks.append(
            facts(
                [
                    ("Verified", pill("verified")),
                    ("Log", v.origin),
                    (
                        "Entries",
                        f"{v.size:,}, all recomputed" if v.complete else f"{v.entries:,} of {v.size:,}, each proved",
                    ),
                    ("Root hash", tag("code", v.root, class_="wrap")),
                    ("Signed by", tag("code", v.vkey, class_="wrap")),
                    ("Blobs", v.of_blobs()),
                    ("Under names", v.of_holdings()),
                    ("Earlier checkpoints", ", ".join(f"over {n:,} entries: a prefix of this log" for n in v.earlier)),
                ]
            )
        )
    blocks.append(_counts(ledger))
    if dossier.example:
        blocks += [_proof(p) for p in dossier.example.proofs]
    blocks.append(
        tag(
            "p",
            "To check it yourself: ",
            tag("code", "governed verify ARCHIVE --id REQUEST"),
            ", or any RFC 6962 and Ed25519 code over the exported bundle.",
            class_="small",
        )
    )
    return section(
        "ledger",
        "Ledger",
        *blocks,
        lead="Every prediction, explanation, verdict and key event is a leaf of an RFC 6962 Merkle tree whose root is signed. A changed, missing or re-ordered entry changes the root.",
    )


def _counts(ledger: LedgerView) -> Safe:
    rows = [[k, f"{n:,}"] for k, n in sorted(ledger.counts.items())]
    caption = f"Entries of this model, {ledger.first[:19]} to {ledger.last[:19]} UTC" if rows else ""
    return (
        table(["entry", "count"], rows, caption, numeric=(1,), narrow=True)
        if rows
        else _none("The ledger holds no entry of this model.")
    )


def _proof(proof: Any) -> Safe:
    entry = decode_json(proof.entry, type=LedgerEntry)
    path = [[str(i + 1), tag("code", h, class_="wrap")] for i, h in enumerate(proof.hashes)]
    return tag(
        "details",
        tag("summary", f"Inclusion proof: {entry.type} {entry.id} is entry {proof.index:,} of {proof.size:,}"),
        tag("pre", bytes(proof.entry).decode(errors="replace")),
        table(["step", "sibling hash (SHA-256)"], path, "From the leaf, SHA-256(0x00 ‖ entry), to the signed root")
        if path
        else None,
    )


def clauses_section(clauses: list[Clause]) -> Safe:
    """Clause → evidence."""
    rows = [[str(c.number), tag("b", c.source), c.asks, pill(c.verdict), _evidence(c)] for c in clauses]
    tally = {v: sum(c.verdict == v for c in clauses) for v in ("pass", "fail", "no evidence", "not applicable")}
    return section(
        "clauses",
        "Clauses and their evidence",
        tag("p", [[pill(f"{v}"), f" {n}  "] for v, n in tally.items()]),
        table(["#", "clause", "asks for", "verdict", "evidence"], rows),
        tag(
            "p",
            "A verdict says whether the evidence that the row names is present and current in this ledger. It is no legal judgement.",
            class_="small",
        ),
    )


def _evidence(clause: Clause) -> Safe:
    present = [tag("li", words, " ", _entry_link(index)) for words, index in clause.present]
    failed = [tag("li", words, class_="failed") for words in clause.failed]
    if clause.verdict == "not applicable":
        return text(clause.missing)
    missing = [tag("li", f"missing: {words}", class_="missing") for words in clause.missing]
    return tag("ul", failed, present, missing, class_="evidence")
