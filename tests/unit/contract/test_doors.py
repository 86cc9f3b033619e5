"""What a newcomer reads is true: the field reference, links, the room of each change, the head of each room's
README."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from governed_api import conditions, route_roles
from governed_api.callers import CallerRole
from governed_api.reasons import KubernetesReason, Reason

ROOT = Path(__file__).parents[3]
LISTED = subprocess.run(
    ["git", "ls-files", "-c", "-o", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
).stdout.split("\n")
PAGES = sorted({name for name in LISTED if name.endswith(".md") and (ROOT / name).is_file()})
CONTRIBUTING = (ROOT / ".github" / "CONTRIBUTING.md").read_text()
BELOW = {
    "api": "crds/governed_api",
    "operator": "operator/governed_operator",
    "serving": "serving_image/governed_serving",
    "crds": "crds",
    "tests": "tests",
}
WIDTH = 120
ONE_COMMAND = "    python3 -m venv .venv && "
"""The README's first command: pasted whole, so on one line."""
ROOMS = [
    f"{folder}/README.md"
    for folder in (
        "crds", "crds/governed_api", "crds/samples", "operator", "operator/governed", "operator/governed_operator",
        *(f"operator/governed_operator/{room}" for room in ("cli", "console", "desired", "kube", "local", "loop", "policy", "watch")),  # noqa: E501
        "serving_image", "serving_image/governed_serving",
        *(
            f"serving_image/governed_serving/{room.name}"
            for room in (ROOT / "serving_image" / "governed_serving").iterdir()
            if (room / "__init__.py").is_file()
        ),
        "charts", "charts/manifests", ".github/decisions",
    )
]  # fmt: skip


