"""`governed consumer`: a key is shown once, and what is kept lets nobody in."""

import hashlib
import json
import os
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner, Result

from governed_api.callers import split_api_key
from governed_api.validation import validate
from governed_operator.cli import app


def governed(*words: str | Path, **environment: str) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words], env=environment)


def document(path: Path) -> dict[str, Any]:
    (found,) = [d for d in yaml.safe_load_all(path.read_text()) if d["kind"] == "ModelConsumer"]
    assert validate(found) == []
    return found


def keys(path: Path) -> list[dict[str, str]]:
    found: list[dict[str, str]] = document(path)["spec"]["apiKeys"]
    return found


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """With a consumer ``app``."""
    path = tmp_path / "app.yaml"
    done = governed("consumer", "create", "app", "--models", "loans", "-f", path)
    assert done.exit_code == 0, done.stderr
    return path


def test_the_key_is_alone_on_standard_output_and_its_digest_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "new" / "app.yaml"
    done = governed(
        "consumer", "create", "app", "--models", "loans,chat", "--roles", "call, explain,label",
        "--selector", "team=risk", "--expires", "90d", "--limit", "requests=100/1m", "--limit", "tokens=5/366d",
        "--max-concurrent", "3", "--attribute", "sex=female", "--cost-centre", "CC-7", "-f", path,
    )  # fmt: skip
    assert done.exit_code == 0, done.stderr
    key = done.stdout.removesuffix("\n")
    name, secret = split_api_key(key) or ("", "")
    spec = document(path)["spec"]
    ends = datetime.fromisoformat(spec["apiKeys"][0].pop("expires"))
    assert abs(ends - datetime.now(UTC) - timedelta(days=90)) < timedelta(minutes=10)
    assert spec == {
        "apiKeys": [{"id": name, "sha256": hashlib.sha256(secret.encode()).hexdigest()}],
        "models": {"names": ["loans", "chat"], "selector": {"matchLabels": {"team": "risk"}}},
        "roles": ["call", "explain", "label"],
        "limits": [{"requests": 100, "window": "1m"}, {"tokens": 5, "window": "366d"}],
        "maxConcurrent": 3,
        "attributes": {"sex": "female"},
        "costCentre": "CC-7",
    }
    assert secret not in path.read_text() + done.stderr


def test_a_manifest_on_standard_output_leaves_the_key_to_a_file_of_ones_own(tmp_path: Path) -> None:
    made = ("consumer", "create", "app", "--models", "*", "-o", "yaml", "--key-file", tmp_path / "key")
    done = governed(*made)
    assert done.exit_code == 0, done.stderr
    name, _ = split_api_key((tmp_path / "key").read_text().strip()) or ("", "")
    assert yaml.safe_load(done.stdout)["spec"]["apiKeys"][0]["id"] == name
    assert stat.S_IMODE(os.stat(tmp_path / "key").st_mode) == 0o600
    again = governed(*made)
    assert (again.exit_code, "File exists" in again.stderr) == (1, True)


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["--roles", "admin"], 1, 'spec.roles[0]: Unsupported value: "admin"'),
        (["--roles", ","], 0, ""),  # as if nothing were said: call
        (["--models", "*,loans"], 1, "'*' stands for all models"),
        (["--expires", "tomorrow"], 1, "expected a time from now (90d, 12h)"),
        (["--expires", "2020-01-01T00:00:00Z"], 1, "found one that has passed"),
        (["--expires", "2030-01-01T00:00:00"], 1, "expected a time from now"),
        (["--expires", "99999999999999d"], 1, "expected a time from now"),
        (["--limit", "requests=many/1m"], 1, "--limit requests=many/1m: expected"),
        (["--limit", "requests=1"], 1, "--limit requests=1: expected"),
        (["--limit", "requests=0/1m"], 1, "should be greater than or equal to 1"),
        (["--attribute", "sex"], 1, "--attribute sex: expected NAME=VALUE"),
        (["--attribute", "sex=a\x1bb"], 1, "spec.attributes.sex in body should match"),
        (["-o", "json"], 2, "expected yaml"),
        (["-o", "yaml"], 2, "--key-file"),
        (["--workdir", "x"], 1, "exclude each other"),
        (["-n", "team"], 1, "exclude each other"),
    ],
)
def test_what_is_wrong_is_told_and_makes_nothing(tmp_path: Path, words: list[str], code: int, told: str) -> None:
    path = tmp_path / "app.yaml"
    place = [] if "-o" in words else ["-f", path]
    done = governed("consumer", "create", "app", *words, *place)
    assert (done.exit_code, told in done.stderr) == (code, True), done.stderr
    assert path.exists() == (code == 0)
    assert bool(done.stdout) == (code == 0)


@pytest.mark.parametrize("name", ["../x", "A", "-f", "a/b", "", "a" * 254])
def test_a_name_that_kubernetes_has_none_of_makes_no_file(tmp_path: Path, name: str) -> None:
    (tmp_path / "run").mkdir()
    done = governed("consumer", "create", "--workdir", tmp_path / "run", "--models", "loans", "--", name)
    assert done.exit_code == 1, done.output
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []


