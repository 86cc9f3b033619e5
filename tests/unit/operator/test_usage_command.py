"""`governed usage`: which days, whose names, from where; the serving side does the counting."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from governed_api.callers import caller_pseudonym
from governed_operator.cli import app

KEY = "5e" * 32
Called = list[list[str]]


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> Called:
    """Words that the serving side is called with; the file of names is read while it is there."""
    calls: Called = []

    def run(words: Sequence[str], **_: Any) -> SimpleNamespace:
        names = words[words.index("--names") + 1]
        calls.append([*words, Path(names).read_text()])
        return SimpleNamespace(returncode=0)

    monkeypatch.setattr("governed_operator.cli.usage.subprocess.run", run)
    return calls


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., Result]:
    secret = tmp_path / "run" / "secrets" / "loans-callers"
    secret.mkdir(parents=True)
    (secret / "callers-key").write_text(KEY)
    (tmp_path / "run" / "volumes" / "governed-archive").mkdir(parents=True)

    def usage(*words: str) -> Result:
        return CliRunner().invoke(app, ["usage", "loans", "--workdir", str(tmp_path / "run"), *words])

    return usage


@pytest.mark.parametrize(
    ("words", "start", "end"),
    [
        ([], None, None),
        (["--period", "2026"], "2026-01-01", "2027-01-01"),
        (["--period", "2026-11"], "2026-11-01", "2026-12-01"),
        (["--period", "2026-12"], "2026-12-01", "2027-01-01"),
        (["--period", "2028-02-29"], "2028-02-29", "2028-03-01"),
        (["--from", "2026-11-30"], "2026-11-30", None),
        (["--to", "2026-11-30"], None, "2026-12-01"),
        (["--from", "2026-11-30", "--to", "2026-11-30"], "2026-11-30", "2026-12-01"),
    ],
)
def test_days_are_whole(run: Any, called: Called, words: list[str], start: str | None, end: str | None) -> None:
    assert run("--archive", "bundle.tar", *words).exit_code == 0, "an archive of a name needs no run"
    for option, day in (("--start", start), ("--end", end)):
        told = called[0][called[0].index(option) + 1] if option in called[0] else None
        assert told == (day and f"{day}T00:00:00.000Z")


@pytest.mark.parametrize(
    "words",
    [
        ["--period", "2026-13"],
        ["--period", "2026-02-30"],
        ["--period", "0000"],
        ["--period", "9999-12-31"],
        ["--period", "last month"],
        ["--period", "2026", "--from", "2026-01-01"],
        ["--from", "2026-11-31"],
        ["--from", "20261130"],
        ["--to", "-1"],
        ["--from", "2026-12-01", "--to", "2026-11-30"],
        ["--csv", "--json"],
    ],
    ids=" ".join,
)
def test_no_days_of_the_calendar_end_the_command(run: Any, called: Called, words: list[str]) -> None:
    done = run("--archive", "bundle.tar", *words)
    assert (done.exit_code, called, bool(done.stderr)) == (2, [], True)


def test_names_are_told_by_whoever_has_the_models_key(run: Any, called: Called, tmp_path: Path) -> None:
    made = CliRunner().invoke(
        app,
        ["consumer", "create", "app", "--models", "loans", "--cost-centre", "CC-7", "--workdir", str(tmp_path / "run")],
    )
    assert made.exit_code == 0, made.stderr
    assert run("--archive", "x", "--consumer", "app").exit_code == 0
    assert json.loads(called[0][-1]) == {caller_pseudonym(KEY, "app"): {"name": "app", "costCentre": "CC-7"}}
    assert "--caller=app" in called[0]
    (tmp_path / "run" / "secrets" / "loans-callers" / "callers-key").unlink()
    assert run("--archive", "x").exit_code == 0
    assert json.loads(called[1][-1]) == {}


def test_where_nothing_ran_nothing_is_counted(called: Called, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["usage", "loans", "--workdir", str(tmp_path / "elsewhere")])
    assert (done.exit_code, called) == (1, [])
    assert "no such archive" in done.stderr
