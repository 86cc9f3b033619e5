"""`governed run` in a work directory on a volume that is too small, at whatever file it ends: a sentence each time."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from local.conftest import SAMPLES, governed
from support.model_ports import free_offset


@pytest.fixture
def volume(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    place = tmp_path / "volume"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={request.param}", "tmpfs", str(place)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a volume takes root")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.mark.parametrize("volume", ["4k", "16k", "40k", "100k"], indirect=True)
def test_a_work_directory_that_fills_up_ends_the_run_with_a_sentence(volume: Path) -> None:
    words = ("run", SAMPLES / "credit.yaml", "--once", "--workdir", volume / "work")
    done = governed(*words, "--port-offset", str(free_offset()))
    said = done.stdout + done.stderr
    assert done.returncode == 1, said
    assert "Traceback" not in said
    assert "No space left on device" in said.rpartition("governed: ")[2]
    assert str(volume) in " ".join(said.split()).replace(" ", "")
