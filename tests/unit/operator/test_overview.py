"""`governed list`, `status` and `logs`: models that were run here, and models of a cluster."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from governed_api.model import GovernedModel
from governed_api.resolved import ResolvedModel
from governed_operator.cli import app
from governed_operator.local.caretaker import RUN
from governed_operator.local.kept_logs import KeptLogs
from governed_operator.local.process_table import known

from .test_command_line import VALID

STATUS: dict[str, Any] = {
    "trainer": {
        "phase": "Succeeded",
        "gates": [
            {"name": "accuracy", "verdict": "pass"},
            {"name": "disparity", "verdict": "fail", "message": "sex=f: .2 over .02"},
        ],
    },
    "auditor": {"verdict": "Fail", "samples": 4800},
    "revisions": {
        "r1": {
            "server": {"local": {"ready": True, "requests": 5210, "errors": 3}},
            "auditor": {
                "local": {
                    "verdict": "Fail", "samples": 4800, "inForce": "Rollback", "summary": "sex f: SPD −.31 [−.4, −.2]",
                    "openContests": 2, "overdueContests": 1, "deadLetters": 4,
                }
            },
        }
    },
}  # fmt: skip


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def governed(*words: str) -> Result:
    return CliRunner().invoke(app, words, env={"COLUMNS": "200"})


def was_run(here: Path, name: str = "tiny", status: object = STATUS, *, offset: int | None = None) -> Path:
    """A work directory as a run leaves it; ``offset``: one that serves now, in this process."""
    folder = here / ".governed" / name
    (folder / "reports").mkdir(parents=True)
    manifest = VALID | {"metadata": {"name": name, "namespace": "team"}}
    (folder / "model.json").write_bytes(ResolvedModel.of(GovernedModel.model_validate(manifest)).dump())
    (folder / "reports" / f"{name}.json").write_text(json.dumps({"status": status}))
    archive = {"archive": {"size": 5300, "cosigned": 5290, "lagging": "witness w: no answer"}}
    (folder / "reports" / "governed-archive.json").write_text(json.dumps({"status": archive}))
    if offset is not None:
        (folder / "run.json").write_text(json.dumps({RUN: known(os.getpid())}))
        (folder / "serving.json").write_text(json.dumps({"portOffset": offset}))
    return folder


@pytest.mark.usefixtures("here")
def test_without_a_run_the_list_says_how_to_begin() -> None:
    done = governed("list")
    assert (done.exit_code, "governed run FILE" in done.stdout) == (0, True)
    assert json.loads(governed("list", "--json").stdout) == []
    missing = governed("status", "tiny")
    assert (missing.exit_code, "no run of a model is there" in missing.stderr) == (1, True)


def test_runs_are_listed_with_where_they_serve_and_their_verdicts(here: Path) -> None:
    was_run(here, "loans", offset=100)
    was_run(here, "cards", {})
    serving, stopped = json.loads(governed("list", "--json").stdout)[::-1]
    assert (serving["name"], serving["state"], serving["serves"]) == ("loans", "serving", True)
    assert (serving["url"], serving["verdict"], serving["predictions"]) == ("http://127.0.0.1:8180", "Fail", 4800)
    assert (serving["place"], serving["entries"]) == (".governed/loans", 5300)
    assert (stopped["state"], stopped["serves"], stopped["url"], stopped["verdict"]) == ("stopped", False, "", "–")
    table = governed("list").stdout.splitlines()
    assert table[0].split() == ["model", "directory", "state", "bias", "predictions", "entries", "address"]
    assert table[2].split() == [
        "loans",
        ".governed/loans",
        "serving",
        "Fail",
        "4,800",
        "5,300",
        "http://127.0.0.1:8180",
    ]


def test_the_status_says_what_waits_for_a_person(here: Path) -> None:
    was_run(here, offset=0)
    done = governed("status", "tiny")
    assert done.exit_code == 0
    for words in (
        "serving  .governed/tiny  http://127.0.0.1:8080",
        "1 of 2 gates passed",
        "gate disparity: sex=f: .2 over .02",
        "Fail  sex f: SPD −.31 [−.4, −.2]  over 4,800 predictions",
        "in force: Rollback; governed acknowledge tiny lifts it",
        "2 open, 1 overdue: governed contests tiny",
        "5,210 requests, 3 failed  revision r1, pod local",
        "5,300 entries, 5,290 cosigned",
        "witness w: no answer",
        "4 refused by the archive for ever",
    ):
        assert words in done.stdout, words
    told = json.loads(governed("status", "tiny", "--json").stdout)
    assert (told["summary"]["state"], told["report"]["trainer"]["phase"]) == ("serving", "Succeeded")


@pytest.mark.parametrize(
    ("note", "run", "state", "code"),
    [
        (None, False, "stopped", 3),
        (0, False, "stopped", 3),  # killed: its note is left
        (None, True, "starting", 3),
        (0, True, "serving", 0),
    ],
)
def test_what_a_killed_run_left_doesn_t_serve(here: Path, note: int | None, run: bool, state: str, code: int) -> None:
    folder = was_run(here)
    entry = known(os.getpid()) if run else known(os.getpid()) | {"started": "1"}
    (folder / "run.json").write_text(json.dumps({RUN: entry}))
    if note is not None:
        (folder / "serving.json").write_text(json.dumps({"portOffset": note}))
    done = governed("status", "tiny")
    assert (done.stdout.split()[1], done.exit_code) == (state, code)


def test_a_server_that_isn_t_ready_and_a_training_are_said(here: Path) -> None:
    refusing = {"revisions": {"r1": {"server": {"local": {"ready": False, "message": "digest of model.onnx differs"}}}}}
    was_run(here, "loans", refusing, offset=0)
    done = governed("status", "loans")
    assert (done.exit_code, done.stdout.split()[1], "digest of model.onnx differs" in done.stdout) == (
        3,
        "failed",
        True,
    )
    folder = was_run(here, "cards", {"trainer": {"phase": "Running", "message": "epoch 3 of 40"}})
    (folder / "run.json").write_text(json.dumps({RUN: known(os.getpid())}))
    assert "training  .governed/cards  epoch 3 of 40" in governed("status", "cards").stdout


@pytest.mark.parametrize("content", ["", "[", "[]", '{"portOffset": "x"}', "{}", "\x00"])
def test_a_damaged_note_is_no_place_where_it_serves(here: Path, content: str) -> None:
    (was_run(here, offset=0) / "serving.json").write_text(content)
    assert governed("status", "tiny").stdout.split()[1] == "starting"


@pytest.mark.parametrize("name", ["model.json", "reports/tiny.json"])
def test_a_damaged_folder_is_a_line_of_the_list_and_ends_none(here: Path, name: str) -> None:
    (was_run(here) / name).write_text('{"status": {"trainer": 7}}')
    was_run(here, "loans")
    done = governed("list")
    assert (done.exit_code, "loans" in done.stdout, "unknown" in done.stdout) == (0, True, True)
    assert "Traceback" not in done.stdout
    refused = governed("status", "tiny")
    assert (refused.exit_code, len(refused.stderr.splitlines())) == (1, 1)


def test_what_others_wrote_moves_no_cursor(here: Path) -> None:
    status = {
        "revisions": {"r1": {"server": {"local": {"ready": False, "message": "\x1b[2J\x1b]0;x\x07 [red]x[/red]"}}}}
    }
    was_run(here, status=status, offset=0)
    KeptLogs(here / ".governed/tiny/logs").line("server", "nothing: no folder yet")
    (here / ".governed/tiny/logs").mkdir()
    KeptLogs(here / ".governed/tiny/logs").line("server", '{"message": "\x1b[2J [red]x[/red]"}')
    for words in (("status", "tiny"), ("list",), ("logs", "tiny")):
        told = governed(*words).stdout
        assert "\x1b[2J" not in told
        assert "[red]x[/red]" in told


def test_a_line_break_in_what_others_wrote_makes_no_line_of_its_own(here: Path) -> None:
    row = "other  here  ready  pass  1  1  http://127.0.0.1:1"
    status = {"revisions": {"r1": {"server": {"local": {"ready": False, "message": f"x\n{row}\r\u2028{row}"}}}}}
    was_run(here, status=status, offset=0)
    for words in (("status", "tiny"), ("list",)):
        told = governed(*words).stdout
        assert row in told
        assert not any(line.lstrip().startswith("other") for line in told.splitlines())


def test_logs_are_those_of_the_containers(here: Path) -> None:
    logs = was_run(here) / "logs"
    assert governed("logs", "tiny").exit_code == 1
    logs.mkdir()
    for number in range(5):
        KeptLogs(logs).line("server", json.dumps({"level": "info", "message": f"answer {number}", "port": 1}))
    KeptLogs(logs).line("auditor", json.dumps({"level": "error", "message": "away"}))
    done = governed("logs", "tiny", "--tail", "2")
    assert [line.strip() for line in done.stdout.splitlines()] == [
        "server │ answer 3 port=1", "server │ answer 4 port=1", "auditor │ away",
    ]  # fmt: skip
    assert governed("logs", "tiny", "-c", "auditor").stdout.strip() == "auditor │ away"
    other = governed("logs", "tiny", "-c", "../../reports/tiny")
    assert (other.exit_code, "expected one of auditor, server" in other.stderr) == (1, True)


def test_commands_find_the_ports_of_the_run(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def client(url: str, *_: object, **__: object) -> None:
        asked.append(url)
        raise SystemExit(9)

    monkeypatch.setattr("governed_operator.local.client.ModelClient", client)
    words = [("infer", "tiny", "x=1"), ("explain", "tiny", "x=1"), ("contests", "tiny")]
    for word in words:
        governed(*word)
    was_run(here, offset=200)
    for word in words:
        governed(*word)
    governed("infer", "tiny", "x=1", "--url", "http://127.0.0.1:9")
    ports = [int(url.rpartition(":")[2]) for url in asked]
    assert ports == [8080, 8080, 8084, 8280, 8280, 8284, 9]


@pytest.mark.parametrize("command", [("infer", "m", "x=1"), ("explain", "m", "x=1"), ("contests", "m")])
def test_an_address_beside_a_cluster_is_refused(command: tuple[str, ...]) -> None:
    done = governed(*command, "--url", "http://127.0.0.1:9", "-n", "team")
    assert (done.exit_code, "--url http://127.0.0.1:9: expected it without --namespace" in done.stderr) == (1, True)


# in a cluster

KUBECTL = """#!/bin/sh
printf '%s\\n' "$*" >> "$STORED/log"
case "$*" in
  *"get governedmodels.governedmodels.io -o json"*) cat "$STORED/models" ;;
  *"get governedmodels"*) cat "$STORED/model" ;;
  *"get governancereports.governedmodels.io governed-archive"*) cat "$STORED/archive" ;;
  *"get governancereports"*) cat "$STORED/report" ;;
  *"logs "*) cat "$STORED/logs"; echo "$SAID" >&2; exit $CODE ;;
