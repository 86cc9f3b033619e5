"""`governed run` over a disk that is full ends with a sentence."""

from pathlib import Path

import pytest

from governed_operator.cli import main
from governed_operator.local import run as local_run

SAMPLE = Path(__file__).parents[3] / "crds" / "samples" / "credit.yaml"
FULL = OSError(28, "No space left on device", "/somewhere/pids")


NAMED = "/somewhere/pids: No space left on device (work directory"


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (FULL, NAMED),
        (ExceptionGroup("of tasks", [ExceptionGroup("below", [FULL])]), NAMED),
        (OSError(28, "No space left on device"), "No space left on device (work directory"),  # of a write
    ],
    ids=["named", "of tasks", "of a write"],
)
def test_it_ends_with_a_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, error: Exception, told: str
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(local_run, "LocalRun", fails)
    monkeypatch.setattr("sys.argv", ["governed", "run", str(SAMPLE), "--workdir", str(tmp_path)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    said = "".join(capsys.readouterr())
    assert told in " ".join(said.split())
    assert "Errno" not in said
    assert "--workdir" in said
    assert "Traceback" not in said
