"""Who may decide for the model: a person with the operator's token, which none of the model's containers has.

The auditor knows no token but its own; it asks the archive, which gives them, whose the one at hand is.
"""

import asyncio
from collections.abc import Callable

from governed_api.callers import CallerRole
from governed_api.roles import Role
from governed_serving.access import refusals
from governed_serving.access.directory import Known
from governed_serving.access.refusals import CannotTell
from governed_serving.archive.client import ArchiveClient
from governed_serving.archive.errors import ArchiveError, Refused
from governed_serving.auditor.service.errors import Forbidden, Unknown

__all__ = ["Persons"]

_PATIENCE = 5.0
_ROLES = frozenset({CallerRole.LABEL, CallerRole.REVIEW, CallerRole.ACKNOWLEDGE, CallerRole.AUDIT, CallerRole.SCRAPE})
"""Of whoever answers for the model."""
AT_A_TIME = 4
"""Tokens that the archive is asked about; whoever comes meanwhile is put off."""


class Persons:
    """``client``: the archive's, with a given token."""

    def __init__(self, client: Callable[[str], ArchiveClient], model: str) -> None:
        self._client, self._model = client, model
        self._asking = 0

    @classmethod
    def at(cls, url: str, model: str) -> "Persons":
        """Those whom the archive at ``url`` knows."""
        return cls(lambda token: ArchiveClient(url, token, model, patience=_PATIENCE), model)

    async def known(self, text: str) -> Known | None:
        """Whose a credential is, where it has the form of an operator's token. Raises access's Unknown, CannotTell."""
        if not text.startswith(f"{self._model}/{Role.OPERATOR}/"):
            return None
        if self._asking >= AT_A_TIME:
            raise CannotTell
        self._asking += 1
        try:
            await asyncio.to_thread(self.check, f"Bearer {text}")
        except (Forbidden, Unknown):
            raise refusals.Unknown("unknown") from None
        except ArchiveError:
            raise CannotTell from None
        finally:
            self._asking -= 1
        return Known(self._model, _ROLES)

    def check(self, authorization: str) -> None:
        """Raises Unknown, Forbidden, and ArchiveError where nobody can tell."""
        scheme, _, token = authorization.partition(" ")
        where = "README, For auditors: governed decide --token-file"
        if scheme.lower() != "bearer" or not token.strip() or not token.isascii():
            raise Unknown(f"expected the operator's token (Authorization: Bearer …; {where}), found none")
        with self._client(token.strip()) as client:
            try:
                model, role = client.speaker()
            except Refused as error:
                if error.status == 403:
                    raise Forbidden(f"only a person who answers for {self._model} may decide: {error}") from None
                raise Unknown(f"expected the operator's token ({where}): {error}") from None
        if role != Role.OPERATOR or model != self._model:
            whose = f"that of {model} ({role})" if role else f"one of {model}'s without a role"
            raise Forbidden(f"only a person who answers for {self._model} may decide: expected {where}, found {whose}")