esac
"""
READY = {"type": "Ready", "status": "False", "reason": "BiasFailed", "message": "SPD −.31",
         "lastTransitionTime": "2026-11-30T00:00:00Z"}  # fmt: skip
MODEL = {
    "metadata": {"name": "loans", "namespace": "team"},
    "status": {
        "conditions": [READY], "url": "http://loans.team.svc", "bias": {"verdict": "Fail", "samples": 9},
        "ledger": {"size": 12, "rootHash": "", "checkpoint": ""},
    },
}  # fmt: skip


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    (tmp_path / "kubectl").write_text(KUBECTL)
    (tmp_path / "kubectl").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("STORED", str(tmp_path))

    def has(said: str = "", code: int = 0, **files: object) -> Path:
        monkeypatch.setenv("SAID", said)
        monkeypatch.setenv("CODE", str(code))
        for name, content in files.items():
            (tmp_path / name).write_text(content if isinstance(content, str) else json.dumps(content))
        return tmp_path / "log"

    return has


def test_models_of_a_cluster_are_listed(cluster: Callable[..., Path]) -> None:
    log = cluster(models={"items": [MODEL, {"metadata": {"name": "new", "namespace": "team"}}]})
    first, second = json.loads(governed("list", "-n", "team", "--json").stdout)
    assert (first["state"], first["serves"], first["verdict"], first["entries"]) == ("BiasFailed", False, "Fail", 12)
    assert (second["name"], second["state"], second["verdict"]) == ("new", "Pending", "–")
    assert "loans: SPD −.31" in governed("list", "-A").stdout
    assert "--all-namespaces" in log.read_text().splitlines()[-1]
    assert governed("list", "-A", "-n", "team").exit_code == 1


def test_the_status_in_a_cluster_has_the_conditions(cluster: Callable[..., Path]) -> None:
    cluster(model=MODEL, report={"status": STATUS}, archive={"status": {"archive": {"size": 12}}})
    done = governed("status", "loans", "-n", "team")
    assert done.exit_code == 3
    for words in ("BiasFailed  team  http://loans.team.svc", "Ready=False  BiasFailed  SPD −.31", "12 entries"):
        assert words in done.stdout, words
    cluster(model="")
    missing = governed("status", "loans", "-n", "team")
    assert (missing.exit_code, "no GovernedModel loans" in missing.stderr) == (1, True)


def test_logs_of_a_cluster_are_those_of_all_pods(cluster: Callable[..., Path]) -> None:
    line = '[pod/loans-predictor-1/server] {"level": "info", "message": "up", "port": 8080}\n'
    log = cluster(logs=f"{line}words\n", said="")
    done = governed("logs", "loans", "-n", "team", "--tail", "5")
    assert [part.strip() for part in done.stdout.splitlines()] == [
        "loans-predictor-1/server │ up port=8080", "kubectl │ words",
    ]  # fmt: skip
    asked = log.read_text().splitlines()[-1]
    assert "-l governedmodels.io/model=loans --all-containers --prefix --tail=5" in asked
    cluster(logs=f"[pod/loans-train-1/trainer] epoch 1\n{line}")
    only = governed("logs", "loans", "-n", "team", "-c", "server").stdout
    assert [part.strip() for part in only.splitlines()] == ["loans-predictor-1/server │ up port=8080"]
    cluster(logs="", said="error: pods is forbidden", code=1)
    refused = governed("logs", "loans", "-n", "team")
    assert (refused.exit_code, "kubectl logs: error: pods is forbidden" in refused.stderr) == (1, True)


@pytest.mark.parametrize("name", ["run.json", "serving.json", "model.json", "reports/credit.json"])
@pytest.mark.parametrize(
    "content", [b"", b"\xff\xfe", b"[" * 100_000, b"[]", b"7", b'{"run": 1}', b'{"run": {"pid": "1", "started": "x"}}']
)
def test_whatever_lies_in_a_run_s_folder_is_a_line(here: Path, name: str, content: bytes) -> None:
    was_run(here, "credit")
    (here / ".governed" / "credit" / name).write_bytes(content)
    for words in (["list"], ["list", "--json"], ["status", "credit"], ["logs", "credit"]):
        done = governed(*words)
        assert done.exception is None or isinstance(done.exception, SystemExit), (words, done.exception)
        assert done.exit_code in (0, 1, 3)


@pytest.mark.parametrize("closed", ["is_file", "read"])
def test_a_run_of_somebody_else_is_listed_as_unknown(here: Path, monkeypatch: pytest.MonkeyPatch, closed: str) -> None:
    was_run(here, "credit")
    if closed == "is_file":
        monkeypatch.setattr(Path, "is_file", raising(Path.is_file, "model.json"))
    monkeypatch.setattr(Path, "read_bytes", raising(Path.read_bytes, "model.json"))
    monkeypatch.setattr(Path, "read_text", raising(Path.read_text, "model.json"))
    done = governed("list", "--json")
    assert done.exit_code == 0, done.output
    (found,) = json.loads(done.stdout)
    assert found["state"] == "unknown"
    assert "ermission" in found["message"]


def raising(inner: Callable[..., Any], name: str) -> Callable[..., Any]:
    def read(path: Path, *args: Any, **more: Any) -> Any:
        if path.name == name:
            raise PermissionError(13, "Permission denied", str(path))
        return inner(path, *args, **more)

    return read


def test_a_folder_of_runs_that_is_closed_is_a_line(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    was_run(here, "credit")
    monkeypatch.setattr(Path, "iterdir", raising(Path.iterdir, ".governed"))
    done = governed("list")
    assert (done.exit_code, "can't be read: Permission denied" in done.stderr) == (1, True)


def test_what_goes_into_a_pipe_is_not_broken(here: Path) -> None:
    name = "a-" + "long-" * 20 + "name"
    was_run(here, name)
    listed = CliRunner().invoke(app, ["list"], env={"COLUMNS": None})
    assert [line.split()[:2] for line in listed.stdout.splitlines()[1:]] == [[name, f".governed/{name}"]]
