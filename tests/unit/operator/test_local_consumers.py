"""ModelConsumers of a local run: what its processes read follows the files, and bad files take nothing away."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from builders import IMPORTED, resolved

from governed_api.callers import CALLERS_FILE, Callers, open_callers
from governed_operator.local import consumers as local
from governed_operator.local.consumers import LocalConsumers
from governed_operator.local.errors import LocalError
from governed_operator.local.workdir import Workdir
from support.consumer_manifests import OTHER, consumer

SECRET = "ab" * 32
REQUIRED = IMPORTED | {"access": {"authentication": "Required"}}


class Secrets:
    """The key of callers, as the run draws it."""

    def value(self, *_: str) -> bytes:
        return SECRET.encode()


class Run:
    """A run's consumers in ``folder``; what it told is in ``notes``."""

    def __init__(self, folder: Path, *files: Path, spec: Any = REQUIRED, **labels: str) -> None:
        self.workdir, self.notes = Workdir(folder / "run"), list[str]()
        self.workdir.memory = folder / "memory"
        self.workdir.consumers.mkdir(parents=True, exist_ok=True)
        self.path = self.workdir.memory / "m-predictor-0" / "callers" / CALLERS_FILE
        self.consumers = LocalConsumers(resolved(spec), labels, self.workdir, files, self.notes.append)

    def begin(self) -> None:
        self.consumers.begin(Secrets())  # type: ignore[arg-type]

    @property
    def document(self) -> Callers:
        return Callers.model_validate_json(open_callers(self.path.read_bytes(), SECRET))

    @property
    def names(self) -> list[str]:
        return [caller.name for caller in self.document.callers]

    async def comes(self, holds: Callable[[], bool]) -> None:
        """While the files are followed."""
        following = asyncio.create_task(self.consumers.follow())
        try:
            async with asyncio.timeout(60):
                while not holds():  # noqa: ASYNC110  a file has no event
                    await asyncio.sleep(0.01)
        finally:
            following.cancel()


def written(path: Path, *documents: dict[str, Any]) -> Path:
    path.write_text(yaml.safe_dump_all(documents))
    return path


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "POLL", 0.01)


def of_m(name: str, **spec: Any) -> dict[str, Any]:
    return consumer(name, **{"models": {"names": ["m"]}, **spec})


async def test_what_is_written_removed_and_put_back_is_in_force(tmp_path: Path) -> None:
    run = Run(tmp_path, written(tmp_path / "given.yaml", of_m("given"), of_m("other", models={"names": ["x"]})))
    run.begin()
    assert (run.names, run.notes) == (["given"], ["1 of 2 ModelConsumers may call m"])
    first = run.document.sequence
    path = written(run.workdir.consumers / "app.yaml", of_m("app", apiKeys=[OTHER]))
    await run.comes(lambda: run.names == ["given", "app"])
    path.unlink()
    await run.comes(lambda: run.names == ["given"])
    written(tmp_path / "given.yaml", of_m("given", roles=["audit"]))
    await run.comes(lambda: run.document.callers[0].roles == ["audit"])
    (tmp_path / "given.yaml").unlink()
    await run.comes(lambda: run.names == [])
    assert run.document.sequence == first + 4
    again = Run(tmp_path)
    again.begin()
    assert again.document.sequence > first + 4


async def test_a_file_that_is_not_valid_takes_nobody_out_and_is_told_once(tmp_path: Path) -> None:
    path = written(tmp_path / "given.yaml", of_m("given"))
    run = Run(tmp_path, path)
    run.begin()
    before = run.document
    path.write_text("kind: [")
    await run.comes(lambda: len(run.notes) == 2)
    assert "what it held before goes on" in run.notes[1]
    written(run.workdir.consumers / "bad.yaml", of_m("bad", roles=["admin"]))
    await run.comes(lambda: len(run.notes) == 3)
    assert 'Unsupported value: "admin"' in run.notes[2]
    assert run.document == before
    written(path, of_m("given", suspend=True))
    await run.comes(lambda: run.document.callers[0].suspended)
    assert len(run.notes) == 3


def test_at_the_start_a_file_that_is_not_valid_ends_it(tmp_path: Path) -> None:
    run = Run(tmp_path, written(tmp_path / "given.yaml", of_m("given", expires="2027-01-31")))
    with pytest.raises(LocalError, match=r"given\.yaml:\d+: spec\.expires in body|given\.yaml:\d+: spec\.expires"):
        run.begin()


def test_the_first_of_two_of_a_name_or_a_key_counts(tmp_path: Path) -> None:
    given = written(tmp_path / "given.yaml", of_m("app", roles=["audit"]))
    run = Run(tmp_path, given)
    written(run.workdir.consumers / "app.yaml", of_m("app", roles=["label"]))
    written(run.workdir.consumers / "thief.yaml", of_m("thief"))
    run.begin()
    assert [(c.name, c.roles) for c in run.document.callers] == [("app", ["audit"])]


def test_labels_select_and_a_model_that_asks_nobody_says_so(tmp_path: Path) -> None:
    chosen = of_m("app", models={"selector": {"matchLabels": {"team": "risk"}}})
    run = Run(tmp_path, written(tmp_path / "given.yaml", chosen), team="risk")
    run.begin()
    assert run.names == ["app"]
    assert run.path.stat().st_mode & 0o777 == 0o600
    off = Run(tmp_path / "off", tmp_path / "given.yaml", spec=IMPORTED)
    off.begin()
    assert not off.path.exists()
    assert "isn't Required: no key of 1 ModelConsumers is asked for" in off.notes[0]
