"""Keys that issuers publish: fetched now and then, whoever shows which token; the last good ones serve for a day.

Servers never fetch: they read what is in the document of callers. So a flood of tokens with unknown keys asks nobody, a
pod needs no way out to an issuer, and all replicas know the same keys.
"""

import asyncio
import json
import logging
import re
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import NamedTuple

from governed_api.callers import TokenIssuer
from governed_api.jitter import JITTER
from governed_api.strict_json import strict_json
from governed_api.token_identity import PUBLISHED, IssuerSource
from governed_api.token_keys import fetched_keys
from governed_operator.watch.https import NotFetched, fetched

__all__ = ["DISCOVERY", "Found", "IssuerKeys", "kept", "published"]

logger = logging.getLogger("governed_operator.watch.issuer_keys")

EVERY = 60.0
"""Seconds between fetches of an issuer's keys; a new key counts so soon, and one that is published no more ends so."""
KEPT = 86_400.0
"""Seconds after a fetch from which its keys count no longer."""
FIRST_PAUSE = 2.0
"""Seconds after a fetch that failed; doubled each time, up to EVERY."""
TICK = 0.5
AT_A_TIME = 4
"""Fetches."""
MOST = 1000
"""Places whose keys are fetched; further ones have none, and that is said."""
DISCOVERY = "/.well-known/openid-configuration"


class Found(NamedTuple):
    """What was fetched: a token's iss, and a JWK set."""

    issuer: str
    jwks: str


Fetch = Callable[[IssuerSource], Awaitable[Found]]
"""Raises NotFetched."""


@dataclass
class _State:
    found: Found | None = None
    until: float = 0.0
    """Told to servers: said anew when half of it is gone, so that documents stay as they are for hours."""
    failures: int = 0
    why: str = "its keys are being fetched"
    due: float = 0.0
    busy: bool = field(default=False)


class IssuerKeys:
    """Of all ``wanted`` sources that publish their keys. ``changed`` hears of those whose keys are others now.
    ``clock``: seconds since the epoch."""

    def __init__(
        self,
        fetch: Fetch,
        wanted: Callable[[], Iterable[IssuerSource]],
        changed: Callable[[IssuerSource], None],
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._fetch, self._wanted, self._changed, self._clock = fetch, wanted, changed, clock
        self._states: dict[IssuerSource, _State] = {}

    def issuer(self, source: IssuerSource, earlier: TokenIssuer | None = None) -> TokenIssuer:
        """With the keys that count now. ``earlier``: as an earlier process said, until this one knows better."""
        if not source.published:
            return source.given()
        state = self._states.get(source.place)
        if state is not None and state.found is not None:
            until = datetime.fromtimestamp(state.until, UTC)
            found = {"issuer": state.found.issuer, "jwks": state.found.jwks, "until": until}
            return source.given().model_copy(update=found)
        return earlier if earlier is not None else source.given()

    def fault(self, source: IssuerSource) -> str:
        """Why it has no keys; "" where it has some."""
        if not source.published:
            return ""
        state = self._states.get(source.place)
        if state is None:
            return _State.why
        return "" if state.found is not None and self._clock() < state.until else state.why

    async def run(self) -> None:
        """Never returns."""
        limit = asyncio.Semaphore(AT_A_TIME)
        async with asyncio.TaskGroup() as group:
            while True:
                for source in self._due():
                    group.create_task(self._look(source, limit))
                await asyncio.sleep(TICK)

    def _due(self) -> list[IssuerSource]:
        wanted = {source.place: None for source in self._wanted() if source.published}
        for source in [source for source in self._states if source not in wanted]:
            del self._states[source]
        due, now = [], self._clock()
        for source in wanted:
            if source not in self._states and len(self._states) >= MOST:
                continue
            state = self._states.setdefault(source, _State())
            if not state.busy and now >= state.due:
                state.busy = True
                due.append(source)
        return due

    async def _look(self, source: IssuerSource, limit: asyncio.Semaphore) -> None:
        state = self._states[source]
        try:
            async with limit:
                found = await self._fetch(source)
        except NotFetched as error:
            self._failed(source, state, str(error))
        except Exception as error:  # whatever it is: whoever follows consumers beside must go on
            self._failed(source, state, f"{type(error).__name__}: {error}")
        else:
            self._took(source, state, found)
        finally:  # cancelled too: who runs this anew asks again
            state.busy = False

    def _failed(self, source: IssuerSource, state: _State, why: str) -> None:
        pause = min(FIRST_PAUSE * 2**state.failures, EVERY)
        state.failures, state.due = min(state.failures + 1, 16), self._clock() + pause
        if state.why != why:
            state.why = why
            logger.warning("keys of %s can't be had: %s", source.named, why)
            if state.found is None:
                self._changed(source)

    def _took(self, source: IssuerSource, state: _State, found: Found) -> None:
        now = self._clock()
        if state.failures and state.found is not None:
            logger.info("keys of %s are there again", source.named)
        state.failures, state.why = 0, ""
        state.due = now + EVERY * JITTER.uniform(0.9, 1.1)
        if found != state.found or state.until - now < KEPT / 2:
            state.found, state.until = found, now + KEPT
            self._changed(source)


async def published(source: IssuerSource) -> Found:
    """What an issuer publishes, at ``jwksURL`` or where its discovery document says. Raises NotFetched."""
    return await asyncio.to_thread(_published, source)


def _published(source: IssuerSource) -> Found:
    url = source.jwks_url or _discovered(source)
    return Found(source.issuer, kept(fetched(url, source.certificate_authority)))


def _discovered(source: IssuerSource) -> str:
    try:
        document = strict_json(fetched(source.issuer.rstrip("/") + DISCOVERY, source.certificate_authority))
    except ValueError as error:
        raise NotFetched(f"{DISCOVERY}: expected JSON, found {error}") from None
    named = document.get("issuer") if isinstance(document, dict) else None
    url = document.get("jwks_uri") if isinstance(document, dict) else None
    if named != source.issuer:  # OpenID Connect Discovery 1.0, 4.3
        raise NotFetched(f"{DISCOVERY}: expected issuer {source.issuer}, found another")
    if not isinstance(url, str) or not re.fullmatch(PUBLISHED, url) or len(url) > 2048:
        raise NotFetched(f"{DISCOVERY}: expected jwks_uri with https, found none")
    return url


def kept(data: bytes | str) -> str:
    """Of a JWK set what tokens are verified with. Raises NotFetched."""
    try:
        keys = fetched_keys(data)
    except ValueError as error:
        raise NotFetched(str(error)) from None
    return json.dumps({"keys": [key.jwk() for key in keys]}, sort_keys=True, separators=(",", ":"))
