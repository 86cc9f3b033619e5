"""What an image installs is what the distribution asks for: every direct requirement is in its lock, in a version that
fits."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[3]
LOCKS = {
    "operator/locks/operator.txt": ["operator"],
    "serving_image/locks/alibi.txt": ["alibi"],
    "serving_image/locks/captum.txt": ["captum"],
    "serving_image/locks/serving.txt": ["names", "objects", "serving"],
    "serving_image/locks/train-cpu.txt": ["names", "train"],
    "serving_image/locks/train-cuda.txt": ["names", "train"],
}
ALONE = {"captum"}  # of an environment that holds nothing of ours
CLI_ONLY = {
    "common-expression-language",
    "h11",
    "typer",
    "rich",
    "httpx",
    "pyyaml",
}  # of `governed`, which no image runs


def asked(extras: list[str]) -> list[Requirement]:
    """Direct requirements, extras of our own followed."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    ours = [] if ALONE & {*extras} else project["dependencies"]
    found = [Requirement(line) for line in ours if Requirement(line).name not in CLI_ONLY]
    for extra in extras:
        for line in project["optional-dependencies"][extra]:
            one = Requirement(line)
            found += asked(sorted(one.extras)) if one.name == project["name"] else [one]
    return found


@pytest.mark.parametrize("lock", LOCKS)
def test_lock_holds_what_the_extra_asks_for(lock: str) -> None:
    pins = dict(re.findall(r"(?m)^([A-Za-z0-9_.-]+)==([^ ;\\]+)", (ROOT / lock).read_text()))
    locked = {canonicalize_name(name): version for name, version in pins.items()}
    for one in asked(LOCKS[lock]):
        version = locked.get(canonicalize_name(one.name))
        assert version, f"{lock} lacks {one.name}"
        assert one.specifier.contains(version, prereleases=True), f"{lock} has {one.name} {version}, asked is {one}"
