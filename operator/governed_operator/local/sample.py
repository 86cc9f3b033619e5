"""The sample's requests: a JSON file beside the manifest.

``{"instances": [{feature: value}], "counts": [times sent], "rows": per request, "explain": [indices]}``
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TypeGuard

from governed_api.model import GovernedModel
from governed_api.names import ANNOTATION_SAMPLES
from governed_api.regular_files import read_regular
from governed_operator.local.columns import Row
from governed_operator.local.errors import LocalError

SAMPLE_BYTES = 256 << 20
"""Largest file of requests that is read."""
KNOWN = {"instances", "counts", "labels", "rows", "explain"}


@dataclass(frozen=True)
class Sample:
    """What `governed run --once` sends."""

    instances: list[Row]
    counts: list[int]
    rows: int
    explain: list[int]

    def batches(self) -> list[list[Row]]:
        """Every instance as often as its count says, interleaved as a population would arrive, in requests of ``rows``
        rows."""
        weighted = [((k + 0.5) / n, i) for i, n in enumerate(self.counts) for k in range(n)]
        population = [self.instances[i] for _, i in sorted(weighted)]
        return [population[i : i + self.rows] for i in range(0, len(population), self.rows)]

    @property
    def total(self) -> int:
        return sum(self.counts)


def sample_path(model: GovernedModel, file: Path) -> Path:
    """The annotation's file, otherwise the companion ``<stem>.requests.json``."""
    annotated = (model.metadata.get("annotations") or {}).get(ANNOTATION_SAMPLES)
    return file.resolve().parent / annotated if annotated else file.resolve().with_name(f"{file.stem}.requests.json")


def load_sample(path: Path) -> Sample:
    """Raises LocalError naming the field."""
    try:
        document = json.loads(read_regular(path, SAMPLE_BYTES, follow=True))
    except OSError as error:
        raise LocalError(f"{path}: {error.strerror}: --once sends the requests in this file") from error
    except ValueError as error:
        raise LocalError(f"{path}: not JSON: {error}") from error
    if not isinstance(document, dict) or not isinstance(document.get("instances"), list) or not document["instances"]:
        raise LocalError(f"{path}: expected a mapping with a list of instances")
    unknown = sorted(set(document) - KNOWN)
    if unknown:
        raise LocalError(f"{path}: {unknown[0]}: unknown field; known are {', '.join(sorted(KNOWN))}")
    instances = document["instances"]
    strange = next((i for i, row in enumerate(instances) if not isinstance(row, dict)), None)
    if strange is not None:
        raise LocalError(f"{path}: instances[{strange}]: expected a mapping of features")
    counts = document.get("counts") or [1] * len(instances)
    if not _whole(counts, least=0) or len(counts) != len(instances) or not sum(counts):
        raise LocalError(f"{path}: counts: expected {len(instances)} whole numbers, one per instance, not all 0")
    explain = document.get("explain", [0])
    if not _whole(explain, least=0) or any(i >= len(instances) for i in explain):
        raise LocalError(f"{path}: explain: expected indices below {len(instances)}")
    rows = document.get("rows", 64)
    if not _whole([rows], least=1):
        raise LocalError(f"{path}: rows: expected a whole number from 1 on, found {rows!r}")
    return Sample(instances, counts, rows, explain)


def _whole(values: object, least: int) -> TypeGuard[list[int]]:
    return isinstance(values, list) and all(type(value) is int and value >= least for value in values)
