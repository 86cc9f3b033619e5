"""kubectl governed: the current context is added where a command would look on this machine, and nowhere else."""

import subprocess
import sys
from pathlib import Path

import pytest
import typer

from governed_operator.cli import app
from governed_operator.cli.plugin import with_context

ROOT = typer.main.get_group(app)
PROD = "--context=prod"


@pytest.fixture
def kubectl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    program = tmp_path / "kubectl"
    program.write_text('#!/bin/sh\n[ "$*" = "config current-context" ] && echo prod\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.chdir(tmp_path)
    return program


@pytest.mark.parametrize(
    ("words", "becomes"),
    [
        (["list"], ["list", PROD]),
        (["list", "-A"], ["list", PROD, "-A"]),
        (["status", "credit", "--json"], ["status", PROD, "credit", "--json"]),
        (["consumer", "list"], ["consumer", "list", PROD]),
        (["verify", "credit"], ["verify", PROD, "credit"]),
    ],
)
def test_the_current_context_is_added(kubectl: Path, words: list[str], becomes: list[str]) -> None:  # noqa: ARG001
    assert with_context(ROOT, words) == becomes


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["--version"],
        ["nonsense"],
        ["validate", "m.yaml"],
        ["consumer"],
        ["list", "--help"],
        ["list", "-n", "team"],
        ["list", "-nteam"],
        ["list", "--namespace=team"],
        ["status", "credit", "--context", "other"],
        ["infer", "credit", "a=1", "--url", "http://127.0.0.1:8080"],
        ["consumer", "create", "app", "--file=consumers.yaml"],
        ["verify", "dossier.zip"],
    ],
)
def test_words_that_say_a_place_or_ask_for_none_stay(kubectl: Path, words: list[str]) -> None:
    (kubectl.parent / "dossier.zip").touch()
    kubectl.write_text("#!/bin/sh\nexit 1\n")
    assert with_context(ROOT, words) == words


@pytest.mark.parametrize(
    ("script", "told"),
    [
        ("echo 'error: current-context is not set' >&2; exit 1", "error: current-context is not set; choose one"),
        ("exit 0", "it names none; choose one: kubectl config use-context"),
        (None, "No such file or directory; install it"),
    ],
)
def test_where_kubectl_has_no_context_it_is_said(
    kubectl: Path, script: str | None, told: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    kubectl.unlink()
    monkeypatch.setenv("PATH", str(kubectl.parent))
    if script is not None:
        kubectl.write_text(f"#!/bin/sh\n{script}\n")
        kubectl.chmod(0o755)
    with pytest.raises(typer.Exit) as ended:
        with_context(ROOT, ["list"])
    assert ended.value.exit_code == 1
    assert told in capsys.readouterr().err


def test_its_usage_names_kubectl() -> None:
    program = "import sys; sys.argv[1:] = ['status', '--help']; from governed_operator.cli import plugin; plugin()"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=True)
    assert "Usage: kubectl governed status" in done.stdout
