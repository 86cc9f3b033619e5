"""The page's sections other than groups: model, data, training, gates, explanations, privacy, keys, ledger, clauses."""

from collections.abc import Collection, Mapping, Sequence

from governed_api.evidence import (
    ColumnSummary,
    ConformalEvaluation,
    DatasetManifest,
    Evaluation,
    FittedThresholds,
    Importance,
    LabelColumn,
)
from governed_api.page.markup import Safe, tag, text
from governed_api.page.parts import digest, facts, figure, number, percent, pill, section, table
from governed_serving.archive.verify.verification import Proof, Verification
from governed_serving.decoding import decode_json
from governed_serving.dossier.documents import (
    CardFeature,
    CardLineage,
    ServerCounters,
    ShownAttribution,
    ShownExplanation,
    ShownRequest,
)
from governed_serving.dossier.dossier import Dossier, LedgerView
from governed_serving.dossier.laws.judging import Clause
from governed_serving.dossier.laws.pack import Pack
from governed_serving.dossier.served import Served
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

GROUPS = 20
"""Groups of a hierarchy that are drawn."""

PAIRS = 10
"""Interactions of a request that are drawn."""

QUALITY_WINDOWS = 24
"""Newest windows shown."""


def _none(sentence: str) -> Safe:
    return tag("p", sentence, class_="none")


def _entry_link(index: int | None) -> Safe:
    return tag("span", f"entry {index:,}", class_="entry") if index is not None else Safe("")


def model_section(dossier: Dossier) -> Safe:
    """Identity, interface, lineage."""
    card, shipped = dossier.card, dossier.shipped
    entry = dossier.ledger.latest("artefact") if dossier.ledger else None
    recorded = entry[1].digest if entry else ""
    identity = facts(
        [
            ("Model", dossier.model),
            ("Task", card.task),
            ("Artefact", digest(recorded or shipped.digest, 64)),
            ("Variant that ships", card.variant or shipped.variant),
            ("Predicts", card.label),
            ("Classes", ", ".join(map(str, card.classes))),
            ("Favourable outcome", card.favorable or card.threshold),
            ("In the ledger as", _entry_link(entry[0]) if entry else None),
        ]
    )
    features = [[f.name, f.type, f.dtype, _domain(f)] for f in card.features]
    return section(
        "model",
        "Model and lineage",
        identity,
        *_lineage(card.lineage, recorded if entry else shipped.digest),
        table(["feature", "type", "datatype", "values"], features, "What clients send") if features else None,
    )


def _lineage(lineage: CardLineage | None, artefact: str) -> list[Safe]:
    if lineage is None:
        return []
    steps = [
        ("data", lineage.dataset),
        ("training", lineage.training),
        ("code", lineage.code),
        ("artefact", artefact),
    ]
    chain = tag("ol", [tag("li", tag("b", name), digest(value, 12)) for name, value in steps if value], class_="chain")
    versions = ", ".join(f"{k} {v}" for k, v in sorted(lineage.versions.items()))
    made = [tag("p", f"Made with {versions}.", class_="small")] if versions else []
    return [tag("h3", "Lineage"), chain, *made]


def _domain(feature: CardFeature) -> str:
    categories = feature.categories
    if categories:
        return ", ".join(categories[:12]) + (f" … ({len(categories)})" if len(categories) > 12 else "")
    if feature.min is not None:
        return f"{number(feature.min)} … {number(feature.max)}, mean {number(feature.mean)}"
    return ""


