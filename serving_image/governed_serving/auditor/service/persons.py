"""Who may decide for the model: a person with the operator's token, which none of the model's containers has.

The auditor knows no token but its own; it asks the archive, which gives them, whose the one at hand is.
"""

from collections.abc import Callable

from governed_api.roles import Role
from governed_serving.archive.client import ArchiveClient
from governed_serving.archive.errors import Refused
from governed_serving.auditor.service.errors import Forbidden, Unknown

__all__ = ["Persons"]

_PATIENCE = 5.0


class Persons:
    """``client``: the archive's, with a given token."""

    def __init__(self, client: Callable[[str], ArchiveClient], model: str) -> None:
        self._client, self._model = client, model

    @classmethod
    def at(cls, url: str, model: str) -> "Persons":
        """Those whom the archive at ``url`` knows."""
        return cls(lambda token: ArchiveClient(url, token, model, patience=_PATIENCE), model)

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
            found = f"that of {model} ({role})" if role else f"one of {model}'s without a role"
            raise Forbidden(f"only a person who answers for {self._model} may decide: expected {where}, found {found}")
