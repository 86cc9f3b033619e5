"""Where the document of callers comes from: files that are looked at a few times a second, and in one process of a pod
the API server, which tells of a change at once; that process puts what it hears into a file for the others.

The newest good document goes on while none comes, or a bad one does: an edited one, another model's, one that can't be
read, or an older one that somebody put back.
"""

import hashlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx

from governed_api import runtime
from governed_api.callers import CALLERS_FILE, open_callers
from governed_api.jitter import JITTER
from governed_api.json_reading import items
from governed_api.json_types import Json
from governed_api.resolved import ResolvedModel
from governed_serving.access.directory import BadDocument, Directory
from governed_serving.access.gate import Gate
from governed_serving.containment import contained
from governed_serving.decoding import decode_json
from governed_serving.durable import replace_file
from governed_serving.environment import InvalidSettings, PodEnvironment, missing
from governed_serving.hosting.logs import log
from governed_serving.hosting.service_account import ACCOUNT, account_client
from governed_serving.pod_token import PodToken

__all__ = ["Documents", "Sources", "opened"]

POLL_SECONDS = 0.25
"""Between looks at the files."""
LARGEST = 64 << 20
"""Bytes of a document."""
WATCH_SECONDS = 300
"""For which the API server tells of changes; then it is asked anew."""
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
"""Seconds before an API server that was away is asked again: doubled each time."""
_KEY = 64


@dataclass(frozen=True, kw_only=True)
class Sources:
    """``secret`` authenticates documents; ``paths`` of files; ``url``: of the ConfigMap, and ``relay``: the file that
    what is heard of it is put into."""

    secret: str
    paths: tuple[Path, ...]
    url: str = ""
    relay: Path | None = None

    @classmethod
    def of(cls, env: PodEnvironment) -> "Sources | None":
        """None where the pod has no callers. Raises InvalidSettings."""
        path, folder, url = env.path(runtime.CALLERS), env.path(runtime.POD_TOKENS), env.url(runtime.CALLERS_URL)
        if path is None:
            return None
        secret = env.content(runtime.CALLERS_KEY_FILE, "the key of callers").strip()
        try:
            if len(bytes.fromhex(secret.decode())) * 2 != _KEY:
                raise ValueError
        except ValueError:
            raise InvalidSettings(
                f"{runtime.CALLERS_KEY_FILE}: expected {_KEY} hexadecimal characters, found {len(secret)} bytes that "
                "are none; the operator writes them into the model's Secret of tokens"
            ) from None
        relay = folder / CALLERS_FILE if folder is not None else None
        paths = (path,) if relay is None or url else (path, relay)
        return cls(secret=secret.decode(), paths=paths, url=url, relay=relay if url else None)