def data_section(dossier: Dossier) -> Safe:
    """The data-set manifest."""
    data = dossier.data
    if data is None:
        return section("data", "Data", _none("No data-set manifest is recorded."))
    entry = dossier.ledger.latest("dataset") if dossier.ledger else None
    rows = facts(
        [
            ("Digest", digest(data.digest, 64)),
            ("Source", data.source),
            ("Source digest", digest(data.source_digest, 64)),
            ("Licence", data.licence or "not stated"),
            ("Legal basis", data.consent_basis or "not stated"),
            ("Rows", f"{data.rows:,}"),
            ("Label", _label(data.label)),
            ("In the ledger as", _entry_link(entry[0]) if entry else None),
        ]
    )
    schema = [
        [c.name, c.type, f"{c.missing:,}", f"{c.distinct:,}" if c.distinct is not None else "", _range(c)]
        for c in data.columns
    ]
    split = ", ".join(f"{name} {count:,}" for name, count in dossier.evaluation.rows.items())
    return section(
        "data",
        "Data",
        rows,
        table(["column", "type", "missing", "distinct", "range"], schema, "Schema", numeric=(2, 3)) if schema else None,
        tag("p", f"Split: {split} rows.", class_="small") if split else None,
    )


def _range(column: ColumnSummary) -> str:
    if column.min is None:
        return ""
    return f"{number(column.min)} … {number(column.max)} (mean {number(column.mean)})"


def _label(label: LabelColumn | str) -> str:
    if isinstance(label, str):
        return label
    classes = ", ".join(map(str, label.classes))
    return f"{label.name}: {classes}" if classes else label.name


def training_section(dossier: Dossier) -> Safe:
    """Curves and what the Job reported."""
    trainer, training = dossier.report.trainer, dossier.documents.training
    curve = training.curve if training else []
    rows = facts(
        [
            ("Phase", pill(trainer.phase) if trainer else None),
            ("Said", trainer.message if trainer else None),
            ("Training hash", digest(trainer.training_hash if trainer else "")),
            ("Epochs", len(curve) or None),
        ]
    )
    names = [name for name in (curve[0] if curve else {}) if name != "epoch"]
    losses = [n for n in names if "loss" in n.lower()]
    rates = [n for n in names if "learning" in n.lower() or n == "lr"]
    others = [n for n in names if n not in losses and n not in rates]
    plots = [
        _curve(curve, losses, "Loss", "loss"),
        _curve(curve, others, "Quality on validation rows", "value"),
        _curve(curve, rates, "Learning rate", "learning rate", 160),
    ]
    shown = [[str(i + 1), *(number(e.get(n)) for n in names)] for i, e in enumerate(curve)]
    figures = table(["epoch", *names], shown, numeric=range(len(names) + 1))
    return section(
        "training",
        "Training",
        rows,
        *plots,
        tag("details", tag("summary", "Every epoch in figures"), figures) if curve else None,
        _none("No training curve can be shown.") if not curve and not trainer else None,
    )


def _curve(curve: list[dict[str, float]], names: list[str], title: str, unit: str, height: float = 260) -> Safe:
    lines = [Line(n, [(i + 1.0, e[n]) for i, e in enumerate(curve) if n in e]) for n in names]
    return figure(curves(title, lines, "epoch", unit, height), f"{title} by epoch.")


def gates_section(dossier: Dossier) -> Safe:
    """Gate table, held-out quality."""
    gates, metrics = dossier.gates, dossier.metrics
    index = dossier.ledger.index("gates") if dossier.ledger else None
    rows = [[g.name, number(g.measured), number(g.budget), pill(g.verdict), g.message] for g in gates]
    variant = dossier.card.variant or dossier.shipped.variant
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
        _mitigation(dossier.evaluation),
        _coverage(dossier.evaluation.conformal),
        lead="A compressed model ships only inside every budget of the manifest; otherwise the uncompressed one does. "
        "Lines of coverage and mitigation hold nothing back.",
    )


