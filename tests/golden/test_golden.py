"""Golden pairs: rendering is pure, complete and stable."""

from pathlib import Path

import pytest
import yaml

from governed_api.resolved import ResolvedModel
from governed_operator.local.consumers import callers_in
from governed_operator.local.manifest_file import load_consumers, load_model
from governed_operator.local.rendering import render
from governed_operator.settings import Capabilities, OperatorSettings

HERE = Path(__file__).parent
CASES = sorted(p.parent.name for p in HERE.glob("*/input.yaml"))


def rendered(case: str) -> str:
    folder = HERE / case
    extra = folder / "settings.yaml"
    given = yaml.safe_load(extra.read_text()) if extra.is_file() else {}
    manifest = load_model(folder / "input.yaml")
    model = ResolvedModel.of(manifest)
    return render(
        model,
        given.get("artefact"),
        OperatorSettings.from_environment(given.get("environment", {})),
        Capabilities(**given.get("capabilities", {})),
        callers_in(model, manifest.labels, load_consumers(folder / "input.yaml")),
    )


@pytest.mark.parametrize("case", CASES)
def test_golden(case: str, request: pytest.FixtureRequest) -> None:
    output = HERE / case / "output.yaml"
    found = rendered(case)
    if request.config.getoption("--update-golden"):
        output.write_text(found)
    assert found == output.read_text(), (
        f"differs: pytest tests/golden --update-golden, then review the diff of {output}"
    )


def test_every_case_has_both_files() -> None:
    assert len(CASES) >= 5
    assert all((HERE / c / "output.yaml").is_file() for c in CASES)
