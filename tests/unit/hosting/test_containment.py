"""What others' code raises in a thread, or in a task beside the routes: told, waited for by nobody for ever, and no
process's end without a sentence."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from governed_serving.containment import Escaped, Threads, contained
from governed_serving.hosting.supervision import kept_running

KINDS = (SystemExit(0), KeyboardInterrupt(), GeneratorExit(), asyncio.CancelledError(), StopIteration(1),
         StopAsyncIteration(), type("Panic", (BaseException,), {})("a panic"))  # fmt: skip


def raising(error: BaseException) -> Callable[[], None]:
    def work() -> None:
        raise error

    return work


@pytest.mark.parametrize("error", KINDS, ids=lambda error: type(error).__name__)
async def test_what_a_thread_raises_is_an_exception(error: BaseException) -> None:
    loop = asyncio.get_running_loop()
    with Threads(1) as threads:
        with pytest.raises(Escaped, match=type(error).__name__) as found:
            await asyncio.wait_for(loop.run_in_executor(threads, raising(error)), 60)
        assert found.value.__cause__ is error
        assert await loop.run_in_executor(threads, lambda: 7) == 7


def test_exceptions_and_results_pass_as_they_are() -> None:
    assert contained(divmod, 7, 2) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        contained(divmod, 7, 0)


@pytest.mark.parametrize("error", KINDS, ids=lambda error: type(error).__name__)
async def test_a_task_is_kept_running_whatever_it_raises(error: BaseException) -> None:
    runs = list[int]()

    async def run() -> None:
        runs.append(1)
        if len(runs) < 3:
            raise error

    async def pause(_: float) -> None: ...

    await asyncio.wait_for(kept_running("sampling", run, pause), 60)
    assert len(runs) == 3


PROGRAM = """
import asyncio, sys
from governed_serving import hosting

def raises():
    raise {error}

async def threads():
    await asyncio.to_thread(raises)

async def itself():
    raises()

sys.exit(hosting.run("auditor", {work}))
"""


@pytest.mark.parametrize("work", ["threads", "itself"])
@pytest.mark.parametrize("error", ["SystemExit(0)", "StopIteration(3)", "type('Panic', (BaseException,), {})('boom')"])
def test_a_role_that_ends_by_it_says_so_and_has_code_1(error: str, work: str) -> None:
    program = PROGRAM.replace("{error}", error).replace("{work}", work)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1, done
    said: dict[str, Any] = json.loads((done.stdout + done.stderr).strip().splitlines()[-1])
    assert said["message"].startswith("not serving: it failed unexpectedly: ")
