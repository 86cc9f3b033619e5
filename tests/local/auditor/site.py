"""An archive and an auditor as processes on free ports, and a writer that plays the server."""

import hashlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx

from governed_api.names import ARCHIVE
from governed_api.resolved import ResolvedModel
from governed_api.roles import Role, bearer_token, token_key
from governed_serving.archive.client import ArchiveClient
from governed_serving.archive.tokens import model_token
from governed_serving.crypto import Keyring, Keyset, SegmentCipher, load_kek
from governed_serving.journal import Journal
from support.ports import free_port
from support.waiting import eventually
from unit.auditor.records import SPEC


class Site:
    """Folders, keys and processes of one model."""

    def __init__(self, root: Path, spec: dict[str, Any] = SPEC) -> None:
        self.root, self.spool = root, root / "spool"
        for name in ("kek", "root", "model-kek"):
            (root / name).write_bytes(hashlib.sha256(name.encode()).digest())
            (root / name).chmod(0o600)
        self.token = model_token((root / "root").read_bytes(), "default", "loans")
        (root / "token").write_text(self.token)
        for role in (Role.AUDITOR, Role.SERVER):
            (root / token_key(role)).write_text(bearer_token((root / "root").read_bytes(), "default", "loans", role))
        (root / "spec.json").write_bytes(ResolvedModel.model_validate(spec).dump())
        self.archive_port, self.port = free_port(), free_port()
        self.archive_url = f"http://127.0.0.1:{self.archive_port}"
        self.url = f"http://127.0.0.1:{self.port}"
        self._urls = {"pod": self.url}
        self.children: dict[str, subprocess.Popen[str]] = {}

    def start_archive(self) -> None:
        own = {
            "GOVERNED_ARCHIVE_ROOT_FILE": str(self.root / "root"),
            "GOVERNED_ARCHIVE_DIR": str(self.root / "archive"),
            "GOVERNED_HTTP_PORT": str(self.archive_port),
            "GOVERNED_KEK_FILE": str(self.root / "kek"),
            "GOVERNED_NAMESPACE": "default",
        }
        self._start("archive", ["governed_serving.archive", "serve", "--host", "127.0.0.1"], own, self.archive_url)

    def start_auditor(self, pod: str = "pod", revision: str = "r1", **more: str) -> None:
        """One replica; every pod has its own spool and port, ``pod`` those of the site."""
        own = {
            "GOVERNED_SPEC": str(self.root / "spec.json"),
            "GOVERNED_KEK_FILE": str(self.root / "model-kek"),
            "GOVERNED_SPOOL_DIR": str(self.spool_of(pod)),
            "GOVERNED_MODEL_DIR": str(self.root / "model"),
            "GOVERNED_ARCHIVE_URL": self.archive_url,
            "GOVERNED_ARCHIVE_TOKEN_FILE": str(self.root / token_key(Role.AUDITOR)),
            "GOVERNED_HTTP_PORT": self.url_of(pod).rpartition(":")[2],
            "GOVERNED_HOST": "127.0.0.1",
            "GOVERNED_POD_NAME": pod,
            "GOVERNED_NAMESPACE": "default",
            "GOVERNED_REVISION": revision,
            "GOVERNED_REPORT": f"file://{self.root}/report.json",
            **more,
        }
        name = "auditor" if pod == "pod" else f"auditor-{pod}"
        self._start(name, ["governed_serving.auditor"], own, self.url_of(pod))

    def start_server(self, **more: str) -> None:
        """The stream that an auditor of the same pod follows, and the lane on which it asks."""
        own = {
            "GOVERNED_SPEC": str(self.root / "spec.json"),
            "GOVERNED_KEK_FILE": str(self.root / "model-kek"),
            "GOVERNED_SPOOL_DIR": str(self.spool),
            "GOVERNED_ARCHIVE_URL": self.archive_url,
            "GOVERNED_ARCHIVE_TOKEN_FILE": str(self.root / token_key(Role.SERVER)),
            "GOVERNED_HTTP_PORT": self.url_of("server").rpartition(":")[2],
            "GOVERNED_INTERNAL_PORT": self.url_of("lane").rpartition(":")[2],
            "GOVERNED_HOST": "127.0.0.1",
            "GOVERNED_POD_NAME": "pod",
            "GOVERNED_NAMESPACE": "default",
            "GOVERNED_REVISION": "r1",
            **more,
        }
        self._start("server", ["governed_serving.server"], own, self.url_of("server"))

    def spool_of(self, pod: str) -> Path:
        return self.spool if pod == "pod" else self.root / f"spool-{pod}"

    def url_of(self, pod: str) -> str:
        return self._urls.setdefault(pod, f"http://127.0.0.1:{free_port()}")

    def _start(self, name: str, command: list[str], own: dict[str, str], url: str) -> None:
        with (self.root / f"{name}.log").open("a") as log:
            self.children[name] = subprocess.Popen(
                [sys.executable, "-m", *command], env={**os.environ, **own}, stderr=log, text=True
            )

        def ready() -> bool:
            assert self.children[name].poll() is None, (self.root / f"{name}.log").read_text()
            return httpx.get(url + "/healthz/ready", trust_env=False, timeout=30).status_code == 200

        eventually(lambda: _answers(ready), within=120, every=0.05, what=f"{name} ready")

    def stop(self, name: str, sign: signal.Signals = signal.SIGTERM) -> int:
        child = self.children.pop(name)
        child.send_signal(sign)
        return child.wait(120)

    def close(self) -> None:
        for name in list(self.children):
            self.stop(name, signal.SIGKILL)

    def reader(self) -> ArchiveClient:
        """Of all models' entries, the archive's own included."""
        token = bearer_token((self.root / "root").read_bytes(), "default", ARCHIVE, Role.READER)
        return ArchiveClient(self.archive_url, token)

    def client(self) -> ArchiveClient:
        return ArchiveClient(self.archive_url, self.token, "loans", patience=5.0)

    def keyset(self) -> Keyset:
        with self.client() as client:
            return Keyring(load_kek(self.root / "model-kek"), client.keysets()).keyset("journal")

    def writer(self, pod: str = "pod") -> Journal:
        return Journal(
            self.spool_of(pod), f"server-{pod}", SegmentCipher(self.keyset()), "PageCache", segment_bytes=1 << 16
        )

    def get(self, path: str, pod: str = "pod") -> dict[str, Any]:
        return dict(httpx.get(self.url_of(pod) + path, trust_env=False, timeout=30).json())


def _answers(look: Any) -> Any:
    try:
        return look()
    except httpx.TransportError as error:
        raise OSError(str(error)) from error