def test_a_name_is_made_once(file: Path) -> None:
    before = file.read_text()
    done = governed("consumer", "create", "app", "-f", file)
    assert (done.exit_code, "is there already" in done.stderr, done.stdout) == (1, True, "")
    assert file.read_text() == before


def test_rotation_leaves_the_old_key_for_a_time_and_twice_no_longer(file: Path) -> None:
    (first,) = keys(file)
    assert governed("consumer", "rotate", "app", "-f", file, "--overlap", "2h").exit_code == 0
    ends = keys(file)[0]["expires"]
    done = governed("consumer", "rotate", "app", "-f", file, "--expires", "30d")
    name, _ = split_api_key(done.stdout.strip()) or ("", "")
    old, second, third = keys(file)
    assert (old["id"], old["expires"]) == (first["id"], ends)
    assert "expires" in second
    assert (third["id"], "expires" in third) == (name, True)
    assert governed("consumer", "rotate", "app", "-f", file, "--overlap", "0s").exit_code == 0
    assert len(keys(file)) == 1


def test_rotation_forgets_what_has_expired_and_says_when_there_is_no_room(file: Path) -> None:
    found = document(file)
    past = {"id": "a" * 16, "sha256": "0" * 64, "expires": "2020-01-01T00:00:00Z"}
    found["spec"]["apiKeys"] = [past, *({"id": "b" * 15 + c, "sha256": "0" * 64} for c in "abcdefghijklmno")]
    file.write_text(yaml.safe_dump(found))
    assert governed("consumer", "rotate", "app", "-f", file).exit_code == 0
    assert (len(keys(file)), "a" * 16 in str(keys(file))) == (16, False)
    before = file.read_text()
    done = governed("consumer", "rotate", "app", "-f", file)
    assert (done.exit_code, "expected room for a key" in done.stderr, done.stdout) == (1, True, "")
    assert file.read_text() == before


def test_revoking_one_key_the_last_one_and_none(file: Path) -> None:
    governed("consumer", "rotate", "app", "-f", file)
    first, second = (key["id"] for key in keys(file))
    unknown = governed("consumer", "revoke", "app", "-f", file, "--key", "z" * 16)
    assert (unknown.exit_code, f"({first}, {second})" in unknown.stderr) == (1, True)
    whole = governed("consumer", "revoke", "app", "-f", file, "--key", f"gmk_{first}_secret")
    assert (whole.exit_code, "secret" in whole.stderr) == (1, False)
    assert governed("consumer", "revoke", "app", "-f", file, "--key", first).exit_code == 0
    assert [key["id"] for key in keys(file)] == [second]
    last = governed("consumer", "revoke", "app", "-f", file)
    assert (keys(file), f"revoked {second}; 0 left" in last.stdout) == ([], True)
    assert "revoked none" in governed("consumer", "revoke", "app", "-f", file).stdout
    assert governed("consumer", "rotate", "app", "-f", file).exit_code == 0
    assert len(keys(file)) == 1


def test_other_documents_of_a_file_stay(file: Path) -> None:
    file.write_text("kind: Namespace\nmetadata: {name: app}\n---\n" + file.read_text())
    assert governed("consumer", "rotate", "app", "-f", file).exit_code == 0
    first, second = yaml.safe_load_all(file.read_text())
    assert (first["kind"], second["kind"]) == ("Namespace", "ModelConsumer")


def test_the_local_run_that_fits_is_found_or_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert "local runs that fit: none" in governed("consumer", "list").stderr
    for model in ("loans", "chat"):
        (tmp_path / ".governed" / model).mkdir(parents=True)
    assert governed("consumer", "create", "app", "--models", "loans").exit_code == 0
    assert len(keys(tmp_path / ".governed/loans/consumers/app.yaml")) == 1
    assert governed("consumer", "rotate", "app").exit_code == 0
    both = governed("consumer", "create", "all", "--models", "*")
    assert (both.exit_code, "say where" in both.stderr) == (1, True)
    listed = governed("consumer", "list", "--workdir", ".governed/loans").stdout
    assert "in force" in listed
    assert keys(tmp_path / ".governed/loans/consumers/app.yaml")[0]["id"] in listed
    assert governed("consumer", "rotate", "none").exit_code == 1


def test_a_list_says_how_it_stands(tmp_path: Path) -> None:
    path = tmp_path / "all.yaml"
    for name in ("app", "gone", "idle", "late", "old"):
        governed("consumer", "create", name, "--models", "loans", "-f", path)
    documents = list(yaml.safe_load_all(path.read_text()))
    documents[1]["spec"]["apiKeys"] = []
    documents[2]["spec"]["suspend"] = True
    documents[3]["spec"]["expires"] = "2020-01-01T00:00:00Z"
    documents[4]["spec"]["apiKeys"][0]["expires"] = "2020-01-01T00:00:00Z"
    path.write_text(yaml.safe_dump_all(documents))
    lines = governed("consumer", "list", "-f", path).stdout.splitlines()
    states = {line.split()[0]: line for line in lines}
    for name, state in zip(
        ("app", "gone", "idle", "late", "old"),
        ("in force", "no key", "suspended", "expired", "keys expired"),
        strict=True,
    ):
        assert state in states[name]


