"""What a model does at this moment, here or in a cluster: from its GovernanceReport and the resource's conditions."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from governed_api.conditions import READY, Condition
from governed_api.json_types import Json
from governed_api.model import GovernedModelStatus
from governed_api.names import ARCHIVE
from governed_api.report import ArchiveReport, GovernanceReportStatus, PodVerdict
from governed_api.resolved import ResolvedModel
from governed_api.runtime import PORT_HTTP, on_this_machine
from governed_operator.local.errors import LocalError
from governed_operator.local.reports import report, typed
from governed_operator.local.workdir import Workdir

__all__ = ["Overview", "Summary", "cluster_overview", "cluster_summary", "local_models", "local_overview", "summary"]

State = Literal["serving", "starting", "training", "failed", "stopped"]
"""Of a local run."""
_NO_VERDICT = "–"
_OTHER = "isn't of the version that this command knows: "


@dataclass(frozen=True)
class Summary:
    """A line of the list."""

    name: str
    place: str
    """Work directory, or namespace."""
    state: str
    """Of a local run, or the reason of the condition Ready."""
    serves: bool
    verdict: str
    predictions: int
    """That the verdict rests on."""
    entries: int
    """In the ledger, all models of its archive."""
    url: str
    """Empty: none."""
    message: str = ""
    """Why it doesn't serve."""

    def plain(self) -> dict[str, Json]:
        """For JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Overview:
    """All that a person asks first."""

    summary: Summary
    report: GovernanceReportStatus
    archive: ArchiveReport | None
    conditions: tuple[Condition, ...] = ()
    """In a cluster."""

    @property
    def pods(self) -> list[PodVerdict]:
        """Auditors of every revision."""
        return _auditors(self.report)

    def plain(self) -> dict[str, Json]:
        """For JSON."""
        parts = self.report.model_dump(mode="json", by_alias=True, exclude_none=True)
        conditions: list[Json] = [c.model_dump(mode="json", by_alias=True, exclude_none=True) for c in self.conditions]
        return {"summary": self.summary.plain(), "conditions": conditions, "report": parts}


def _auditors(told: GovernanceReportStatus) -> list[PodVerdict]:
    return [pod for revision in told.revisions.values() for pod in revision.auditor.values()]


def local_models(below: Path) -> Iterator[Workdir]:
    """Work directories of runs below ``below``, by name; those too that aren't the caller's to read. Raises
    LocalError."""
    try:
        folders = sorted(below.iterdir()) if below.is_dir() else []
    except OSError as error:
        raise LocalError(f"{below}: can't be read: {error.strerror}") from error
    for folder in folders:
        if _holds_run(folder):
            yield Workdir(folder)


def _holds_run(folder: Path) -> bool:
    try:
        return (folder / "model.json").is_file()
    except OSError:  # another person's: runs are closed to others
        return True


def local_overview(workdir: Workdir) -> Overview:
    """Raises LocalError where the folder holds no run, or what isn't of this version."""
    try:
        model = ResolvedModel.load(workdir.model_file)
    except FileNotFoundError:
        raise LocalError(f"{workdir.root}: no run of a model is there: start one with governed run FILE") from None
    except (OSError, ValidationError) as error:
        first = " ".join(str(error).split())[:300]
        raise LocalError(f"{workdir.model_file}: can't be read by this version: {first}") from error
    told = report(workdir, model.name)
    offset = workdir.serving_port_offset
    state, message = _state(told, offset, lives=offset is not None or workdir.lives)
    url = on_this_machine(PORT_HTTP + offset) if offset is not None and state == "serving" else ""
    archive = report(workdir, ARCHIVE).archive
    return Overview(_summary(model.name, _shown(workdir.root), (state, message), told, archive, url), told, archive)


def _state(told: GovernanceReportStatus, offset: int | None, *, lives: bool) -> tuple[State, str]:
    if not lives:
        return "stopped", ""
    if offset is None:
        if told.trainer is not None and told.trainer.phase == "Running":
            return "training", told.trainer.message.removeprefix("training")
        return "starting", ""
    servers = [server for revision in told.revisions.values() for server in revision.server.values()]
    refusing = next((server.message for server in servers if not server.ready), "")
    return ("failed", refusing) if servers and not any(server.ready for server in servers) else ("serving", "")


def _summary(
    name: str,
    place: str,
    state: tuple[State, str],
    told: GovernanceReportStatus,
    archive: ArchiveReport | None,
    url: str,
) -> Summary:
    word, message = state
    return Summary(
        name,
        place,
        word,
        serves=word == "serving",
        verdict=told.auditor.verdict if told.auditor else _NO_VERDICT,
        predictions=told.auditor.samples if told.auditor else max((pod.samples for pod in _auditors(told)), default=0),
        entries=archive.size if archive else 0,
        url=url,
        message=message,
    )


def summary(workdir: Workdir) -> Summary:
    """Of a local run; what can't be read is said in its line."""
    try:
        return local_overview(workdir).summary
    except LocalError as error:
        return Summary(workdir.root.name, _shown(workdir.root), "unknown", False, _NO_VERDICT, 0, 0, "", str(error))


def cluster_summary(resource: Mapping[str, Json]) -> Summary:
    """Of a GovernedModel as the API server has it; a field of another version is taken for absent."""
    metadata, status = resource.get("metadata"), _status(resource)
    names: Mapping[str, Json] = metadata if isinstance(metadata, dict) else {}
    ready = next((c for c in status.conditions if c.type == READY), None)
    return Summary(
        str(names.get("name", "")),
        str(names.get("namespace", "")),
        ready.reason if ready else "Pending",
        serves=ready is not None and ready.status == "True",
        verdict=status.bias.verdict if status.bias else _NO_VERDICT,
        predictions=status.bias.samples if status.bias else 0,
        entries=status.ledger.size if status.ledger else 0,
        url=status.url or "",
        message="" if ready is None or ready.status == "True" else ready.message,
    )


def cluster_overview(resource: Mapping[str, Json], told: Mapping[str, Json], archive: Mapping[str, Json]) -> Overview:
    """Of the resource, its GovernanceReport and the archive's."""
    own, shared = _report(told), _report(archive)
    return Overview(cluster_summary(resource), own, shared.archive, tuple(_status(resource).conditions))


def _status(resource: Mapping[str, Json]) -> GovernedModelStatus:
    return typed(GovernedModelStatus, resource.get("status") or {}, f"the status {_OTHER}")


def _report(resource: Mapping[str, Json]) -> GovernanceReportStatus:
    return typed(GovernanceReportStatus, resource.get("status") or {}, f"the report {_OTHER}")


def _shown(folder: Path) -> str:
    """From here, where it lies below."""
    here = Path.cwd()
    return str(folder.relative_to(here)) if folder.is_relative_to(here) else str(folder)