class Documents:
    """Gives ``gate`` what ``sources`` have, from threads of its own. ``account``: the service account's folder."""

    def __init__(
        self,
        gate: Gate,
        sources: Sources,
        *,
        account: Path = ACCOUNT,
        transport: httpx.BaseTransport | None = None,
        poll: float = POLL_SECONDS,
    ) -> None:
        self.gate, self._sources, self._account, self._transport = gate, sources, account, transport
        self._poll = poll
        self._lock, self._stop = threading.Lock(), threading.Event()
        self._seen: dict[Path, tuple[int, int, int]] = {}
        self._using, self._from = "", ""
        self._bad: dict[str, str] = {}
        self._away, self._pause = False, FIRST_PAUSE
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """What is there already is known when this returns."""
        self.look()
        runs = [self._watch_files, *([self._watch_server] if self._sources.url else [])]
        self._threads = [threading.Thread(target=run, name="callers", daemon=True) for run in runs]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """No more news; a thread that waits for the API server ends with the process."""
        self._stop.set()

    def look(self) -> None:
        """Read the files that have changed."""
        for path in self._sources.paths:
            try:
                found = path.stat()
                mark = (found.st_mtime_ns, found.st_ino, found.st_size)
                if self._seen.get(path) == mark:
                    continue
                if found.st_size > LARGEST:
                    raise OSError(f"expected at most {LARGEST} bytes, found {found.st_size}")
                sealed = path.read_bytes()
            except FileNotFoundError:  # not there yet, or no more: the last good one goes on
                continue
            except OSError as error:
                self._refuse(str(path), "", error.strerror or str(error))
                continue
            self._seen[path] = mark
            self.take(sealed, str(path))

    def take(self, sealed: bytes, source: str) -> bool:
        """Use a document; whether it is the newest. Never raises."""
        digest = hashlib.sha256(sealed).hexdigest()
        with self._lock:
            if digest == self._using:
                return True
            try:
                document = open_callers(sealed, self._sources.secret)
                before = self.gate.directory
                directory = Directory(document, self.gate.namespace, self.gate.model, before)
            except (ValueError, BadDocument) as error:
                self._refuse(source, digest, str(error))
                return False
            if before is not None and directory.sequence <= before.sequence:
                if source == self._from:  # another source is late as a rule
                    self._refuse(
                        source,
                        digest,
                        f"expected a sequence above {before.sequence}, found {directory.sequence}: an older document "
                        "was put back",
                    )
                return False
            self.gate.directory = directory
            self._using, self._from = digest, source
            self._bad.pop(source, None)
        log("info", "callers", sequence=directory.sequence, callers=directory.callers)
        return True

    def _refuse(self, source: str, digest: str, why: str) -> None:
        """Count and tell, once for each document."""
        if self._bad.get(source) == digest + why:
            return
        self._bad[source] = digest + why
        self.gate.bad_documents += 1
        log("error", "a document of callers can't be used; the last good one goes on", source=source, why=why)

    def _watch_files(self) -> None:
        while not self._stop.wait(self._poll):
            try:
                contained(self.look)
            except Exception as error:  # whatever it is: who is revoked must not stay known
                self._refuse("files", "", f"{type(error).__name__}: {error}")

    # the API server

    def _watch_server(self) -> None:
        while not self._stop.is_set():
            try:
                contained(self._hear)
                self._stop.wait(self._poll)  # one that ends each watch at once isn't asked without pause
            except Exception as error:  # whatever it is, retrying: who is revoked must not stay known
                self._tell_away(error)
                self._stop.wait(self._pause * JITTER.uniform(0.5, 1.0))
                self._pause = min(2 * self._pause, LONGEST_PAUSE)

    def _hear(self) -> None:
        for sealed in self._heard():
            self._pause, self._away = FIRST_PAUSE, False
            if self.take(sealed, self._sources.url):
                self._relay(sealed)

    def _tell_away(self, error: Exception) -> None:
        """Count, and tell once until the API server is back."""
        self.gate.watch_failures += 1
        if not self._away:
            why = f"{type(error).__name__}: {error}"
            log("warning", "the API server doesn't tell who may call; the last document goes on, retrying", why=why)
        self._away = True

    def _relay(self, sealed: bytes) -> None:
        if self._sources.relay is not None:
            replace_file(self._sources.relay, sealed, mode=0o440, durable=False)

    def _heard(self) -> Iterator[bytes]:
        """What the ConfigMap holds, and then each time that it changes, until the API server has told long enough.
        Raises OSError, ValueError, httpx.HTTPError, msgspec.DecodeError."""
        collection, _, name = self._sources.url.rpartition("/")
        chosen = {"fieldSelector": f"metadata.name={name}"}
        with account_client(self._account, self._transport, timeout=httpx.Timeout(5.0)) as client:
            answer = client.get(collection, params=chosen)
            answer.raise_for_status()
            listed: Json = decode_json(answer.content)
            for item in items(_field(listed, "items")):
                yield from _sealed(item)
            version = _field(_field(listed, "metadata"), "resourceVersion")
            asked = {
                **chosen,
                "watch": "true",
                "resourceVersion": str(version or ""),
                "timeoutSeconds": str(WATCH_SECONDS),
            }
            times = httpx.Timeout(5.0, read=WATCH_SECONDS + 30.0)
            with client.stream("GET", collection, params=asked, timeout=times) as events:
                events.raise_for_status()
                for line in events.iter_lines():
                    event: Json = decode_json(line) if line else {}
                    if _field(event, "type") == "ERROR":
                        return  # too old: listed anew
                    if _field(event, "type") in ("ADDED", "MODIFIED"):
                        yield from _sealed(_field(event, "object"))


def opened(
    resolved: ResolvedModel, component: str, sources: Sources | None, token: PodToken | None
) -> Documents | None:
    """What keeps the gate of a process up to date, started; None where the spec doesn't ask who calls. Raises
    InvalidSettings without ``sources``, and without a ``token`` of the pod: its inner ports would be open."""
    if not resolved.spec.authenticates:
        return None
    if token is None:
        raise missing(runtime.POD_TOKENS, "the folder of the pod's tokens")
    if sources is None:
        raise missing(runtime.CALLERS, "the path of the document of callers")
    documents = Documents(Gate(resolved.namespace, resolved.name, component, sources.secret), sources)
    documents.start()
    return documents


def _field(value: Json, name: str) -> Json:
    return value.get(name) if isinstance(value, dict) else None


def _sealed(config_map: Json) -> Iterator[bytes]:
    text = _field(_field(config_map, "data"), CALLERS_FILE)
    if isinstance(text, str):
        yield text.encode()
