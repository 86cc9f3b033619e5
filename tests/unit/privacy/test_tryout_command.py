"""What tries masking on a file: which kind a file is of, what goes to which output, and what is refused."""

import io
import json
import runpy
import sys
from pathlib import Path

import pytest

from governed_serving.privacy import __main__ as command

RULES = {"custom": [{"name": "STAFF_NO", "pattern": r"E\d{6}"}]}
FIND = "0-7 STAFF_NO 0.6 custom STAFF_NO\n"


class Ran:
    """The command, run by ``code`` and what it printed."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err


class Command:
    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
        self.folder, self._patch, self._capfd = folder, monkeypatch, capfd

    def __call__(self, name: str, content: bytes | None, *words: str, **rules: object) -> Ran:
        path = self.folder / name
        if content is not None:
            path.write_bytes(content)
        (self.folder / "rules").write_text(json.dumps(RULES | rules))
        given = name if name == "-" else str(path)
        self._patch.setattr(sys, "argv", ["mask", "--rules", str(self.folder / "rules"), *words, "--", given])
        code = command.main()
        out, err = self._capfd.readouterr()
        return Ran(code, out, err.replace(str(path), name))


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Command:
    return Command(tmp_path, monkeypatch, capfd)


def test_the_masked_text_alone_is_printed(run: Command) -> None:
    done = run("a.txt", "E123456 工号\r\nE654321".encode())
    assert (done.code, done.out, done.err) == (0, "<STAFF_NO> 工号\r\n<STAFF_NO>", "")


def test_each_find_is_told_beside_it_where_that_is_asked_for(run: Command) -> None:
    done = run("a.txt", b"E123456", "--explain")
    assert (done.code, done.out, done.err) == (0, "<STAFF_NO>", FIND)
    done = run("a.csv", b"no\nE123456\n", "--explain")
    assert done.err == f"row 1, column no, {FIND}"


def test_as_json_it_is_one_document(run: Command) -> None:
    done = run("a.txt", "E123456 工".encode(), "--json")
    assert (done.code, done.err) == (0, "")
    find = {"entity": "STAFF_NO", "start": 0, "end": 7, "score": 0.6, "rule": "custom STAFF_NO"}
    assert json.loads(done.out) == {"masked": "<STAFF_NO> 工", "finds": [find]}
    assert "工" in done.out
    assert done.out.count("\n") == 1


def test_standard_input_is_read_and_stays_open(run: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "given").write_bytes(b"E123456\n")
    with io.TextIOWrapper((tmp_path / "given").open("rb")) as given:
        monkeypatch.setattr(sys, "stdin", given)
        done = run("-", None)
        assert (done.code, done.out) == (0, "<STAFF_NO>\n")
        given.buffer.seek(0)
        assert given.read() == "E123456\n"


@pytest.mark.parametrize(
    ("name", "words", "a_table"),
    [
        ("a", (), False),
        ("a.log", (), False),
        ("a.csv", (), True),
        ("a.CSV", (), True),
        ("a", ("--format", "csv"), True),
        ("a.csv", ("--format", "text"), False),
    ],
)
def test_a_files_kind_is_told_by_its_ending_unless_it_is_named(
    run: Command, name: str, words: tuple[str, ...], a_table: bool
) -> None:
    """A table's header is no cell, and isn't masked."""
    done = run(name, b"E123456\nE123456\n", *words)
    assert (done.code, done.out) == (0, "E123456\n<STAFF_NO>\n" if a_table else "<STAFF_NO>\n<STAFF_NO>\n")


@pytest.mark.parametrize(
    ("name", "content", "code"),
    [
        ("a.json", b'{"a": "E123456"}', 0),
        ("a.json", b'{"a": 1}\n{"a": 2}', 1),
        ("a.jsonl", b'{"a": 1}\n{"a": 2}', 0),
        ("a.ndjson", b'{"a": 1}\n{"a": 2}', 0),
        ("a.jsonl", b'{"a": 1}\nnone', 1),
        ("a.ndjson", b'{"a": 1}\nnone', 1),
        ("a.tsv", b'a\tb\n1\t"', 1),
        ("a.txt", b'{"a": 1}\nnone', 0),
    ],
)
def test_a_document_must_be_of_its_kind(run: Command, name: str, content: bytes, code: int) -> None:
    done = run(name, content)
    assert done.code == code
    if code:
        assert done.out == ""
        assert done.err.startswith(f"governed: {name}: expected ")


def test_a_file_has_a_greatest_size(run: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    assert command.MOST_BYTES == 64 * 1024 * 1024
    monkeypatch.setattr(command, "MOST_BYTES", 1 << 20)
    assert run("a.txt", b"\n" * (1 << 20)).code == 0
    done = run("a.txt", b"\n" * ((1 << 20) + 1))
    assert (done.code, done.out) == (1, "")
    assert done.err == "governed: a.txt: expected at most 1 MiB, found more; try a part of it\n"


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("a.txt", b"abc\xff", "expected UTF-8, found another byte at 3; convert it first"),
        ("none.txt", None, "No such file or directory"),
    ],
)
def test_what_can_not_be_read_is_told_in_one_line(run: Command, name: str, content: bytes | None, why: str) -> None:
    done = run(name, content)
    assert (done.code, done.out, done.err) == (1, "", f"governed: {name}: {why}\n")


def test_rules_that_are_none_are_told(run: Command) -> None:
    done = run("a.txt", b"x", action="Burn")
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith("governed: a.txt: ")
    assert "Burn" in done.err


@pytest.mark.parametrize("action", ["Hash", "Tokenize"])
def test_of_an_action_that_takes_a_key_the_entity_is_shown(run: Command, action: str) -> None:
    done = run("a.txt", b"E123456", action=action)
    assert (done.code, done.out) == (0, "<STAFF_NO>")
    assert done.err == f"action {action} takes the model's key, which isn't here: <ENTITY> stands for it\n"


def test_in_a_terminal_the_text_comes_before_what_was_found(
    run: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (tmp_path / "both").open("a") as out, (tmp_path / "both").open("a", buffering=1) as err:
        monkeypatch.setattr(sys, "stdout", out)
        monkeypatch.setattr(sys, "stderr", err)
        assert run("a.txt", b"E123456\n", "--explain").code == 0
    assert (tmp_path / "both").read_text() == f"<STAFF_NO>\n{FIND}"


def test_what_is_printed_is_utf_8_wherever_it_goes(
    run: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (tmp_path / "out").open("w", encoding="ascii", newline="\r\n") as out:
        monkeypatch.setattr(sys, "stdout", out)
        assert run("a.txt", "工\nE123456".encode()).code == 0
    assert (tmp_path / "out").read_bytes() == "工\n<STAFF_NO>".encode()


@pytest.mark.parametrize(("name", "code"), [("a.txt", 0), ("none.txt", 1)])
def test_as_a_program_it_ends_with_its_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, code: int
) -> None:
    (tmp_path / "a.txt").write_text("x")
    (tmp_path / "rules").write_text("{}")
    monkeypatch.setattr(sys, "argv", ["mask", "--rules", str(tmp_path / "rules"), str(tmp_path / name)])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(command.__file__, run_name="__main__")
    assert ended.value.code == code


def test_without_rules_nothing_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["mask", "a.txt"])
    with pytest.raises(SystemExit) as ended:
        command.main()
    assert ended.value.code == 2


@pytest.mark.parametrize("words", [("--format", "xml"), ("--unheard-of",)])
def test_a_wrong_argument_ends_it(run: Command, words: tuple[str, ...]) -> None:
    with pytest.raises(SystemExit) as ended:
        run("a.txt", b"x", *words)
    assert ended.value.code == 2
