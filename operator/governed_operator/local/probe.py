"""Asks HTTP probes, as a kubelet would."""

import httpx

from governed_operator.local.translate import Probe


class Prober:
    """One client for all probes; a probe fails on any error, time-out or status ≥ 400."""

    def __init__(self) -> None:
        self._client = httpx.AsyncClient(trust_env=False, limits=httpx.Limits(max_keepalive_connections=0))

    async def ask(self, probe: Probe) -> str | None:
        """None when it passes, otherwise why not."""
        try:
            answer = await self._client.get(probe.url, timeout=probe.timeout)
        except httpx.TimeoutException:
            return f"no answer from {probe.url} within {probe.timeout:.0f} s"
        except httpx.HTTPError as error:
            return f"{probe.url}: {str(error) or type(error).__name__}"
        if answer.status_code < 400:
            return None
        return f"{probe.url} answered {answer.status_code}: {answer.text[:300]}"

    async def close(self) -> None:
        await self._client.aclose()
