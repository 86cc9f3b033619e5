"""The shape of the repository: what lies at the top, and that ``operator/`` shadows nothing."""

import operator
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
TOP = {
    "LICENSE",
    "README.md",
    "charts",
    "crds",
    "kind-config.yaml",
    "operator",
    "pyproject.toml",
    "serving_image",
    "tests",
}


def test_top_level_holds_exactly_what_the_design_names() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split(
        "\n"
    )
    top = {name.split("/")[0] for name in listed if name and not name.startswith(".")}
    assert top <= TOP, top - TOP


def test_operator_folder_does_not_shadow_the_standard_library() -> None:
    assert not (ROOT / "operator" / "__init__.py").exists()
    assert not (ROOT / "serving_image" / "__init__.py").exists()
    code = "import operator; print(operator.itemgetter.__module__, hasattr(operator, '__file__') and operator.__file__)"
    out = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert str(operator.__file__) in out
