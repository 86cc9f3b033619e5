"""Where the operator finds its cluster, and what it says when there is none."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from governed_operator.kube.cluster import NoCluster, find_cluster

CONTEXT = "contexts: [{name: c, context: {cluster: k, user: u}}]\nclusters: [{name: k, cluster: {}}]\nusers: []\n"


@pytest.mark.parametrize(
    "content",
    [
        None,
        "",
        "[",
        "just words",
        "apiVersion: v1\nkind: Config\n",
        f"apiVersion: v1\nkind: Config\ncurrent-context: other\n{CONTEXT}",
        "\x00\x01",
        b"\xff\xfe\xff",
    ],
    ids=["no file", "empty", "no YAML", "words", "no context", "another context", "NUL", "no UTF-8"],
)
async def test_a_kubeconfig_that_cannot_be_used_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str | bytes | None
) -> None:
    path = tmp_path / "config"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.setenv("KUBECONFIG", str(path))
    with pytest.raises(NoCluster) as caught:
        await find_cluster()
    said = str(caught.value)
    assert len(said.splitlines()) == 1
    assert str(path) in said
    assert said.endswith("set KUBECONFIG to a file with a current context")


def test_the_operator_ends_at_once_where_there_is_no_cluster(tmp_path: Path) -> None:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("KUBE")} | {"HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-m", "governed_operator"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "governed-operator: no cluster: not in a pod" in done.stderr
    assert "Traceback" not in done.stderr
