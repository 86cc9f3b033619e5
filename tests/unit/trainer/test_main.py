"""The command: exit codes, one line on stderr, phase Failed in the report."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from governed_api import runtime
from governed_serving.archive.errors import Unreachable
from governed_serving.report import ReportWriter
from governed_serving.trainer.__main__ import attempt, main
from governed_serving.trainer.errors import InvalidTraining, TrainingFailed
from governed_serving.trainer.progress import Narrator
from unit.trainer.manifests import admissions, inline, resolved


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What a Job's container is given; the archive's port is closed."""
    (tmp_path / "kek").write_bytes(b"k" * 32)
    (tmp_path / "kek").chmod(0o600)
    (tmp_path / "token").write_text("t")
    for name, value in {
        runtime.SPEC: tmp_path / "model.json",
        runtime.KEK_FILE: tmp_path / "kek",
        runtime.ARCHIVE_URL: "http://127.0.0.1:1",
        runtime.ARCHIVE_TOKEN_FILE: tmp_path / "token",
        runtime.REPORT: f"file://{tmp_path}/report.json",
        runtime.DATA_DIR: tmp_path / "data",
        runtime.SOURCE_DIR: tmp_path,
    }.items():
        monkeypatch.setenv(name, str(value))
    return tmp_path


def write(directory: Path, training: dict[str, Any]) -> None:
    (directory / "model.json").write_bytes(resolved(training).dump())


def trainer_part(directory: Path) -> dict[str, Any]:
    part: dict[str, Any] = json.loads((directory / "report.json").read_text())["status"]["trainer"]
    return part


def last_line(captured: str) -> dict[str, Any]:
    line: dict[str, Any] = json.loads(captured.strip().splitlines()[-1])
    return line


def test_a_missing_file_is_exit_code_2_and_phase_failed(environment: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = inline("", {"x": "numeric"})
    plan["data"] = {**plan["data"], "uri": "file:none.csv"}
    del plan["data"]["inline"]
    write(environment, plan)
    assert main() == 2
    line = last_line(capsys.readouterr().err)
    assert line["level"] == "error"
    assert line["message"].startswith("spec.lifecycle.training.data.uri: expected a readable file, found No such file")
    assert trainer_part(environment)["phase"] == "Failed"
    assert trainer_part(environment)["message"] == line["message"]
    assert trainer_part(environment)["trainingHash"]


@pytest.mark.parametrize("content", [b"{", b'{"name": "m", "namespace": "n", "spec": {"lifecycle": {"train": 1}}}'])
def test_a_bad_spec_is_exit_code_2(environment: Path, capsys: pytest.CaptureFixture[str], content: bytes) -> None:
    (environment / "model.json").write_bytes(content)
    assert main() == 2
    assert last_line(capsys.readouterr().err)["level"] == "error"


def test_a_missing_variable_is_named(
    environment: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write(environment, admissions())
    monkeypatch.delenv(runtime.REPORT)
    assert main() == 2
    assert runtime.REPORT in last_line(capsys.readouterr().err)["message"]


def test_a_key_that_others_can_read_is_refused(environment: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(environment, admissions())
    (environment / "kek").chmod(0o644)
    assert main() == 1
    assert "0644" in last_line(capsys.readouterr().err)["message"]


def raising(error: Exception) -> Callable[[], object]:
    def run() -> object:
        raise error

    return run


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InvalidTraining("spec.x", "expected a,\nfound b"), 2),
        (TrainingFailed("below the least accuracy"), 65),
        (Unreachable("the archive doesn't answer"), 1),
        (OSError(28, "No space left on device", "/data/checkpoint"), 1),
    ],
)
def test_exit_codes(tmp_path: Path, capsys: pytest.CaptureFixture[str], error: Exception, code: int) -> None:
    report = ReportWriter(f"file://{tmp_path}/report.json")
    assert attempt(raising(error), resolved(admissions()), report, Narrator()) == code
    assert "\n" not in last_line(capsys.readouterr().err)["message"]
    assert trainer_part(tmp_path)["phase"] == "Failed"


@pytest.mark.parametrize("name", [runtime.KEK_FILE, runtime.ARCHIVE_URL, runtime.ARCHIVE_TOKEN_FILE, runtime.DATA_DIR])
def test_a_variable_that_the_job_needs_is_named_in_the_report(
    environment: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    write(environment, admissions())
    monkeypatch.delenv(name)
    assert main() == 2
    assert last_line(capsys.readouterr().err)["message"].startswith(f"{name}: expected ")
    assert trainer_part(environment)["phase"] == "Failed"
