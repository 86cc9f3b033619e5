"""Writes a pod's own part of its GovernanceReport: a file when run locally, the status subresource in a cluster.

In a cluster 10,000 models share one API server, so only what changes a verdict goes at once; the rest waits for five
minutes after the last write. A report that can't be written never stops the work it reports on: it is logged, counted,
and tried again.
"""

import fcntl
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal
from urllib.parse import unquote, urlsplit

import httpx

from governed_api.base import wire
from governed_api.jitter import JITTER
from governed_api.json_types import Json
from governed_api.report import ReportPart
from governed_api.runtime import LOCAL
from governed_serving.durable import replace_file
from governed_serving.hosting.retrying import Backoff, GaveUp, Retrying
from governed_serving.hosting.service_account import ACCOUNT, account_client

__all__ = ["Address", "Clocks", "PartName", "ReportWriter", "Values", "merge_patch", "of_pod"]

PartName = Literal["trainer", "auditor", "archive"]
Values = ReportPart | Mapping[str, object]
"""What is told of a part: the contract's type, which is all of it (fields that weren't set go, whoever wrote them), or
some fields by their names in JSON, each of which is replaced as a whole."""
Address = tuple[str, ...]
"""Path of a part below the report's status."""

_INTERVAL = 300.0
_BACKOFF = Backoff(patience=20.0, first=0.4, attempts=4)
_RETRYABLE_STATUS = frozenset({409, 429, *range(500, 600)})
"""Another writer was faster, or the API server has too much to do."""
_AFTER_FAILURE = 5.0
_AT_ONCE = (
    "phase", "verdict", "ready", "verified", "artefact", "gates", "trainingHash", "revision", "deadLetters",
    "unreadableFrames", "refused",
)  # fmt: skip


def of_pod(revision: str, role: Literal["server", "auditor"], pod: str) -> Address:
    """Path of what one pod's container says of its own revision: no other pod writes there. Empty: a process outside a
    cluster."""
    return ("revisions", revision or LOCAL, role, pod or LOCAL)


def _utc_now() -> datetime:
    return datetime.now(UTC)


def _later(seconds: float, call: Callable[[], object]) -> None:
    timer = threading.Timer(seconds, call)
    timer.daemon = True  # what waits is lost with the process, as it always was
    timer.start()


@dataclass(frozen=True)
class _Told:
    """Fields of a part; ``whole``: all that it has."""

    fields: Mapping[str, object]
    whole: bool = False

    def then(self, later: "_Told") -> "_Told":
        return later if later.whole else _Told({**self.fields, **later.fields}, self.whole)

    @property
    def replaces(self) -> bool:
        """A merge patch must name what goes, so one has to know what is there."""
        return self.whole or any(isinstance(value, dict) for value in self.fields.values())

    def over(self, there: Json) -> dict[str, object]:
        """The merge patch that makes this of what is there."""
        section = there if isinstance(there, dict) else {}
        patch = {name: _replacing(section.get(name), value) for name, value in self.fields.items()}
        return {name: None for name in section if self.whole and name not in patch} | patch


@dataclass(frozen=True)
class Clocks:
    """Seconds that pass, how to let some pass, the time of day in UTC, and how to do something after some seconds."""

    monotonic: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    now: Callable[[], datetime] = _utc_now
    later: Callable[[float, Callable[[], object]], None] = _later