# what commands show a model

KEY = "gmk_" + "a" * 16 + "_" + "B" * 43


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, str]]:
    """Headers with which a client was made."""
    seen: list[dict[str, str]] = []

    class Client:
        def __init__(self, *_: Any, headers: dict[str, str], **__: Any) -> None:
            seen.append(headers)

        def __enter__(self) -> Any:
            return self

        def __exit__(self, *_: object) -> None: ...

        def __getattr__(self, name: str) -> Any:
            return lambda *_, **__: [] if name == "contests" else {"id": "x", "outputs": [], "inputs": []}

    monkeypatch.setattr("governed_operator.local.client.ModelClient", Client)
    return seen


@pytest.mark.parametrize(
    "words",
    [
        ["infer", "m", "x=1", "--json"],
        ["explain", "m", "x=1", "--json"],
        ["acknowledge", "m", "--by", "me", "--reason", "r"],
        ["contest", "m", "id", "--by", "me", "--reason", "r"],
        ["contests", "m"],
    ],
)
def test_a_command_shows_the_key_of_a_file_or_of_the_environment(
    tmp_path: Path, asked: list[dict[str, str]], words: list[str]
) -> None:
    path = tmp_path / "key"
    path.write_text(f"  {KEY}\r\n")
    assert governed(*words, "--api-key-file", path).exit_code == 0
    assert governed(*words, GOVERNED_API_KEY=KEY).exit_code == 0
    assert governed(*words, GOVERNED_API_KEY="").exit_code == 0
    assert asked == [{"x-api-key": KEY}, {"x-api-key": KEY}, {}]


def test_a_token_is_shown_as_a_bearers(tmp_path: Path, asked: list[dict[str, str]]) -> None:
    path = tmp_path / "token"
    path.write_text("eyJh.eyJi.c2ln\n")
    assert governed("infer", "m", "x=1", "--json", "--api-key-file", path).exit_code == 0
    assert asked == [{"authorization": "Bearer eyJh.eyJi.c2ln"}]


@pytest.mark.parametrize(
    "content",
    ["", "\n", "a.b", "a.b.c.d", "a.b.c d", "a..c", "sk-abc", KEY + "x", KEY.upper(), f"{KEY}\n{KEY}", "\x00" * 64],
)
def test_what_is_no_key_is_told_and_not_shown(tmp_path: Path, asked: list[dict[str, str]], content: str) -> None:
    path = tmp_path / "key"
    path.write_text(content)
    done = governed("infer", "m", "x=1", "--api-key-file", path)
    assert (done.exit_code, "expected an API key" in done.stderr, asked) == (1, True, [])
    assert not content.strip() or content.strip() not in done.stderr
    assert governed("infer", "m", "x=1", "--api-key-file", tmp_path / "none").exit_code == 1
    path.write_bytes(b"\xff\xfe")
    assert "no text" in governed("infer", "m", "x=1", "--api-key-file", path).stderr


# in a cluster

KUBECTL = """#!/bin/sh
printf '%s\\n' "$*" >> "$LOG"
case "$*" in
  *" get modelconsumers"*) cat "$STORED" ;;
  *create*|*replace*) cat > "$STORED.new"; cat "$STORED.new" ;;
esac
"""


def test_in_a_cluster_the_version_that_was_read_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program, stored_at = tmp_path / "kubectl", tmp_path / "stored"
    program.write_text(KUBECTL)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("LOG", str(tmp_path / "log"))
    monkeypatch.setenv("STORED", str(stored_at))
    done = governed("consumer", "create", "app", "--models", "loans", "-n", "team")
    assert done.exit_code == 0, done.stderr
    made = json.loads((tmp_path / "stored.new").read_text())
    made["metadata"] |= {"resourceVersion": "7", "namespace": "team"}
    stored_at.write_text(json.dumps(made))
    assert governed("consumer", "rotate", "app", "-n", "team").exit_code == 0
    replaced = json.loads((tmp_path / "stored.new").read_text())
    assert (replaced["metadata"]["resourceVersion"], len(replaced["spec"]["apiKeys"])) == ("7", 2)
    log = (tmp_path / "log").read_text().splitlines()
    assert [line.split("--namespace team ")[1].split()[0] for line in log] == ["create", "get", "replace"]
    stored_at.write_text("")
    missing = governed("consumer", "rotate", "app", "-n", "team")
    assert (missing.exit_code, "no ModelConsumer app in namespace team" in missing.stderr) == (1, True)
