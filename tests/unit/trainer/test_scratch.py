"""Scratch space for libraries that write files is memory, or there is none."""

import tempfile
from pathlib import Path

import pytest

from governed_serving.trainer import scratch
from governed_serving.trainer.errors import TrainingFailed

MOUNTS = (
    "overlay / overlay rw 0 0\ntmpfs /tmp tmpfs rw 0 0\next4disk /tmp/data ext4 rw 0 0\nshm /dev/shm tmpfs rw 0 0\n"
)


@pytest.mark.parametrize(
    ("path", "want"),
    [
        ("/tmp", True),
        ("/tmp/x/y", True),
        ("/tmp/data/z", False),
        ("/var", False),
        ("/dev/shm", True),
        ("/tmpfoo", False),
    ],
)
def test_the_longest_mount_point_decides(path: str, want: bool) -> None:
    assert scratch.memory_backed(Path(path), MOUNTS) is want


def test_temporary_files_go_there_and_back() -> None:
    before = tempfile.tempdir
    with scratch.memory_scratch() as place:
        assert tempfile.gettempdir() == str(place)
        assert scratch.memory_backed(place.resolve(), Path("/proc/mounts").read_text())
    assert tempfile.tempdir == before


def test_without_memory_there_is_no_compression(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scratch, "_MEMORY", ())
    with pytest.raises(TrainingFailed, match="emptyDir of medium Memory"), scratch.memory_scratch():
        pass