class ReportWriter:
    """Writer for ``url``: ``file:///path.json``, or ``https://…/governancereports/NAME[/status]``.

    Thread-safe. ``interval`` seconds between writes of unimportant changes (default: none for files, 300 for HTTPS).
    """

    def __init__(
        self,
        url: str,
        *,
        interval: float | None = None,
        account: Path = ACCOUNT,
        transport: httpx.BaseTransport | None = None,
        clocks: Clocks | None = None,
    ):
        scheme = urlsplit(url).scheme
        if scheme not in ("file", "http", "https"):
            raise ValueError(f"the report's address must begin with file:// or https://, found {url!r}")
        self._url = url
        self._local = scheme == "file"
        self._interval = (0.0 if self._local else _INTERVAL) if interval is None else interval
        self._account, self._transport = account, transport
        self._clocks = clocks or Clocks()
        self._lock = threading.Lock()
        self._pending: dict[Address, _Told] = {}
        self._sent: dict[Address, _Told] = {}
        self._next = float("-inf")
        self._failing = self._promised = False
        self._streak = 0
        """Failed writes since the last that succeeded."""
        self.failures = 0
        """Writes that failed after all tries."""

    def update(self, part: PartName | Address, values: Values, *, at_once: bool = False) -> bool:
        """Put ``values`` (None removes a field) into a part, or into the one at a path (:func:`of_pod`).

        A first write, a changed verdict, phase, artefact, readiness …, and what is asked ``at_once`` go now, other
        changes when they are due. True when it has been written.
        """
        return self.update_all({(part,) if isinstance(part, str) else part: values}, at_once=at_once)

    def update_all(self, parts: Mapping[Address, Values], *, at_once: bool = False) -> bool:
        """:meth:`update` of several parts in one write."""
        observed = self._clocks.now().isoformat(timespec="milliseconds").replace("+00:00", "Z")
        with self._lock:
            for path, values in parts.items():
                whole = isinstance(values, ReportPart)
                fields = wire(values) if isinstance(values, ReportPart) else values
                told = _Told({"observedAt": observed, **fields}, whole)
                at_once = at_once or self._urgent(path, told)
                self._pending[path] = self._pending[path].then(told) if path in self._pending else told
            # After a failure even a changed verdict waits a little: back off when the API server is overloaded.
            due = self._clocks.monotonic() >= self._next or (at_once and not self._failing)
            done = self._write() if due else False
            self._promise()
            return done

    def _promise(self) -> None:
        """What waits goes out when it is due, whether or not there is another change by then."""
        if self._pending and not self._promised:
            self._promised = True
            wait = max(self._next - self._clocks.monotonic(), 0.0)
            if self._streak:  # not all at once when the API server comes back
                wait = min(_AFTER_FAILURE * 2.0 ** min(self._streak, 8), _INTERVAL) * JITTER.uniform(0.5, 1.0)
            self._clocks.later(wait, self._keep_promise)

    def _keep_promise(self) -> None:
        with self._lock:
            self._promised = False
            if self._pending and self._clocks.monotonic() >= self._next:
                self._write()
            self._promise()

    def read(self, part: PartName) -> dict[str, Json]:
        """A part as the report has it now; empty where there is none. Raises OSError where it can't be known."""
        try:
            if self._local:
                path = Path(unquote(urlsplit(self._url).path))
                report: Json = json.loads(path.read_bytes()) if path.exists() else {}
            else:
                report = self._get()
        except (ValueError, httpx.HTTPError) as error:
            raise OSError(f"report not read: {error}") from None
        section = report
        for name in ("status", part):
            section = section.get(name) if isinstance(section, dict) else None
        return section if isinstance(section, dict) else {}

    @property
    def local(self) -> bool:
        """The report is a file."""
        return self._local

    def annotation(self, name: str, report: str = "") -> str:
        """An annotation of the report, or of another ``report`` of its namespace; "" where it has none. Raises OSError
        where it can't be known."""
        if self._local:
            return ""
        try:
            value = self._get(f"{self._url.removesuffix('/status').rpartition('/')[0]}/{report}" if report else "")
        except (ValueError, httpx.HTTPError) as error:
            raise OSError(f"report not read: {error}") from None
        for key in ("metadata", "annotations", name):
            value = value.get(key) if isinstance(value, dict) else None
        return value if isinstance(value, str) else ""

    def _get(self, url: str = "") -> Json:
        retrying = Retrying(_BACKOFF, _RETRYABLE_STATUS, clock=self._clocks.monotonic, sleep=self._clocks.sleep)
        with self._client() as client:
            try:
                answer = retrying.call(lambda: client.get(url or self._url))
            except GaveUp as error:
                raise OSError(f"report not read: {error}") from None
        if answer.status_code == 404:
            return {}
        if not answer.is_success:
            raise OSError(f"report not read: {answer.status_code} {answer.text[:200]}")
        report: Json = answer.json()
        return report

    @property
    def waiting(self) -> bool:
        """Something is not written yet."""
        return bool(self._pending)

    def flush(self) -> bool:
        """Write what waits; True when nothing is left."""
        with self._lock:
            return self._write() if self._pending else True

    def _urgent(self, path: Address, told: _Told) -> bool:
        if path not in self._sent:
            return True
        sent = self._sent[path].fields
        return any(name in told.fields and told.fields[name] != sent.get(name) for name in _AT_ONCE)

    def _write(self) -> bool:
        try:
            if self._local:
                self._merge_file(Path(unquote(urlsplit(self._url).path)))
            else:
                self._patch()
        except (OSError, ValueError, httpx.HTTPError) as error:
            self._next = self._clocks.monotonic() + _AFTER_FAILURE
            self._failed(error)
            return False
        self._sent |= {p: self._sent[p].then(t) if p in self._sent else t for p, t in self._pending.items()}
        self._pending = {}
        self._next = self._clocks.monotonic() + self._interval
        self._failing, self._streak = False, 0
        return True

    def _failed(self, error: Exception) -> None:
        self.failures += 1
        self._streak += 1
        if not self._failing:  # once per streak: a report is written often
            line = {
                "level": "warning",
                "time": self._clocks.now().isoformat(),
                "message": "report not written, retrying",
            }
            print(json.dumps({**line, "url": self._url, "error": str(error)}), file=sys.stderr, flush=True)
        self._failing = True

    def _merge_file(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _locked(path.with_name(f".{path.name}.lock")):
            document = json.loads(path.read_bytes()) if path.exists() else {}
            if not isinstance(document, dict):
                raise ValueError(f"{path}: expected a JSON object")
            merged = json.dumps(merge_patch(document, self._patch_over(document)), indent=1, ensure_ascii=False)
            replace_file(path, merged.encode(), mode=0o644)

    def _patch_over(self, report: Json) -> dict[str, object]:
        """What waits, as a merge patch (RFC 7396) of the report."""
        patch: dict[str, object] = {}
        for path, told in self._pending.items():
            there = report
            for name in ("status", *path):
                there = there.get(name) if isinstance(there, dict) else None
            part: dict[str, object] = told.over(there)
            for name in reversed(("status", *path)):
                part = {name: part}
            patch = merge_patch(patch, part, keep_null=True)
        return patch

    def _patch(self) -> None:
        patch = self._patch_over(self._get() if any(told.replaces for told in self._pending.values()) else {})
        url = self._url if self._url.endswith("/status") else f"{self._url}/status"
        retrying = Retrying(_BACKOFF, _RETRYABLE_STATUS, clock=self._clocks.monotonic, sleep=self._clocks.sleep)
        with self._client() as client:
            try:
                answer = retrying.call(lambda: client.patch(url, json=patch))
            except GaveUp as error:
                raise OSError(f"report not patched: {error}") from None
        if not answer.is_success:
            raise OSError(f"report not patched: {answer.status_code} {answer.text[:200]}")

    def _client(self) -> httpx.Client:
        """Made for each write: writes are minutes apart, and the token on disk is rotated."""
        return account_client(self._account, self._transport, headers={"content-type": "application/merge-patch+json"})


def merge_patch(
    target: Mapping[str, object], patch: Mapping[str, object], *, keep_null: bool = False
) -> dict[str, object]:
    """RFC 7396: ``patch`` over ``target``, as a new mapping. ``keep_null`` keeps removals, to merge two patches into
    one."""
    merged = dict(target)
    for name, value in patch.items():
        if value is None and not keep_null:
            merged.pop(name, None)
        elif isinstance(value, dict):
            below = merged.get(name)
            merged[name] = merge_patch(below if isinstance(below, dict) else {}, value, keep_null=keep_null)
        else:
            merged[name] = value
    return merged


def _replacing(old: Json, new: object) -> object:
    """The patch that leaves ``new`` of ``old``: what a mapping hasn't any more is named."""
    if not isinstance(old, dict) or not isinstance(new, dict):
        return new
    gone: dict[str, object] = {name: None for name in old if name not in new}
    return gone | {name: _replacing(old.get(name), value) for name, value in new.items()}


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
