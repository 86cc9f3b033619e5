"""Helm on a cluster, apart from the settings and caches of the person who runs the tests."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

from support.cluster_access import Cluster
from support.programs import program


class HelmError(RuntimeError):
    """Helm said no; the message is its own."""


@dataclass(frozen=True)
class Helm:
    """Commands run in the cluster's namespace; `folder` holds what Helm keeps for itself."""

    cluster: Cluster
    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        homes = {f"HELM_{name}_HOME": str(self.folder / name.lower()) for name in ("CACHE", "CONFIG", "DATA")}
        return {**self.cluster.environment, **homes}

    def command(self, *args: str) -> list[str]:
        return [str(program("helm")), f"--namespace={self.cluster.namespace}", *args]

    def __call__(self, *args: str, timeout: float = 180.0) -> str:
        """Run helm and return its stdout; raises HelmError with its stderr."""
        result = subprocess.run(
            self.command(*args), env=self.environment, capture_output=True, text=True, timeout=timeout, check=False
        )
        if result.returncode:
            raise HelmError(f"helm {' '.join(args)}: {result.stderr.strip() or result.stdout.strip()}")
        return result.stdout
