"""The mutation runner: what it plants, that it plants in a copy, whom it asks, and what it says of the outcome."""

import os
import subprocess
from pathlib import Path

import pytest

from mutants import traces
from mutants.__main__ import ROOT
from mutants.planted_code import CannotPlant, changed_functions
from mutants.planting import Mutant, mutants
from mutants.rooms import ROOMS, Room, chosen
from mutants.running import copy_tree, judge, unmount_below
from mutants.traces import BaselineFailed, trace


def changes(tmp_path: Path, source: str) -> set[str]:
    (tmp_path / "m.py").write_text(source)
    return {f"{m.before} → {m.after}" for m in mutants(tmp_path, "m.py")}


@pytest.mark.parametrize(
    ("source", "planted"),
    [
        ("a < b", {"a < b → pass", "a < b → (a <= b)"}),
        ("x = a <= b < c", {"a <= b < c → (a < b < c)", "a <= b < c → (a <= b <= c)"}),
        ("x = a in b", {"a in b → (a not in b)"}),
        ("x = a is None", {"a is None → (a is not None)"}),
        ("x = 3", {"3 → 4", "3 → (2)"}),
        ("x = True", {"True → False"}),
        ("x = .8", {".8 → 1.0"}),
        ("x = 'ä'", {"'ä' → 'äX'"}),
        ("x = a and b", {"a and b → (a or b)"}),
        ("x = not a", {"not a → (a)"}),
        ("x = -a", {"-a → (a)"}),
        ("x = a + b", {"a + b → (a - b)"}),
        ("x = a if b else c", {"a if b else c → (a if not b else c)"}),
        ("if a:\n    b()", {"a → (not a)", "b() → pass"}),
        ("def f():\n    return a", {"return a → return None"}),
        ("for a in b:\n    continue", {"continue → break"}),
        ("raise ValueError('words')", {"raise ValueError('words') → pass"}),
        ("n += k", {"n += k → pass"}),
        ("'''A docstring.'''\n__all__ = ['a']\nx: Literal['b', 1] = y", set()),
        ("T = Literal['b', 1]\nx = a['b']", {"'b' → 'bX'"}),
        ("log('info', 'the words', n=1)\nx = f'{a + 1} words'", set()),
        ("p.add_argument('-n', help='the words')\n", {"p.add_argument('-n', help='the words') → pass", "'-n' → '-nX'"}),
        ("for a, b in zip(c, d, strict=True):\n    e = 0", {"0 → 1", "0 → (-1)"}),
        ("x = Gauge('rows', 'The words.', ['a'])", {"'rows' → 'rowsX'", "'a' → 'aX'"}),
        ("@cache\ndef f(a: int | None) -> int | None: ...", set()),
    ],
)
def test_what_is_planted(tmp_path: Path, source: str, planted: set[str]) -> None:
    assert changes(tmp_path, source) == planted


