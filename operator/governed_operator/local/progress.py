"""What a person sees while waiting: training progress and readiness, as bars on a terminal, as lines elsewhere."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from governed_api.json_types import Json

REFRESH = 0.2


@contextlib.asynccontextmanager
async def waiting(console: Console, title: str, state: Callable[[], tuple[float | None, str]]) -> AsyncIterator[None]:
    """Show ``title`` with share done and a message while the body runs. Only on a terminal."""
    if not console.is_terminal:
        yield
        return
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", style="bold", markup=False),
        BarColumn(),
        TextColumn("{task.fields[note]}", markup=False),
    )
    with Progress(*columns, TimeElapsedColumn(), console=console, transient=True) as progress:
        task = progress.add_task(title, total=None, note="")

        async def follow() -> None:
            while True:
                share, note = state()
                progress.update(task, total=None if share is None else 1.0, completed=share or 0.0, note=note[:60])
                await asyncio.sleep(REFRESH)

        following = asyncio.create_task(follow())
        try:
            yield
        finally:
            following.cancel()


def training_state(read: Callable[[], Mapping[str, Json]]) -> Callable[[], tuple[float | None, str]]:
    """Progress as the trainer reports it."""

    def state() -> tuple[float | None, str]:
        trainer = read().get("trainer")
        if not isinstance(trainer, dict):
            return None, ""
        share = trainer.get("progress")
        return share if isinstance(share, (int, float)) else None, str(trainer.get("message", ""))

    return state