def _mitigation(evaluation: Evaluation) -> Safe | None:
    """What training was mitigated by, which every answer names, and how it came to that."""
    applied = evaluation.mitigation
    if applied is None:
        return None
    name = f"{applied.method}, {applied.constraint}" if applied.constraint else applied.method
    said = f"This model was trained with mitigation of bias ({name}), and every answer says so. "
    if applied.thresholds is not None:
        said = f"Bias is mitigated after training ({name}), and every answer says so. "
    if not applied.effect:
        said = f"Mitigation of bias ({name}) was asked for and changed nothing: what ships is the model without it. "
    said += "What the same training gives without it, and the change on held-out rows, is in the lines mitigation/… of "
    said += "the gates. "
    if applied.reached is False:
        said += f"The constraint ({number(applied.max_disparity)}) was not reached: the nearest network ships. "
    said += "Whether decisions may be shaped by protected attributes in this way is a question of law."
    rows = [
        [
            str(place),
            number(s.training),
            number(s.validation),
            percent(s.accuracy),
            "ships" * (place == applied.shipped),
        ]
        for place, s in enumerate(applied.steps)
    ]
    headings = ["network", "largest |group − all|, training", "validation", "accuracy, validation", ""]
    return text(
        [
            tag("h3", "Mitigation"),
            tag("p", said, class_="callout"),
            table(headings, rows, "Networks tried; 0 is the unmitigated one", numeric=range(4)) if rows else None,
            _thresholds(applied.thresholds),
        ]
    )


def _thresholds(told: FittedThresholds | None) -> Safe | None:
    """Whom randomised thresholds favour, and how often on the rows that they were fitted on."""
    if told is None:
        return None
    rows = [
        [
            group.group,
            str(group.rows),
            f"{percent(group.upper_share)} above {number(group.upper)}, "
            f"{percent(group.lower_share)} above {number(group.lower)}",
            f"{percent(group.ignored)}, {percent(group.chance)} favoured",
            percent(group.selection_rate),
            percent(group.true_positive_rate),
            percent(group.false_positive_rate),
        ]
        for group in told.groups
    ]
    by = f"the input {told.subject}" if told.subject else "all of the row"
    said = f"A draw depends on {by}, under a key with SHA-256 {told.key.removeprefix('sha256:')}. "
    said += (
        f"On held-out rows {told.held_out_drawn} decisions are drawn, and {told.held_out_base} are by the model's own "
    )
    said += "threshold, for groups without thresholds and missing values."
    caption = f"Thresholds by group, fitted on {told.rows} rows that nothing else uses"
    headings = ["group", "rows", "favoured", "score ignored", "selected", "true positives", "false positives"]
    return text([table(headings, rows, caption, numeric=(1, 4, 5, 6)), tag("p", said, class_="small")])


def _coverage(told: ConformalEvaluation | None) -> Safe | None:
    """Sets or intervals with a promised coverage: what was promised, and what held-out rows show."""
    if told is None:
        return None
    rows = [
        [
            about,
            f"{coverage.covered:,} of {coverage.rows:,}",
            percent(coverage.coverage),
            f"[{percent(coverage.lower)}, {percent(coverage.upper)}]",
            number(coverage.size),
            number(coverage.threshold),
            f"{coverage.calibration_rows:,}" if coverage.own else f"{coverage.calibration_rows:,}, shared",
        ]
        for about, coverage in [("all", told.overall)]
        + [(f"{name}: {coverage.group}", coverage) for name, listed in told.groups.items() for coverage in listed]
    ]
    what = "classes in the set" if told.method == "LAC" else "width"
    headings = ["", "covered", "coverage", "exact interval", f"mean {what}", "threshold", "calibration rows"]
    said = f"The output {told.output} holds the truth of a new row with a chance of {percent(told.coverage)} or more, "
    said += "as long as new rows are like those it was calibrated on, which nothing was fitted on or chosen by. "
    if told.group_conditional:
        said += "The promise holds for each group with a threshold of its own; groups with fewer than "
        said += f"{told.min_group_rows:,} calibration rows share one, and have no promise each. "
        said += "Whether groups may be treated by different thresholds is a question of law. "
    else:
        said += "It holds for all rows together, not for each group. "
    return text(
        [
            tag("h3", "Coverage"),
            tag("p", said),
            table(headings, rows, "On held-out rows; all intervals hold together", numeric=range(1, 7)),
        ]
    )


