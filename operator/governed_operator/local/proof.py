"""A request's place in the ledger: waits for its entry, then has the serving side verify it offline."""

import asyncio
import os
import sys
import time

import httpx

from governed_api import routes
from governed_api.json_types import Json
from governed_operator.local.errors import LocalError
from governed_operator.local.run import Running
from governed_operator.local.serving_side import module

PATIENCE = 120.0
"""Seconds; an auditor that shares a busy machine's cores ships late, not wrongly."""
POLL = 0.1


async def answered(client: httpx.AsyncClient, path: str, **params: str) -> httpx.Response | None:
    """None where no answer came: from a process that is busy, or is being started again. Whoever asks, asks again."""
    try:
        return await client.get(path, params=params)
    except httpx.TransportError:
        return None


async def wait_for_entry(running: Running, request: str) -> dict[str, Json]:
    """The ledger's entry of a prediction. Raises LocalError when it doesn't come in time."""
    token = running.token_file.read_text().strip()
    deadline = time.monotonic() + PATIENCE
    async with httpx.AsyncClient(
        base_url=running.archive_url, headers={"authorization": f"Bearer {token}"}, trust_env=False, timeout=5
    ) as client:
        while True:
            answer = await answered(client, routes.FIND, model=running.model.name, id=request)
            entries = answer.json() if answer is not None and answer.status_code == 200 else []
            if entries and await _signed(client, int(entries[0]["index"])):
                return dict(entries[0])
            if time.monotonic() > deadline:
                raise LocalError(
                    f"request {request} is not in the ledger after {PATIENCE:.0f} s: see the auditor's log"
                )
            await asyncio.sleep(POLL)


async def _signed(client: httpx.AsyncClient, index: int) -> bool:
    """Whether a checkpoint covers entry ``index``: the verifier reads files, and asking is what signs one and writes
    it."""
    answer = await answered(client, routes.CHECKPOINT)
    if answer is None or answer.status_code != 200:
        return False
    lines = answer.text.split("\n")
    return len(lines) > 1 and int(lines[1]) > index


async def verify(running: Running, request: str) -> tuple[bool, str]:
    """Whether the archive's folder verifies offline, that request included; and the verifier's own words."""
    program = module("governed_serving.archive", "verify", str(running.workdir.archive_folder), "--id", request)
    if program is None:
        raise LocalError("the serving side isn't installed: pip install 'governed-models[serving]'")
    done = await asyncio.create_subprocess_exec(
        sys.executable,
        *program,
        env=dict(os.environ) | running.workdir.archive_environment(),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await done.communicate()
    return done.returncode == 0, output.decode(errors="replace").strip()
