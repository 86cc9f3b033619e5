"""Samples, commands and the README: what is written about is there, and what is there is written about."""

import json
import re
import shlex
from pathlib import Path

import pytest
import typer.main
import yaml
from typer.testing import CliRunner

from governed_operator.cli import app

ROOT = Path(__file__).parents[3]
SAMPLES = ROOT / "crds" / "samples"
README = (ROOT / "README.md").read_text()
OTHER_PROSE = [SAMPLES / "README.md", *ROOT.glob("charts/*/README.md"), *ROOT.glob("tests/*/README.md")]
COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]


def missing_samples(text: str) -> set[str]:
    """Sample files that ``text`` names and that don't exist."""
    named = set(re.findall(r"crds/samples/([\w.-]+\.(?:yaml|json))", text))
    return {name for name in named if not (SAMPLES / name).is_file()}


def test_a_sample_that_is_written_about_exists() -> None:
    for text in (README, *(path.read_text() for path in OTHER_PROSE)):
        assert missing_samples(text) == set()


@pytest.mark.parametrize("sample", sorted(path.name for path in SAMPLES.glob("*.yaml")))
def test_a_sample_is_written_about_and_has_its_requests(sample: str) -> None:
    assert sample in README, f"{sample}: say in README.md what it teaches"
    assert sample.removesuffix(".yaml") in (SAMPLES / "README.md").read_text()
    models = [d for d in yaml.safe_load_all((SAMPLES / sample).read_text()) if d["kind"] == "GovernedModel"]
    assert models
    if "lifecycle" in models[0]["spec"] and "training" in models[0]["spec"]["lifecycle"]:  # runs here, with requests
        assert json.loads((SAMPLES / sample.replace(".yaml", ".requests.json")).read_text())


def kinds(rendered: str) -> set[str]:
    """Kinds of the rendered objects."""
    return {document["kind"] for document in yaml.safe_load_all(rendered) if document}


SHOWN_KINDS = {
    "admissions": {"Job"},
    "credit": {"Job"},
    "reviews": {"Job"},
    "thresholds": {"Job"},
    "autoscaling": {"HorizontalPodAutoscaler", "PodDisruptionBudget"},
    "quota": {"ResourceQuota"},
}
"""Kinds of objects by which a sample shows its capability."""

SHOWN_TEXT = {
    "consumers": [
        "name: tickets-callers",
        '"name":"mobile-app"',
        '"roles":["audit","label"]',
        '"claim":{"name":"groups","value":"support"}',
        "name: GOVERNED_CALLERS",
    ],
    "masking": ['"action":"Tokenize"', "llama.cpp:server"],
    "names": ['"names":{"budget":"2s"', '"allow":["鲁迅"]'],
    "retention": ["name: model-kek", '"payloads":"90d"', '"rotation":"30d"'],
    "explanations": ["name: explainer", '"sampling":0.05', "https://cases.example/explanations"],
    "canary": ['"action":"Rollback"', "name: auditor"],
    "imported": ["claimName: models", "0123456789abcdef"],
    "openai-runtime": ["name: GOVERNED_UPSTREAM_URL", '"pattern":', "llama.cpp:server"],
    "policies": ["claimName: models", "name: offers-callers", '"rotation":"30d"'],
    "v2-runtime": ["registry.example/forecasts:1.4.0", "name: GOVERNED_UPSTREAM_URL", "path: /v2/health/ready"],
}
"""What is in the rendered objects when the capability of a sample has an effect."""


@pytest.mark.parametrize("sample", sorted(path.name for path in SAMPLES.glob("*.yaml")))
def test_a_sample_is_valid_and_renders_what_it_shows(sample: str) -> None:
    runner = CliRunner()
    validated = runner.invoke(app, ["validate", str(SAMPLES / sample)])
    assert validated.exit_code == 0, validated.output
    rendered = runner.invoke(app, ["render", str(SAMPLES / sample)])
    assert rendered.exit_code == 0, rendered.output
    name = sample.removesuffix(".yaml")
    assert name in SHOWN_KINDS or name in SHOWN_TEXT, f"{sample}: say here what its objects show"
    assert SHOWN_KINDS.get(name, set()) <= kinds(rendered.output)
    assert [text for text in SHOWN_TEXT.get(name, []) if text not in rendered.output] == []


def wrong_commands(text: str) -> list[str]:
    """Lines that call ``governed`` with a command or an option that it hasn't."""
    wrong = []
    for line in text.splitlines():
        match = re.match(r"(?:\s{4,}|.*&& )(?:\S*/)?governed ([a-z]+)\b(?! charts)(.*)", line)
        if match is None or "helm" in line:
            continue
        options = {w for w in shlex.split(match[2].split("  #")[0], comments=False) if w.startswith("--")}
        command = COMMANDS.get(match[1])
        if below := getattr(command, "commands", None):  # a group of commands
            command = below.get(match[2].split()[0].split("|")[0])
        known = {opt for parameter in command.params for opt in parameter.opts} if command else set()
        wrong += [line.strip()] if command is None or options - known - {"--help"} else []
    return wrong


def test_commands_that_are_written_about_exist() -> None:
    assert wrong_commands(README) == []


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_is_written_about(name: str) -> None:
    prose = README + "".join(path.read_text() for path in ROOT.glob("[!.]*/**/README.md"))
    assert re.search(rf"\bgoverned {name}\b", prose), f"say in a README what `governed {name}` is for"


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("    governed conform FILE", True),
        ("    governed run crds/samples/admissions.yaml --twice", True),
        ("    governed run crds/samples/admissions.yaml --once", False),
        ("    pip install x && .venv/bin/governed proof FILE", True),
        ("    governed explain credit income=5    # one row", False),
    ],
)
def test_a_planted_command_is_noticed(line: str, fault: bool) -> None:
    assert bool(wrong_commands(line)) == fault


def test_a_planted_sample_is_noticed() -> None:
    assert missing_samples("see crds/samples/admissions.yaml and crds/samples/none.yaml") == {"none.yaml"}