def explanations_section(dossier: Dossier) -> Safe:
    """Global importances, and one request explained."""
    blocks: list[Safe | None] = [_held_out_importance(dossier.evaluation.importances)]
    served = dossier.served
    for kind, sizes in sorted(served.kinds.items()) if served else ():
        blocks.append(_served_importance(kind, sizes))
    if served and served.explanations:
        blocks += [_quality(served.quality), _drift(dossier.ledger)]
    example = dossier.example
    if example and example.explanation:
        blocks.append(tag("h3", "One request, explained"))
        blocks += [_explained(shown) for shown in example.explanation[:3]]
    elif example and example.prediction:
        blocks.append(_none("The example request has no explanation in the ledger."))
    if example and example.prediction:
        blocks.append(_asked(example.prediction))
    if not any(blocks):
        blocks.append(_none("No explanation can be shown."))
    return section("explanations", "Explanations", *blocks)


def _held_out_importance(importances: list[Importance]) -> Safe:
    bars = [Estimate(i.feature, i.value, note=number(i.value)) for i in importances[:20]]
    unit = "mean change of the output when the feature is shuffled"
    plot = signed_bars("Global importance (held-out rows)", bars, unit)
    return figure(plot, f"Permutation importance on held-out rows (Breiman 2001).{_rest(importances, bars)}")


def _rest(whole: Collection[object], shown: Collection[object]) -> str:
    """How many of what there is a figure leaves out."""
    others = len(whole) - len(shown)
    return f" {others:,} smaller ones are not shown." if others else ""


def _served_importance(kind: str, sizes: Mapping[str, Sequence[float]]) -> Safe:
    """Of one kind of attribution: others have another unit."""
    means = {name: sum(v) / len(v) for name, v in sizes.items()}
    top = sorted(means.items(), key=lambda item: -item[1])[:20]
    bars = [Estimate(n, v, note=number(v)) for n, v in top]
    plot = signed_bars(f"Global importance (explanations served: {kind})", bars, "mean |attribution|")
    most = max(map(len, sizes.values()))
    return figure(
        plot, f"Mean absolute attribution ({kind}) over {most:,} explanations in the ledger.{_rest(means, bars)}"
    )


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
    alarms = ledger.drifts if ledger else []
    if not alarms:
        return tag("p", "No drift of global importances was reported.")
    rows = [
        [_entry_link(a.index), a.time, a.summary.player, number(a.summary.before), number(a.summary.after)]
        for a in alarms
    ]
    return text(
        [
            tag("h3", "Drift of global importances"),
            table(["", "at", "feature", "share before", "share after"], rows, numeric=(3, 4)),
        ]
    )


def _explained(shown: ShownExplanation) -> Safe:
    entries = sorted(shown.attributions, key=lambda e: -abs(e.size))
    rows = [Estimate(_player(e), e.size, *(e.interval or (None, None))) for e in entries[:20]]
    details = facts(
        [
            ("Method", f"{shown.method}, exact" if shown.exact and "exact" not in shown.method else shown.method),
            ("Target", _target(shown, "")),
            ("Base value", number(shown.base_value)),
            ("Prediction", number(shown.prediction)),
            ("Additivity residual", number(shown.additivity_residual)),
            ("Evaluations", number(shown.evaluations)),
            ("Seed", str(shown.seed) if shown.seed is not None else None),
        ]
    )
    caption = "Attributions: what each feature adds to the base value. Whiskers: the explainer's own error."
    caption += _rest(entries, rows)
    plot = signed_bars(f"Attributions to {_target(shown, 'the output')}", rows, "attribution")
    return text([figure(plot, caption), _groups(shown), _interactions(shown), details])


def _groups(shown: ShownExplanation) -> Safe | None:
    """What the groups of a hierarchy have together, where one was declared."""
    if not shown.groups:
        return None
    largest = sorted(shown.groups, key=lambda one: -abs(one.attribution or 0.0))[:GROUPS]
    rows = [
        Estimate(
            f"{g.group} (in {g.within})" if g.within else g.group, g.attribution or 0.0, *(g.interval or (None, None))
        )
        for g in largest
    ]
    rest = _rest(shown.groups, largest)
    caption = f"Owen values: the members of a group have together what the group has among those beside it.{rest}"
    return figure(signed_bars("Groups of the hierarchy", rows, "attribution"), caption)


