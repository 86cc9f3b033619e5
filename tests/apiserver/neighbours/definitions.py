"""The neighbours' own definitions, as their modules ship them."""

from pathlib import Path

from support.cluster_access import Cluster
from support.programs import module_folder

SHIPPED = {
    ("traefik", "sigs.k8s.io/gateway-api"): ("config/crd/standard", "*.yaml"),
    ("keda", ""): ("config/crd/bases", "*.yaml"),
    ("prometheus-operator", ""): ("example/prometheus-operator-crd", "*_servicemonitors.yaml"),
}
"""(tools module, what it requires) → (folder, files)."""


def install_definitions(cluster: Cluster) -> None:
    """Server-side: several are larger than the annotation of a client-side apply may be."""
    files = [path for where, (folder, glob) in SHIPPED.items() for path in _files(*where, folder, glob)]
    cluster.kubectl("apply", "--server-side", *(f"--filename={path}" for path in files))
    cluster.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=90s", timeout=100)


def _files(module: str, required: str, folder: str, glob: str) -> list[Path]:
    return sorted((module_folder(module, required) / folder).glob(glob))
