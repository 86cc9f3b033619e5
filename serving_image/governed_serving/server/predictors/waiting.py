"""Waiting for the runtime beside us to come up; readiness says meanwhile what is missing."""

import asyncio
from collections.abc import Callable

import httpx

from governed_serving.server.errors import UpstreamFailed
from governed_serving.server.predictors.upstream import UpstreamPredictor

__all__ = ["connected", "healthy"]

_EVERY = 0.5


async def healthy(url: str, path: str, why: Callable[[str], None]) -> None:
    """Until ``url`` + ``path`` answers 200; ``why`` is told what is missing."""
    async with httpx.AsyncClient(base_url=url, timeout=5.0, trust_env=False) as client:
        while True:
            try:
                status = (await client.get(path)).status_code
                if status == 200:
                    return
                why(f"the runtime answers {status} at {path}")
            except httpx.HTTPError as error:
                why(f"the runtime does not answer at {url}{path} ({type(error).__name__})")
            await asyncio.sleep(_EVERY)


async def connected(url: str, model: str, patience: float, why: Callable[[str], None]) -> UpstreamPredictor:
    """A predictor, as soon as the runtime tells its metadata. Raises ValueError when the model can't be governed."""
    while True:
        try:
            return await UpstreamPredictor.connect(url, model, patience=patience)
        except UpstreamFailed as error:
            why(str(error))
        await asyncio.sleep(_EVERY)