def _interactions(shown: ShownExplanation) -> Safe | None:
    """The strongest pairs, where they were asked for."""
    if not shown.interactions:
        return None
    pairs = shown.interactions[:PAIRS]
    rows = [Estimate(" × ".join(p.between), p.interaction or 0.0, *(p.interval or (None, None))) for p in pairs]
    others = len(shown.interactions) - len(pairs) + shown.interactions_left_out
    rest = f" {others:,} weaker pairs are not shown." if others else ""
    caption = f"SHAP interaction values: what each of the two has of it, a part of its attribution.{rest}"
    return figure(signed_bars("Strongest interactions", rows, "interaction"), caption)


def _player(entry: ShownAttribution) -> str:
    """Who gets the attribution: a feature with its value, a group, or a part of a text."""
    name = str(entry.feature or entry.group or ("" if entry.value is None else entry.value))
    return f"{name} = {entry.value}" if entry.feature else name


def _target(shown: ShownExplanation, otherwise: str) -> str:
    return otherwise if shown.target is None else str(shown.target)


def _asked(prediction: ShownRequest) -> Safe:
    rows = [[name, _values(v)] for name, v in prediction.features.items()]
    rows += [[tag("b", name), _values(v)] for name, v in prediction.outputs.items()]
    return tag(
        "details",
        tag("summary", f"The request {prediction.id} as it was served (masked) and its answer"),
        table(["field", "value"], rows),
        tag(
            "p",
            "Revision ",
            tag("code", prediction.revision),
            ", artefact ",
            digest(prediction.artefact),
            class_="small",
        ),
    )


def _values(values: Sequence[object] | Mapping[str, object]) -> str:
    if isinstance(values, Mapping):
        return ", ".join(f"{name} {value}" for name, value in values.items())
    if values and isinstance(values[0], list):
        values = values[0]
    shown = [number(v) if isinstance(v, int | float) else str(v) for v in values[:8]]
    return ", ".join(shown) + (" …" if len(values) > 8 else "")


def privacy_section(dossier: Dossier) -> Safe:
    """Personal data found in the data, and masked in service."""
    limits = (
        "Recognisers find what has a form (numbers, addresses of mail); names and postal addresses need "
        "more and are not claimed."
    )
    return section(
        "privacy",
        "Privacy",
        tag("h3", "In the training data"),
        *_scanned(dossier.data),
        tag("h3", "In service"),
        _counters(dossier.report.server),
        _placeholders(dossier.served),
        tag("p", limits, class_="small"),
    )


def _scanned(data: DatasetManifest | None) -> list[Safe]:
    """What the scan of the data found, and what was masked before training."""
    if data is None or data.personal_data is None:
        findings = _none("No scan for personal data is recorded.")
    elif scan := [[c, e, f"{n:,}"] for c, entities in data.personal_data.items() for e, n in entities.items()]:
        caption = "What the scan found before training"
        findings = table(["column", "entity", "findings"], scan, caption, numeric=(2,), narrow=True)
    else:
        findings = tag("p", "The scan found no personal data that its recognisers know.")
    if data is None or not data.masked:
        return [findings]
    return [findings, tag("p", "Masked before training: ", ", ".join(data.masked), ".")]


def _counters(server: ServerCounters | None) -> Safe | None:
    if server is None or server.masking is None:
        return None
    rows = [[entity, number(count)] for entity, count in server.masking.items()]
    return table(["entity", "masked"], rows, "Counters of the server", numeric=(1,))


def _placeholders(served: Served | None) -> Safe:
    """Placeholders of masked data in what was served."""
    if served is None or not served.rows:
        return _none("Journalled requests were not opened (no model key), so placeholders can't be counted here.")
    rows = [[f, e, f"{n:,}"] for f, entities in served.masked.items() for e, n in entities.items()]
    if not rows:
        return tag("p", f"No placeholders in the {served.rows:,} journalled rows that were opened.")
    caption = (
        f"Placeholders in {served.rows:,} journalled rows: masked before the model, the journal and the ledger saw them"
    )
    return table(["field", "entity", "placeholders"], rows, caption, numeric=(2,), narrow=True)


