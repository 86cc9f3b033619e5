"""Commands that reach a model through kubectl: here a script that says what kubectl says; e2e has the real one."""

import base64
import json
import os
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from governed_api import runtime as rt
from governed_api.names import ARCHIVE
from governed_api.roles import Role, bearer_token
from governed_operator.cli import app, in_cluster
from governed_operator.cli.in_cluster import ClusterError, ClusterModel
from governed_operator.local.workdir import Workdir

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
    assert (ClusterModel("credit", None, "prod").report(), MODEL.anchor()) == ({}, {})
    first, second = (tmp_path / "asked").read_text().splitlines()
    assert "--namespace" not in first
    assert second.startswith("--context prod --namespace team get governancereports.governedmodels.io governed-archive")


def test_the_readers_token_is_made_as_the_archive_makes_it(kubectl: Kubectl) -> None:
    root = bytes(range(32))
    kubectl(f"""echo '{json.dumps({"data": {rt.ROOT_NAME: base64.b64encode(root).decode()}})}'""")
    assert MODEL.reader_token().decode() == bearer_token(root, "team", ARCHIVE, Role.READER)


def test_only_a_report_with_a_checkpoint_is_an_anchor(kubectl: Kubectl) -> None:
    kubectl("""echo '{"status": {"archive": {"size": 3}}}'""")
    assert MODEL.anchor() == {}
    kubectl("""echo '{"status": {"archive": {"checkpoint": "note"}}}'""")
    assert MODEL.anchor() == {"status": {"archive": {"checkpoint": "note"}}}


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
    assert done.exit_code == (3 if words[0] == "verify" else 1), "of a ledger that wasn't seen, nothing is wrong"
    assert done.stderr == "governed: kubectl: error: You must be logged in to the server (Unauthorized)\n"


def test_a_command_outside_a_cluster_asks_kubectl_nothing(kubectl: Kubectl, tmp_path: Path) -> None:
    kubectl("true")
    done = CliRunner().invoke(app, ["report", "credit", "--workdir", str(tmp_path / "none")])
    assert done.exit_code == 1
    assert "name its --workdir or a --report, or the --namespace of a cluster" in done.stderr
    assert not (tmp_path / "asked").exists()


NO_NAMES = ["", "-A", "--kubeconfig=mine", "a,b", "a b", "../x", "Team", "a\n", "x" * 64, "pod/b"]


@pytest.mark.parametrize("word", NO_NAMES)
def test_what_is_no_name_never_reaches_kubectl(kubectl: Kubectl, tmp_path: Path, word: str) -> None:
    """Neither as an option of its own, nor as a selector; and an empty variable doesn't mean what serves here."""
    kubectl("true")
    for words in (["-n", word, "--", "credit"], ["-n", "team", "--", word]):
        done = CliRunner().invoke(app, ["contests", *words])
        assert (done.exit_code, "expected the name of a" in done.stderr) == (1, True), done.stderr
    done = CliRunner().invoke(app, ["contests", "credit", "--context", ""])
    assert (done.exit_code, "expected the name of a context" in done.stderr) == (1, True)
    assert not (tmp_path / "asked").exists()


FORWARDS = "echo 'Forwarding from 127.0.0.1:9 -> 8443'"


def _as_in_a_cluster(kubectl: Kubectl, then: str, first: str = "") -> None:
    """Has the archive's Secret, and forwards a port; ``first``, ``then``: what it does before and behind."""
    secret = json.dumps({"data": {rt.ROOT_NAME: base64.b64encode(bytes(32)).decode()}})
    kubectl(f"""case "$*" in *port-forward*) {first}{FORWARDS}; {then};; *secrets*) echo '{secret}';; esac""")


