"""Who speaks: a bearer token says which model it is of, in which role, and proves both (:mod:`governed_api.roles`), so
the archive keeps no list of them.

A token of the older form says neither: HMAC-SHA256(root, "NAMESPACE/NAME") in hex, one for all containers of a model
(name ``*``: the reader's). It is taken for a week after the first start of an archive that knows roles, so that pods
which are still there from before lose nothing while they are replaced.
"""

import hashlib
import hmac
import math
import time
from collections.abc import Callable, Iterable
from datetime import datetime
from pathlib import Path

from governed_api.names import ARCHIVE
from governed_api.roles import Role, bearer_token
from governed_serving.archive.errors import TOKEN, Refused
from governed_serving.archive.reach import Speaker
from governed_serving.archive.store.named import is_model
from governed_serving.durable import replace_file
from governed_serving.records import timestamp

__all__ = ["OLDER_SECONDS", "READER", "ROLES_SINCE", "Tokens", "model_token", "older_until"]

READER = "*"
"""Name of the reader in the older form."""
OLDER_SECONDS = 7 * 86_400.0
"""How long tokens of the older form are taken after the first start of an archive that knows roles."""

ROLES_SINCE = "roles-since"
"""File of an archive's folder: when it first started and knew roles."""

_REMEMBERED = 10_000
_LONGEST = 512
_FROM_SECRET = "take it from the model's Secret MODEL-tokens"
_NOT_OURS = f"the token is not one that this archive's root gives: {_FROM_SECRET}"


def model_token(root: bytes, namespace: str, name: str) -> str:
    """The token of a model in the older form, in hex."""
    return hmac.new(root, f"{namespace}/{name}".encode(), hashlib.sha256).hexdigest()


def older_until(root: Path, now: float) -> float:
    """Until when the archive below ``root`` takes tokens of the older form (seconds since the epoch); written down at
    the first start. A file that says nothing, or the future, gives no more time. Raises OSError."""
    path = root / ROLES_SINCE
    try:
        since = datetime.fromisoformat(path.read_text().strip()).timestamp()
    except FileNotFoundError:
        replace_file(path, timestamp(now).encode())
        since = now
    except ValueError:
        return 0.0
    return min(since, now) + OLDER_SECONDS


class Tokens:
    """Checks bearer tokens of one namespace against ``root`` (secret bytes). ``older_until``: seconds since the epoch,
    until which those of the older form are taken."""

    def __init__(
        self,
        root: bytes,
        namespace: str,
        *,
        older_until: float = math.inf,
        clock: Callable[[], float] = time.time,
    ):
        if len(root) < 16:
            raise ValueError(f"the archive's root secret must have at least 16 bytes, found {len(root)}")
        self._root = root
        self._namespace = namespace
        self._known: dict[str, str] = {}
        self.older_until, self._clock = older_until, clock
        self.older_taken = 0
        """Requests that came with a token of the older form, since the start."""

    def speaker(self, authorization: str, named: Iterable[str] = ()) -> Speaker:
        """Whose token it is; one of the older form may be that of any model ``named``. Raises :class:`Refused`
        (401)."""
        scheme, _, token = authorization.partition(" ")
        token = token.strip()
        if scheme.lower() != "bearer" or not token:
            raise _unknown("an Authorization header 'Bearer TOKEN' is needed")
        if len(token) > _LONGEST or not token.isascii():
            raise _unknown(_NOT_OURS)
        return self._of_role(token) if "/" in token else self._of_older_form(token, named)

    def _of_role(self, token: str) -> Speaker:
        model, _, rest = token.partition("/")
        name, _, _ = rest.partition("/")
        role = Role(name) if name in tuple(Role) else None
        if role is not None and is_model(model) and (model == ARCHIVE) == (role is Role.READER):
            expected = bearer_token(self._root, self._namespace, model, role)
            if hmac.compare_digest(expected.encode(), token.encode()):
                return Speaker(model, role)
        raise _unknown(_NOT_OURS)

    def _of_older_form(self, token: str, named: Iterable[str]) -> Speaker:
        """Names that are none of a model's are passed over: what proves MODEL/ROLE would prove them as well."""
        for name in (self._known.get(token), *named, READER):
            if not name or (name != READER and not is_model(name)):
                continue
            if hmac.compare_digest(model_token(self._root, self._namespace, name).encode(), token.encode()):
                if self._clock() > self.older_until:
                    until = f"which was taken until {timestamp(self.older_until)}"
                    raise _unknown(f"the token is of the older form, without a role, {until}: {_FROM_SECRET}")
                if len(self._known) < _REMEMBERED:
                    self._known[token] = name
                self.older_taken += 1
                return Speaker(ARCHIVE, Role.READER) if name == READER else Speaker(name, None)
        raise _unknown("the token is not that of the model named here; name it in the header x-governed-model")


def _unknown(message: str) -> Refused:
    return Refused(401, message, reason=TOKEN)
