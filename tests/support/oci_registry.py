"""An OCI registry (distribution/v3) over a folder, a process of this machine."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from support.ports import free_port
from support.programs import program
from support.waiting import eventually


class OciRegistry:
    """``files``: where its blobs lie; a restart finds them again at the same address."""

    def __init__(self, root: Path) -> None:
        self.root, self.port, self.files = root, free_port(), root / "data"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        """Returns once it answers."""
        self.root.mkdir(parents=True, exist_ok=True)
        configuration = self.root / "config.yaml"
        configuration.write_text(
            f"version: 0.1\nlog: {{level: warn}}\nstorage: {{filesystem: {{rootdirectory: {self.files}}}}}\n"
            f"http: {{addr: '{self.host}', secret: tests-only}}\n"
        )
        with (self.root / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [str(program("registry")), "serve", str(configuration)],
                env={"PATH": os.environ["PATH"], "OTEL_TRACES_EXPORTER": "none"},
                stdout=log,
                stderr=log,
                cwd=self.root,
            )
        process = self._process

        def answers() -> bool:
            assert process.poll() is None, (self.root / "log").read_text()
            try:
                return httpx.get(f"http://{self.host}/v2/", trust_env=False, timeout=2).status_code == 200
            except httpx.TransportError:
                return False

        eventually(answers, within=60, every=0.05, what="the registry answers")

    def stop(self) -> None:
        """It is away until it is started again."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(30)
            self._process = None


@contextmanager
def oci_registry(root: Path) -> Iterator[OciRegistry]:
    """Running, and gone at the end."""
    registry = OciRegistry(root)
    registry.start()
    try:
        yield registry
    finally:
        registry.stop()
