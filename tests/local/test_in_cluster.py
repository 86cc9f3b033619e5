"""Commands that reach a model through kubectl: here a script that says what kubectl says; e2e has the real one."""

import base64
import json
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from governed_operator.cli import app
from governed_operator.cli.in_cluster import ClusterError, ClusterModel

Kubectl = Callable[[str], None]


@pytest.fixture
def kubectl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Kubectl:
    """Puts a shell script in kubectl's place."""

    def write(script: str) -> None:
        path = tmp_path / "bin" / "kubectl"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\n{script}\n')
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv("PATH", f"{path.parent}:/usr/bin:/bin")

    return write


MODEL = ClusterModel("credit", "team", "prod")


def test_words_and_options_reach_kubectl(kubectl: Kubectl, tmp_path: Path) -> None:
    token = base64.b64encode(b"credit/operator/ab").decode()
    kubectl(f"""echo '{json.dumps({"data": {"operator-token": token}})}'""")
    assert MODEL.token() == b"credit/operator/ab"
    asked = (tmp_path / "asked").read_text()
    assert asked == "--context prod --namespace team get secrets credit-operator -o json --ignore-not-found\n"


def test_the_kubeconfigs_own_namespace_is_taken_where_none_is_named(kubectl: Kubectl, tmp_path: Path) -> None:
    kubectl("true")
    assert ClusterModel("credit", None, "prod").report() == {}
    assert "--namespace" not in (tmp_path / "asked").read_text()


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("true", "no Secret credit-operator in namespace team"),
        ("echo 'Error from server (Forbidden): secrets is forbidden' >&2; exit 1", "kubectl: Error from server (Forb"),
        ("echo not json", "expected JSON, found something else"),
        ("echo '[]'", "no Secret credit-operator"),
        ("""echo '{"data": {}}'""", "no Secret credit-operator"),
    ],
)
def test_what_kubectl_refuses_is_said_in_its_words(kubectl: Kubectl, script: str, words: str) -> None:
    kubectl(script)
    with pytest.raises(ClusterError, match=words.replace("(", r"\(")):
        MODEL.token()


def test_without_kubectl_one_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ClusterError, match="need kubectl on the PATH"):
        MODEL.model()


def test_a_model_that_is_not_there_is_said_so(kubectl: Kubectl) -> None:
    kubectl("true")
    with pytest.raises(ClusterError, match="no GovernedModel credit in namespace team"):
        MODEL.model()
    kubectl("""echo '{"metadata": {"name": "credit"}, "spec": {"surprise": 1}}'""")
    with pytest.raises(ClusterError, match=r"isn't of the version that this command knows: .*surprise"):
        MODEL.model()


def _pod(name: str, ready: str) -> dict[str, object]:
    return {"metadata": {"name": name}, "status": {"conditions": [{"type": "Ready", "status": ready}]}}


def test_a_pod_that_is_ready_is_chosen(kubectl: Kubectl) -> None:
    kubectl(f"""echo '{json.dumps({"items": [_pod("a", "False"), _pod("b", "True")]})}'""")
    assert MODEL.pod() == "pod/b"
    kubectl(f"""echo '{json.dumps({"items": [_pod("a", "False")]})}'""")
    with pytest.raises(ClusterError, match="no pod of credit is ready in namespace team: see kubectl describe"):
        MODEL.pod()


def test_a_port_is_forwarded_while_the_block_runs(kubectl: Kubectl, tmp_path: Path) -> None:
    kubectl(f"trap 'echo ended > {tmp_path}/ended; exit' TERM\n"
            "echo 'Forwarding from 127.0.0.1:40123 -> 8080'; sleep 30 & wait")  # fmt: skip
    with MODEL.forwarded("pod/b", 8080) as address:
        assert address == "http://127.0.0.1:40123"
    assert (tmp_path / "ended").exists()
    assert "port-forward --address 127.0.0.1 pod/b :8080" in (tmp_path / "asked").read_text()


def test_a_port_that_cannot_be_forwarded_is_said_so(kubectl: Kubectl) -> None:
    kubectl("echo 'error: unable to forward port because pod is not running' >&2; exit 1")
    with pytest.raises(ClusterError, match="kubectl port-forward: error: unable to forward"), MODEL.forwarded("p", 1):
        pass


@pytest.mark.parametrize(
    "words",
    [
        ["report", "credit"],
        ["verify", "credit"],
        ["explain", "credit", "a=1"],
        ["infer", "credit", "a=1"],
        ["contests", "credit"],
        ["contest", "credit", "P", "--by", "me", "--reason", "r"],
        ["decide", "credit", "P", "--by", "me", "--reason", "r", "--outcome", "upheld"],
        ["acknowledge", "credit", "--by", "me", "--reason", "r"],
    ],
    ids=lambda words: str(words[0]),
)
def test_each_command_ends_with_what_kubectl_said(kubectl: Kubectl, words: list[str]) -> None:
    kubectl("echo 'error: You must be logged in to the server (Unauthorized)' >&2; exit 1")
    done = CliRunner().invoke(app, [*words, "--namespace", "team"])
    assert done.exit_code == 1
    assert done.stderr == "governed: kubectl: error: You must be logged in to the server (Unauthorized)\n"


def test_a_command_outside_a_cluster_asks_kubectl_nothing(kubectl: Kubectl, tmp_path: Path) -> None:
    kubectl("true")
    done = CliRunner().invoke(app, ["report", "credit", "--workdir", str(tmp_path / "none")])
    assert done.exit_code == 1
    assert "name its --workdir or a --report, or the --namespace of a cluster" in done.stderr
    assert not (tmp_path / "asked").exists()