def keys_section(dossier: Dossier) -> Safe:
    """Key inventory and key events."""
    rows = [[k.purpose, str(k.key_id), k.type, pill(k.status), k.created, digest(k.kek)] for k in dossier.keys]
    events = dossier.ledger.keys if dossier.ledger else []
    happened = [[_entry_link(e.index), e.time, e.purpose, e.action, digest(e.digest)] for e in events[-20:]]
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
        lead=(
            "Data, artefacts, journal and ledger are ciphertext on disk. Destroying a purpose's keyset destroys "
            "all that it sealed; the ledger still verifies."
        ),
    )


def ledger_section(dossier: Dossier) -> Safe:
    """Checkpoint, counts, the example's inclusion proof."""
    ledger = dossier.ledger
    if ledger is None:
        return section("ledger", "Ledger", _none("No archive was given."))
    blocks: list[Safe] = []
    if ledger.error:
        blocks.append(tag("p", tag("strong", "The ledger does not verify. "), ledger.error, class_="callout bad"))
    if ledger.verification is not None:
        blocks.append(_verified(ledger.verification))
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
        lead=(
            "Every prediction, explanation, verdict and key event is a leaf of an RFC 6962 Merkle tree whose "
            "root is signed. A changed, missing or re-ordered entry changes the root."
        ),
    )


def _verified(v: Verification) -> Safe:
    return facts(
        [
            ("Verified", pill("verified")),
            ("Log", v.origin),
            ("Entries", f"{v.size:,}, all recomputed" if v.complete else f"{v.entries:,} of {v.size:,}, each proved"),
            ("Root hash", tag("code", v.root, class_="wrap")),
            ("Signed by", tag("code", v.vkey, class_="wrap")),
            ("Blobs", v.of_blobs()),
            ("Under names", v.of_holdings()),
            ("Earlier checkpoints", ", ".join(f"over {n:,} entries: a prefix of this log" for n in v.earlier)),
        ]
    )


def _counts(ledger: LedgerView) -> Safe:
    rows = [[k, f"{n:,}"] for k, n in sorted(ledger.counts.items())]
    caption = f"Entries of this model, {ledger.first[:19]} to {ledger.last[:19]} UTC" if rows else ""
    return (
        table(["entry", "count"], rows, caption, numeric=(1,), narrow=True)
        if rows
        else _none("The ledger holds no entry of this model.")
    )


def _proof(proof: Proof) -> Safe:
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


def clauses_section(laws: Sequence[Pack], clauses: Sequence[Clause]) -> Safe:
    """Clause → evidence."""
    rows = [
        [tag("b", c.source), tag("span", c.id, class_="entry"), c.since, c.asks, pill(c.verdict), _evidence(c)]
        for c in clauses
    ]
    tally = {v: sum(c.verdict == v for c in clauses) for v in ("pass", "fail", "no evidence", "not applicable")}
    notes = [tag("li", tag("b", law.title), f" ({law.text}). {law.note}") for law in laws]
    return section(
        "clauses",
        "Clauses and their evidence",
        tag("p", [[pill(f"{v}"), f" {n}  "] for v, n in tally.items()]),
        table(["clause", "row", "applies", "asks for", "verdict", "evidence"], rows),
        tag(
            "p",
            "A verdict says whether the evidence that the row names is present and current: pass, all of it is; no "
            "evidence, a part is missing or outdated; fail, something contradicts it. It is no legal judgement.",
            class_="small",
        ),
        tag("details", tag("summary", "Texts that the rows cite"), tag("ul", notes)),
    )


def _evidence(clause: Clause) -> Safe:
    if clause.why:
        return text(clause.why)
    shown = []
    for state, class_, led in (
        ("contradicted", "failed", ""),
        ("present", None, ""),
        ("outdated", "missing", "outdated: "),
        ("missing", "missing", "missing: "),
    ):
        shown += [
            tag("li", led, result.what, " ", _entry_link(result.index), class_=class_)
            for result in clause.in_state(state)
        ]
    return tag("ul", shown, class_="evidence")
