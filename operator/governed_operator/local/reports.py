"""Reads the GovernanceReport files that local pods write."""

import json
from typing import TypeVar

from pydantic import ValidationError

from governed_api.base import Part
from governed_api.evidence import TrainingReport
from governed_api.json_types import Json
from governed_api.regular_files import read_regular
from governed_api.report import GovernanceReportStatus
from governed_operator.local.errors import LocalError
from governed_operator.local.workdir import Workdir, replace_content

T = TypeVar("T", bound=Part)


def raw_report(workdir: Workdir, name: str) -> dict[str, Json]:
    """The report's status as it was written; empty before the first write."""
    path = workdir.reports / f"{name}.json"
    try:
        document = json.loads(read_regular(path, follow=True))
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise LocalError(f"{path}: can't be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise LocalError(f"{path}: not JSON ({error}): remove it; it is written anew") from error
    if not isinstance(document, dict):
        raise LocalError(f"{path}: expected a mapping: remove it; it is written anew")
    status = document.get("status", document)
    return status if isinstance(status, dict) else {}


def report(workdir: Workdir, name: str) -> GovernanceReportStatus:
    """The typed report. Raises LocalError when it doesn't have the contract's shape."""
    return _typed(workdir, name, GovernanceReportStatus, raw_report(workdir, name))


def training_report(workdir: Workdir, name: str) -> TrainingReport | None:
    """The trainer's part in full; None before it has written any. Raises LocalError."""
    part = raw_report(workdir, name).get("trainer")
    return _typed(workdir, name, TrainingReport, part, "trainer.") if part else None


def _typed(workdir: Workdir, name: str, kind: type[T], part: Json, below: str = "") -> T:
    return typed(kind, part, f"{workdir.reports / f'{name}.json'}: {below}")


def typed(kind: type[T], part: object, where: str) -> T:
    """``part`` by the contract. Raises LocalError, which begins with ``where``."""
    try:
        return kind.model_validate(part)
    except ValidationError as error:
        first = error.errors()[0]
        raise LocalError(f"{where}{'.'.join(map(str, first['loc']))}: {first['msg']}") from error


def forget_other_revisions(workdir: Workdir, name: str, revision: str) -> None:
    """What pods of earlier revisions said: in a cluster the operator removes it. Call while none of the model's
    processes runs."""
    path = workdir.reports / f"{name}.json"
    status = raw_report(workdir, name)
    revisions = status.get("revisions")
    if not isinstance(revisions, dict) or set(revisions) <= {revision}:
        return
    document = json.loads(read_regular(path, follow=True))
    document.get("status", document)["revisions"] = {r: v for r, v in revisions.items() if r == revision}
    replace_content(path, json.dumps(document, indent=1, ensure_ascii=False).encode())
