"""What `governed run --once` waits for on a machine that is busy: late is not wrong."""

from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from rich.console import Console

from governed_operator.local import proof, showcase
from governed_operator.local.errors import LocalError

Answer = httpx.Response | Exception
Script = Callable[..., None]
LATE = httpx.ReadTimeout("late")
REFUSED = httpx.ConnectError("refused")
AWAY = httpx.Response(503)


@pytest.fixture
def running(tmp_path: Path) -> Any:
    (tmp_path / "token").write_text("t")
    urls = dict.fromkeys(("url", "auditor_url", "archive_url"), "http://127.0.0.1:1")
    return SimpleNamespace(
        model=SimpleNamespace(name="loans"), token_file=tmp_path / "token", auditor_headers={}, **urls
    )


@pytest.fixture
def answering(monkeypatch: pytest.MonkeyPatch) -> Script:
    """Answers requests one after the other, the last answer for ever; ``looks`` at the clock use up the patience."""

    def answer(*answers: Answer, looks: int = 3) -> None:
        left: Iterator[Answer] = iter(answers)

        def handler(_: httpx.Request) -> httpx.Response:
            found = next(left, answers[-1])
            if isinstance(found, Exception):
                raise found
            return found

        client = partial(httpx.AsyncClient, transport=httpx.MockTransport(handler))
        for module, patience in ((proof, proof.PATIENCE), (showcase, showcase.VERDICT_PATIENCE)):
            clock = count(0, patience / looks)
            monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda c=clock: next(c)))
            monkeypatch.setattr(
                module, "httpx", SimpleNamespace(AsyncClient=client, TransportError=httpx.TransportError)
            )

    return answer


def verdict(samples: int) -> httpx.Response:
    return httpx.Response(200, json={"verdict": "Pass", "samples": samples})


async def test_an_auditor_may_take_as_long_as_it_gets_on(running: Any, answering: Script) -> None:
    answering(*map(verdict, range(30)), AWAY, LATE, verdict(30))
    assert (await showcase._verdict(running, 30)).samples == 30


@pytest.mark.parametrize("stuck", [verdict(7), LATE, REFUSED, AWAY], ids=["no further", "late", "refused", "away"])
async def test_an_auditor_that_gets_no_further_is_named(running: Any, answering: Script, stuck: Answer) -> None:
    answering(verdict(7), stuck)
    with pytest.raises(LocalError, match=r"folded 7 of 30 rows, and none in the last 60 s: see its log"):
        await showcase._verdict(running, 30)


async def test_an_entry_is_waited_for_through_answers_that_do_not_come(running: Any, answering: Script) -> None:
    entry, unsigned, signed = httpx.Response(200, json=[{"index": 4}]), "log\n4\nroot\n", "log\n5\nroot\n"
    late = [LATE, AWAY, entry, REFUSED, entry, AWAY, entry, httpx.Response(200, text=unsigned)]
    answering(*late, entry, httpx.Response(200, text=signed), looks=20)
    assert await proof.wait_for_entry(running, "r") == {"index": 4}


@pytest.mark.parametrize("never", [LATE, REFUSED, AWAY, httpx.Response(200, json=[])], ids=str)
async def test_an_entry_that_never_comes_is_said(running: Any, answering: Script, never: Answer) -> None:
    answering(never)
    with pytest.raises(LocalError, match="request r is not in the ledger after 120 s: see the auditor's log"):
        await proof.wait_for_entry(running, "r")


async def test_a_server_that_does_not_tell_its_metrics_is_one_line(running: Any, answering: Script) -> None:
    running.model.spec = SimpleNamespace(governance=SimpleNamespace(privacy=SimpleNamespace(masking=object())))
    answering(LATE)
    with pytest.raises(LocalError, match=r"http://127.0.0.1:1/metrics: late"):
        await showcase._masking(Console(), running)
