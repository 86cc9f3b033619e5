"""Models at this moment as a person reads them."""

from collections.abc import Iterator, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from governed_api.conditions import DEGRADED, RECONCILING, STALLED
from governed_api.printable import printable
from governed_operator.local.audit_view import verdict_text
from governed_operator.local.overview import Overview, Summary

__all__ = ["models_table", "overview_view"]

_WIDTH = 12
_BAD_WHEN_TRUE = frozenset({DEGRADED, RECONCILING, STALLED})


def models_table(models: Sequence[Summary], place: str) -> RenderableType:
    """A line each; ``place``: what the second column has."""
    table = Table(box=None, pad_edge=False)
    for title in ("model", place, "state", "bias", "predictions", "entries", "address"):
        table.add_column(title, overflow="fold")  # a name that is cut can't be copied
    for model in models:
        state = Text(model.state, style="green" if model.serves else "yellow")
        row = (f"{model.predictions:,}", f"{model.entries:,}", Text(model.url or "–"))
        table.add_row(Text(model.name), Text(model.place), state, verdict_text(model.verdict), *row)
    told = [Text(printable(f"{model.name}: {model.message}"), style="yellow") for model in models if model.message]
    return Group(table, *told)


def overview_view(overview: Overview) -> RenderableType:
    """A line for each fact."""
    return Group(*(Text(f"{label:<{_WIDTH}}") + _one_line(value) for label, value in _facts(overview)))


def _one_line(value: Text) -> Text:
    """A message may come from a stranger's model: a line break in it would look like a fact of its own."""
    shown = printable(value.plain)
    return value if shown == value.plain else Text(shown, style=value.spans[-1].style if value.spans else value.style)


def _facts(overview: Overview) -> Iterator[tuple[str, Text]]:
    model = overview.summary
    state = Text(model.state, style="green" if model.serves else "yellow")
    yield model.name, state + _further(model.place, model.url, model.message)
    yield from _training(overview)
    yield from _bias(overview)
    yield from _serving(overview)
    yield from _ledger(overview)
    for condition in overview.conditions:
        good = (condition.status == "True") != (condition.type in _BAD_WHEN_TRUE)
        word = Text(f"{condition.type}={condition.status}", style="green" if good else "yellow")
        yield "condition", word + _further(condition.reason, condition.message)


def _further(*words: str) -> Text:
    return Text("".join(f"  {word}" for word in words if word))


def _training(overview: Overview) -> Iterator[tuple[str, Text]]:
    trainer = overview.report.trainer
    if trainer is None:
        return
    failed = [gate for gate in trainer.gates if gate.verdict == "fail"]
    gates = f"{len(trainer.gates) - len(failed)} of {len(trainer.gates)} gates passed" if trainer.gates else ""
    style = "bold red" if trainer.phase == "Failed" or failed else ""
    said = "  ".join(filter(None, [trainer.phase, gates, trainer.message]))
    yield "training", Text(said, style=style)
    for gate in failed:
        yield "", Text(f"gate {gate.name}: {gate.message}", style="bold red")


def _bias(overview: Overview) -> Iterator[tuple[str, Text]]:
    auditor, pods = overview.report.auditor, overview.pods
    if auditor is None and not pods:
        return
    verdict = verdict_text(overview.summary.verdict)
    summaries = sorted(pods, key=lambda pod: -pod.samples)
    worst = summaries[0].summary if summaries else ""
    rests = f"over {overview.summary.predictions:,} predictions"
    yield "bias", verdict + _further(worst, rests)
    if force := next((pod.in_force for pod in pods if pod.in_force not in ("", "None")), ""):
        yield "", Text(f"in force: {force}; governed acknowledge {overview.summary.name} lifts it", style="bold red")
    if waiting := max((pod.open_contests for pod in pods), default=0):
        overdue = max((pod.overdue_contests for pod in pods), default=0)
        late = f", {overdue:,} overdue" if overdue else ""
        yield "contests", Text(f"{waiting:,} open{late}: governed contests {overview.summary.name}", style="yellow")


def _serving(overview: Overview) -> Iterator[tuple[str, Text]]:
    for name, revision in overview.report.revisions.items():
        for pod, server in revision.server.items():
            said = f"{server.requests:,} requests, {server.errors:,} failed  revision {name}, pod {pod}"
            style = "" if server.ready and not server.errors else "yellow"
            yield "served", Text("  ".join(filter(None, [said, server.message])), style=style)


def _ledger(overview: Overview) -> Iterator[tuple[str, Text]]:
    archive = overview.archive
    if archive is not None:
        cosigned = f", {archive.cosigned:,} cosigned by witnesses" if archive.cosigned else ""
        yield "ledger", Text(f"{archive.size:,} entries{cosigned}")
        for problem in filter(None, [archive.message, archive.contradiction, archive.unstored, archive.lagging]):
            yield "", Text(problem, style="bold red")
    counted = (
        ("refused by the archive for ever", [pod.dead_letters for pod in overview.pods]),
        ("unreadable in the journal", [pod.unreadable_frames for pod in overview.pods]),
    )
    for what, numbers in counted:
        if total := sum(numbers):
            yield "", Text(f"{total:,} {what}: each has an entry of its own in the ledger", style="yellow")
    for pod in overview.pods:
        if pod.refused:
            yield "", Text(f"nothing gets into the ledger: {pod.refused}", style="bold red")