@pytest.fixture
def verifier(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The words that the serving side gets."""
    asked: list[list[str]] = []

    def run(words: list[str], **_: object) -> "subprocess.CompletedProcess[bytes]":
        asked.append(words)
        return subprocess.CompletedProcess(words, 0)

    real = subprocess.run
    monkeypatch.setattr(
        "governed_operator.cli.verify.subprocess.run",
        lambda words, **more: run(words, **more) if words[0] == sys.executable else real(words, **more),
    )
    return asked


def test_a_receipt_is_held_against_the_ledger_of_a_model(
    kubectl: Kubectl, verifier: list[list[str]], tmp_path: Path
) -> None:
    _as_in_a_cluster(kubectl, "exec sleep 30")
    done = CliRunner().invoke(app, ["verify", "answer.receipt", "--against", "credit", "-n", "team", "--id", "credit"])
    assert done.exit_code == 0, done.stderr
    (words,) = verifier
    assert words[-3:] == ["--against=http://127.0.0.1:9", "--", "answer.receipt"]
    assert "--token-file" in words
    assert "--id=credit" in words
    assert "get secrets governed-archive-keys" in (tmp_path / "asked").read_text()


def test_a_folder_of_the_models_name_is_not_what_is_verified(
    kubectl: Kubectl, verifier: list[list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Workdir(tmp_path / "credit").archive_folder.mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    _as_in_a_cluster(kubectl, "exec sleep 30")
    assert CliRunner().invoke(app, ["verify", "credit", "-n", "team"]).exit_code == 0
    assert CliRunner().invoke(app, ["verify", "credit"]).exit_code == 0
    there, here = verifier
    assert there[-2:] == ["--", "http://127.0.0.1:9"]
    assert "--workdir" not in there
    assert "--workdir" in here, "it is one that a command without --namespace takes"


def test_kubectl_may_print_as_much_as_it_likes(kubectl: Kubectl, tmp_path: Path) -> None:
    """A line for each connection: a pipe holds about two thousand of them."""
    line = "Handling connection for 8443" + "x" * 200
    kubectl(f"{FORWARDS}; i=0; while [ $i -lt 500 ]; do echo {line}; i=$((i+1)); done; echo > {tmp_path}/done; "
            "exec sleep 30")  # fmt: skip
    with MODEL.forwarded("pod/b", 8443):
        assert _until((tmp_path / "done").exists)


def test_a_look_at_what_kubectl_prints_leaves_its_place_in_the_file() -> None:
    """The offset is the child's as well: moved between its lines, it wrote over the one with the port."""
    with tempfile.TemporaryFile() as told, tempfile.TemporaryFile() as said:
        os.pwrite(told.fileno(), b"Forwarding from 127.0.0.1:40123 -> 8080\n", 0)
        with subprocess.Popen(["sleep", "30"], stdout=told) as process:
            assert in_cluster._local_port(process, told, said) == 40123
            assert os.lseek(told.fileno(), 0, os.SEEK_CUR) == 0
            process.kill()


def test_a_port_that_dies_in_the_middle_is_the_cause(kubectl: Kubectl) -> None:
    kubectl(f"{FORWARDS}; echo 'error: lost connection to pod' >&2; exit 1")

    def lost() -> None:
        with MODEL.forwarded("pod/b", 8443):
            time.sleep(0.5)
            raise ConnectionRefusedError

    with pytest.raises(ClusterError, match="port-forward ended: error: lost connection to pod"):
        lost()


def test_an_error_that_has_another_cause_stays(kubectl: Kubectl) -> None:
    kubectl(f"{FORWARDS}; exec sleep 30")
    with pytest.raises(ConnectionRefusedError), MODEL.forwarded("pod/b", 8443):
        raise ConnectionRefusedError


def test_a_pod_that_is_being_deleted_is_not_asked(kubectl: Kubectl) -> None:
    going = _pod("a", "True") | {"metadata": {"name": "a", "deletionTimestamp": "2026-11-29T00:00:00Z"}}
    kubectl(f"""echo '{json.dumps({"items": [going, _pod("b", "True")]})}'""")
    assert MODEL.pod() == "pod/b"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT], ids=lambda n: str(n.name))
def test_a_command_that_is_ended_leaves_neither_token_nor_process(
    kubectl: Kubectl, tmp_path: Path, number: signal.Signals
) -> None:
    _as_in_a_cluster(kubectl, "exec sleep 60", f"echo $$ > {tmp_path}/pid; ")
    (tmp_path / "temporary").mkdir()
    environment = dict(os.environ) | {"TMPDIR": str(tmp_path / "temporary")}
    governed = [sys.executable, "-c", "from governed_operator.cli import main; main()"]
    process = subprocess.Popen(
        [*governed, "verify", "credit", "-n", "team"], env=environment, stderr=subprocess.DEVNULL
    )
    held = tmp_path / "temporary"
    assert _until(lambda: any(held.glob("governed-verify-*/token")))
    (token,) = held.glob("governed-verify-*/token")
    assert stat.S_IMODE(token.stat().st_mode) == 0o600
    process.send_signal(number)
    assert process.wait(20) != 0
    assert list(held.iterdir()) == []
    forwards = int((tmp_path / "pid").read_text())
    with pytest.raises(ProcessLookupError):
        os.kill(forwards, 0)


def _until(holds: Callable[[], bool], seconds: float = 20.0) -> bool:
    end = time.monotonic() + seconds
    while not holds() and time.monotonic() < end:
        time.sleep(0.02)
    return holds()