def test_the_field_reference_is_up_to_date() -> None:
    command = [sys.executable, str(ROOT / "crds" / "reference.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("word", [*conditions.TYPES, *Reason, *KubernetesReason])
def test_the_reference_has_every_condition_and_reason(word: str) -> None:
    assert re.search(rf"^\| `{word}` \| \S.* \|$", (ROOT / "crds" / "README.md").read_text(), re.MULTILINE)


def changes(text: str) -> list[list[str]]:
    """Rows of the table "Where a change happens"."""
    table = text.split("## Where a change happens")[1]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in re.findall(r"^\| a.*|^\| c.*", table, re.M)]


def unfound(row: list[str]) -> list[str]:
    """What a row of the table points at and is not there: a folder, a file, a name in it."""
    area, _, room = row[1].partition(" ")
    folder = ROOT / BELOW[area] / room.strip("`")
    if not folder.is_dir():
        return [f"{folder} is no folder"]
    pointers = [(folder, *pointer) for pointer in re.findall(r"`([\w/]+\.\w+)`: `(\w+)`", row[2])]
    assert pointers, row
    pointers += [(ROOT / BELOW[a], f, n) for a, f, n in re.findall(r"(\w+) `([\w/]+\.py)`: `?(\w*)`?", row[3])]
    missing = []
    for where, file, name in pointers:
        path = where / file
        if not path.is_file():
            missing.append(f"{path} is no file")
        elif name and "`" + name + "`" in "".join(row) and not re.search(rf"\b{name}\b", path.read_text()):
            missing.append(f"{path} has no {name}")
    return missing


@pytest.mark.parametrize("row", changes(CONTRIBUTING), ids=lambda row: row[0].replace(" ", "-"))
def test_each_planned_change_leads_to_a_room_that_is_there(row: list[str]) -> None:
    assert unfound(row) == []


def unset(sources: str) -> list[str]:
    """Conditions that nothing in ``sources`` names by their constant."""
    names = {value: name for name, value in vars(conditions).items() if name.isupper() and isinstance(value, str)}
    return [kind for kind in conditions.TYPES if not re.search(rf"\b{names.get(kind, kind)}\b", sources)]


def test_every_condition_is_set_somewhere() -> None:
    assert unset("".join(path.read_text() for path in (ROOT / BELOW["operator"]).rglob("*.py"))) == []


def test_a_planted_condition_that_nothing_sets_is_noticed() -> None:
    assert unset("READY DEGRADED STALLED")[:2] == [conditions.PREDICTOR_READY, conditions.EXPLAINER_READY]


def unopened(role: str) -> list[str]:
    """What a role of callers lacks: a route that it opens, a row of README's table."""
    tables = (route_roles.SERVER_ROLES, route_roles.EXPLAINER_ROLES, route_roles.AUDITOR_ROLES, route_roles.RPC_ROLES)
    opened = any(needed == role for table in tables for needed in table.values())
    told = re.search(rf"^\| [^|]*`{role}`[^|]* \| \S", (ROOT / "README.md").read_text(), re.MULTILINE)
    return [*([] if opened else ["a route"]), *([] if told else ["a row in README.md"])]


@pytest.mark.parametrize("role", CallerRole)
def test_every_role_opens_a_route_and_is_written_about(role: CallerRole) -> None:
    assert unopened(role) == []


def test_a_planted_role_is_noticed() -> None:
    assert unopened("planned") == ["a route", "a row in README.md"]


def test_ten_changes_are_planned() -> None:
    assert len(changes(CONTRIBUTING)) >= 10


@pytest.mark.parametrize(
    "row",
    [
        ["x", "serving `nowhere`", "`metrics.py`: `METRICS`", ""],
        ["x", "serving `fairness/metrics`", "`nothing.py`: `METRICS`", ""],
        ["x", "serving `fairness/metrics`", "`metrics.py`: `NOTHING`", ""],
        ["x", "serving `fairness/metrics`", "`metrics.py`: `METRICS`", "api `governance.py`: `Nothing`"],
    ],
)
def test_a_planted_pointer_to_nothing_is_noticed(row: list[str]) -> None:
    assert unfound(row)


def dead_links(text: str, folder: Path) -> list[str]:
    """Relative links to files that aren't there, or to headings that their page hasn't."""
    dead = []
    for target in re.findall(r"\]\((?!https?:)([^)\s]+)\)", re.sub(r"`[^`\n]*`", "", text)):
        name, _, heading = target.partition("#")
        path = folder / name if name else None
        if path is not None and not path.exists():
            dead.append(target)
        elif heading:
            page = text if path is None else path.read_text()
            anchors = {
                re.sub(r"[^\w -]", "", h).strip().lower().replace(" ", "-") for h in re.findall("^#+ (.*)", page, re.M)
            }
            dead += [target] if heading not in anchors else []
    return dead


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_somewhere(name: str) -> None:
    assert dead_links((ROOT / name).read_text(), (ROOT / name).parent) == []


def test_a_planted_dead_link_is_noticed() -> None:
    planted = "# One two\n[a](#one-two) [b](#three) [c](README.md) [d](NOTHING.md) [e](README.md#nothing)"
    assert dead_links(planted, ROOT) == ["#three", "NOTHING.md", "README.md#nothing"]


@pytest.mark.parametrize("name", ROOMS)
def test_a_room_says_what_lives_there_and_what_may_come_in(name: str) -> None:
    text = (ROOT / name).read_text().split("\n## ")[0]
    for needed in ("Lives here:", "May come in:", "May not:"):
        assert re.search(rf"^{needed} \S", text, re.MULTILINE), f"{name}: expected a line that begins with {needed}"


def long_lines(text: str) -> list[str]:
    """Lines of a page that are too long to read; rows of tables excepted where a link or a generator needs the room."""
    return [
        line
        for line in text.split("\n")
        if len(line) > WIDTH and not line.startswith(("|", ONE_COMMAND)) and "](http" not in line
    ]


@pytest.mark.parametrize("name", PAGES)
def test_prose_has_lines_of_ordinary_length(name: str) -> None:
    assert long_lines((ROOT / name).read_text()) == []


@pytest.mark.parametrize(("line", "count"), [("x" * 121, 1), ("x" * 120, 0), ("| " + "x" * 121, 0)])
def test_a_planted_long_line_is_noticed(line: str, count: int) -> None:
    assert len(long_lines(f"# a\n{line}\n")) == count
