"""Object storage that speaks S3's API: versitygw over a folder, a process of this machine."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from support.ports import free_port
from support.programs import program
from support.waiting import eventually

ACCESS, SECRET, BUCKET = "tests", "tests-only-0123456789", "ledger"


class ObjectStorage:
    """One bucket; the objects are files below ``objects``, where a test can damage them. ``host``: the address that it
    listens on."""

    def __init__(
        self, root: Path, certificate: Path | None = None, key: Path | None = None, host: str = "127.0.0.1"
    ) -> None:
        self._host = host
        self._tls = ["--cert", str(certificate), "--key", str(key)] if certificate else []
        self.root, self.port = root, free_port()
        self.objects = root / "data" / BUCKET
        self.keys = root / "keys"
        for folder in (self.objects, root / "meta", self.keys):
            folder.mkdir(parents=True)
        (self.keys / "access-key-id").write_text(f"{ACCESS}\n")
        (self.keys / "secret-access-key").write_text(SECRET)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://{self._host}:{self.port}"

    def place(self, prefix: str = "team") -> str:
        """What GOVERNED_OBJECTS says."""
        return f"s3://{BUCKET}/{prefix}?endpoint={self.url}"

    def start(self) -> None:
        """Returns once it answers."""
        environment = {"PATH": os.environ["PATH"], "ROOT_ACCESS_KEY": ACCESS, "ROOT_SECRET_KEY": SECRET}
        command = [
            str(program("versitygw")), "--port", f"{self._host}:{self.port}", "--quiet", *self._tls,
            "posix", "--sidecar", str(self.root / "meta"), str(self.objects.parent),
        ]  # fmt: skip
        with (self.root / "log").open("ab") as log:
            self._process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=self.root)
        process = self._process

        def answers() -> bool:
            assert process.poll() is None, (self.root / "log").read_text()
            try:
                return httpx.get(self.url, trust_env=False, timeout=2, verify=False).status_code > 0
            except httpx.TransportError:
                return False

        eventually(answers, within=60, every=0.05, what="the object storage answers")

    def stop(self) -> None:
        """It is away until it is started again, at the same address."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(30)
            self._process = None

    def files(self) -> dict[str, Path]:
        """Objects by name."""
        stored = (
            p
            for p in self.objects.rglob("*")
            if p.is_file() and not p.relative_to(self.objects).parts[0].startswith(".")
        )
        return {path.relative_to(self.objects).as_posix(): path for path in stored}


@contextmanager
def object_storage(
    root: Path, certificate: Path | None = None, key: Path | None = None, host: str = "127.0.0.1"
) -> Iterator[ObjectStorage]:
    """Running, and gone at the end; by TLS where a certificate is given."""
    storage = ObjectStorage(root, certificate, key, host)
    storage.start()
    try:
        yield storage
    finally:
        storage.stop()
        shutil.rmtree(root / "data", ignore_errors=True)
