"""The operator on a cluster, installed as a user does it: Helm and the project's chart."""

import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from support.cluster_access import Cluster
from support.places import ROOT
from support.programs import program
from support.progress import BedError

NAMESPACE = "governed-system"
NAME = "governed"
CHART = ROOT / "charts" / "governed-models"


@dataclass(frozen=True)
class Release:
    """One Helm release of the chart; all commands wait until the cluster agrees."""

    cluster: Cluster
    folder: Path
    """Scratch folder: Helm's own cache and configuration, older charts."""

    def helm(self, *args: str, timeout: float = 300.0) -> str:
        """Run helm and return its stdout; BedError with its stderr when it fails."""
        environment = {
            **os.environ,
            "KUBECONFIG": str(self.cluster.kubeconfig),
            **{f"HELM_{name}_HOME": str(self.folder / name.lower()) for name in ("CACHE", "CONFIG", "DATA")},
        }
        command = [str(program("helm")), *args, f"--namespace={NAMESPACE}"]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=timeout, check=False, env=environment, cwd=ROOT
        )
        if done.returncode:
            raise BedError(f"helm {' '.join(args)}: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout

    def upgrade(self, chart: Path = CHART, values: Mapping[str, str] | None = None) -> str:
        """helm upgrade --install: returns what Helm printed (the chart's notes)."""
        chosen = [word for key, value in (values or {}).items() for word in ("--set", f"{key}={value}")]
        return self.helm(
            "upgrade", "--install", NAME, str(chart), "--create-namespace", "--wait", "--timeout=240s", *chosen
        )

    def test(self) -> str:
        """helm test."""
        return self.helm("test", NAME, "--timeout=120s")

    def uninstall(self) -> str:
        return self.helm("uninstall", NAME, "--wait", "--timeout=120s")

    @property
    def installed(self) -> bool:
        return NAME in self.helm("list", "--short").split()

    def previous_chart(self, version: str = "0.0.9") -> Path:
        """The chart as an earlier release would be: an older version, images of today's."""
        folder = self.folder / f"chart-{version}"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(CHART, folder)
        meta = folder / "Chart.yaml"
        text, changed = re.subn(r"(?m)^version: .*$", f"version: {version}", meta.read_text())
        if changed != 1:
            raise BedError(f"{CHART / 'Chart.yaml'} has no version line")
        meta.write_text(text)
        return folder

    @property
    def operator(self) -> Cluster:
        """The operator's namespace."""
        return self.cluster.within(NAMESPACE)