def test_a_fault_changes_its_place_and_nothing_else(tmp_path: Path) -> None:
    source = "x = 'ßäö', a < b  # words\n\nif x == 'ö':\n    y = (1 +\n         2)\n"
    (tmp_path / "m.py").write_text(source)
    for mutant in mutants(tmp_path, "m.py"):
        text = mutant.planted(source.encode()).decode()
        compile(text, "m.py", "exec")
        assert text != source
        assert text.replace(mutant.after, "", 1).endswith(source[-1])
    texts = {m.planted(source.encode()).decode() for m in mutants(tmp_path, "m.py")}
    assert "x = 'ßäö', (a <= b)  # words\n\nif x == 'ö':\n    y = (1 +\n         2)\n" in texts


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A repository of one function, of which the tests hold one half."""
    root = tmp_path / "project"
    (root / "crds").mkdir(parents=True)
    (root / "crds" / "sized.py").write_text(
        "def size(n: int) -> str:\n"
        "    if n < 10:\n"
        "        return 'small'\n"
        "    while n > 99:\n"
        "        n -= 1\n"
        "    return 'large'\n"
        "\n\ndef never() -> int:\n    return 1\n"
        "\n\ndef counter(step: int = 4):\n"
        "    total = 0\n"
        "    def count() -> int:\n"
        "        nonlocal total\n"
        "        total += step\n"
        "        return total\n"
        "    return count\n"
        "\n\ndef doubled(n: int) -> int:\n    return n * 2\n"
        "\n\nSIZES = [doubled(n) for n in (7, 8)]\n"
    )
    (root / "test_sized.py").write_text(
        "import os\nimport subprocess\nimport sys\n\n"
        "from sized import SIZES, counter, size\n\n"
        "def test_small():\n    assert size(9) == 'small'\n\n"
        "def test_large():\n    assert size(10) == 'large'\n    assert size(101)\n\n"
        "def test_count():\n    count = counter()\n    assert [count(), count()] == [4, 8]\n\n"
        "def test_sizes():\n    assert SIZES == [14, 16]\n\n"
        "def test_elsewhere():\n"
        "    assert size(5)\n"
        "    code = 'import sys, sized; sys.exit(sized.never())'\n"
        "    assert subprocess.run([sys.executable, '-c', code], check=False).returncode < 3\n"
    )
    (root / "pyproject.toml").write_text("[tool.pytest.ini_options]\naddopts = []\n")
    subprocess.run(["git", "init", "-q"], cwd=root, check=True)
    return root


ROOM = Room("crds/sized.py", ("test_sized.py",))


def test_survivors_are_told_and_the_tree_is_left_alone(project: Path, tmp_path: Path) -> None:
    tree = copy_tree(project, tmp_path / "copy")
    before = {path: path.read_bytes() for path in project.rglob("*") if path.is_file()}
    wanted = {
        "n < 10 → (n <= 10)": True,
        "'small' → 'smallX'": True,
        "return 'large' → return None": True,
        "n -= 1 → pass": True,  # never ends: out of processor time
        "n > 99 → (n >= 99)": False,
        "return 1 → return None": False,
        "4 → 5": True,  # a default: only a new import shows it
        "total += step → pass": True,  # then it closes over nothing
        "return count → return None": True,
        "n * 2 → (n / 2)": True,  # what an import computed
        "7 → 8": True,
    }
    planned = [m for m in mutants(project, ROOM.sources) if f"{m.before} → {m.after}" in wanted]
    known = trace([tree], ROOM)
    told: list[Mutant] = []
    outcomes = judge([tree], planned, known, lambda o: told.append(o.mutant))
    assert {f"{o.mutant.before} → {o.mutant.after}": o.killed for o in outcomes} == wanted
    assert len(told) == len(wanted)
    never = next(o for o in outcomes if o.mutant.before == "return 1")
    assert never.tests == 0  # no test executes it: known without running one
    boundary = next(o for o in outcomes if o.mutant.before == "n > 99")
    assert boundary.tests == 1  # test_small and test_elsewhere never get there
    assert {path: path.read_bytes() for path in project.rglob("*") if path.is_file()} == before
    assert (tree / ROOM.sources).read_bytes() == (project / ROOM.sources).read_bytes()


@pytest.mark.parametrize("first", ["n < 10 → (n <= 10)", "0 → 1", "return count → return None"])
def test_a_fault_is_gone_when_the_next_is_planted(project: Path, tmp_path: Path, first: str) -> None:
    planned = {f"{m.before} → {m.after}": m for m in mutants(project, ROOM.sources)}
    tree = copy_tree(project, tmp_path / "copy")
    harmless = planned["n > 99 → (n >= 99)"]
    outcomes = judge([tree], [planned[first], harmless], trace([tree], ROOM), lambda _: None)
    assert [o.killed for o in outcomes if o.mutant is harmless] == [False]


def test_functions_in_use_change_and_imports_do_not() -> None:
    def names(sound: str, faulty: str) -> list[str]:
        return [before.co_qualname for before, _ in changed_functions(sound.encode(), faulty.encode(), "m.py")]

    assert names("def f():\n    return 1\n", "def f():\n    return 2\n") == ["f"]
    assert names("def f():\n    a(\n1)\ndef g(): 3\n", "def f():\n    pass\ndef g(): 3\n") == ["f"]  # g only moves
    assert names("class A:\n    def f(self): return {1}\n", "class A:\n    def f(self): return {2}\n") == ["A.f"]
    inner = "def f():\n    def g(): return {}\n    return g\n"
    assert names(inner.format(1), inner.format(2)) == ["f", "f.<locals>.g"]
    assert names("def f(): return 0.0\n", "def f(): return -0.0\n") == ["f"]
    closure = "def f(a):\n    def g():\n        {}\n    return g\n"
    for sound, faulty in [
        ("x = 1\n", "x = 2\n"),
        ("def f(a=1): ...\n", "def f(a=2): ...\n"),
        ("class A:\n    x = 1\n", "class A:\n    x = 2\n"),
        (closure.format("a()"), closure.format("pass")),
    ]:
        with pytest.raises(CannotPlant):
            names(sound, faulty)


def test_nothing_is_judged_on_tests_that_fail_already(project: Path, tmp_path: Path) -> None:
    with (project / "test_sized.py").open("a") as tests:
        tests.write("\ndef test_broken():\n    assert size(9) == 'large'\n")
    with pytest.raises(BaselineFailed, match="test_broken"):
        trace([copy_tree(project, tmp_path / "copy")], ROOM)


@pytest.fixture
def growing(tmp_path: Path) -> Path:
    """A repository of one function and three test files, each of which tells ``ran`` beside it that it ran; the last
    takes a builder from the one before."""
    root = tmp_path / "growing"
    (root / "crds").mkdir(parents=True)
    (root / "tests").mkdir()
    (root / "crds" / "tripled.py").write_text("def tripled(n: int) -> int:\n    return n * 3\n\n\nONE = tripled(1)\n")
    for name, first in (("a", ""), ("b", "def two(): return 2\n"), ("c", "from test_b import two\n")):
        (root / "tests" / f"test_{name}.py").write_text(
            f"import os\nfrom tripled import tripled\n{first}"
            f"def test_{name}():\n    assert tripled(2) == 6\n"
            f"    with open(os.environ['RAN'], 'a') as ran: ran.write('{name}')\n"
        )
    (root / "pyproject.toml").write_text("[tool.pytest.ini_options]\npythonpath = ['tests']\n")
    (root / "README.md").write_text("words\n")
    subprocess.run(["git", "init", "-q"], cwd=root, check=True)
    return root


def test_what_was_traced_is_traced_anew_when_it_has_changed(
    growing: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, room, ran = tmp_path / "kept", Room("crds/tripled.py", ("tests",)), tmp_path / "ran"
    kept.mkdir()
    monkeypatch.setenv("RAN", str(ran))
    copies = iter(range(100))

    def traced(trees: int = 1) -> tuple[str, dict[int, list[str]], list[str]]:
        ran.write_text("")
        made = trace([copy_tree(growing, tmp_path / f"copy-{next(copies)}") for _ in range(trees)], room, kept)
        lines = {line: sorted(who) for line, who in made.lines["crds/tripled.py"].items()}
        return "".join(sorted(ran.read_text())), lines, sorted(made.seconds)

    first = traced(trees=2)
    assert first[0] == "abc"
    assert first[1][2] == ["", "tests/test_a.py::test_a", "tests/test_b.py::test_b", "tests/test_c.py::test_c"]
    assert traced() == ("", *first[1:])
    for changed, again in (
        ("tests/test_a.py", "a"),
        ("tests/test_b.py", "bc"),
        ("crds/tripled.py", "abc"),
        ("pyproject.toml", "abc"),
        ("README.md", ""),
    ):
        with (growing / changed).open("a") as file:
            file.write("# more\n")
        assert traced() == (again, *first[1:]), changed
    (growing / "tests" / "conftest.py").write_text("# fixtures to come\n")
    assert traced()[0] == "abc"


def test_traces_are_remembered_within_bounds(growing: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept, tree = tmp_path / "kept", copy_tree(growing, tmp_path / "copy")
    kept.mkdir()
    monkeypatch.setenv("RAN", str(tmp_path / "ran"))
    monkeypatch.setattr(traces, "KEPT", 2)
    for name in ("a", "b"):
        trace([tree], Room("crds/tripled.py", (f"tests/test_{name}.py",)), kept)
    used = set(kept.iterdir())
    (kept / "old.json.gz").write_bytes(b"")
    os.utime(kept / "old.json.gz", (0, 0))
    trace([tree], Room("crds/tripled.py", ("tests/test_b.py",)), kept)
    assert set(kept.iterdir()) == used


def test_every_room_has_sources_and_tests() -> None:
    for name, room in ROOMS.items():
        assert room.files(ROOT), name
        for tests in room.tests:
            assert (ROOT / tests).exists(), tests
    assert chosen("privacy/finder.py", ROOT).files(ROOT) == ["serving_image/governed_serving/privacy/finder.py"]
    server = "serving_image/governed_serving/server"
    of_admission = [f"{server}/{name}.py" for name in ("admission", "quota", "window_storage")]
    assert chosen("admission", ROOT).files(ROOT) == of_admission, "a part of a folder"
    assert chosen("admission/quota.py", ROOT).files(ROOT) == [f"{server}/quota.py"]
    for part, asked in (("archive/ledger/note.py", "test_note.py"), ("archive/verify", "test_verification.py")):
        narrow, wide = (chosen(part, ROOT, all_tests=every).test_files(ROOT) for every in (False, True))
        assert f"tests/unit/archive/{asked}" in narrow
        assert set(narrow) < set(wide) == set(ROOMS["archive"].test_files(ROOT))
    for wrong in ("kitchen", "privacy/none.py"):
        with pytest.raises(ValueError, match="expected a"):
            chosen(wrong, ROOT)


def test_what_a_killed_test_left_mounted_is_unmounted(tmp_path: Path) -> None:
    outer, inner = tmp_path / "copy" / "outer", tmp_path / "copy" / "outer" / "inner"
    for place in (outer, inner):
        place.mkdir(parents=True)
        mount = ["mount", "-t", "tmpfs", "tmpfs", str(place)]
        if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
            pytest.skip("mounting a file system isn't allowed here")
    unmount_below(tmp_path / "copy")
    assert not outer.is_mount()
    assert list(outer.iterdir()) == []
