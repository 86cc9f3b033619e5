"""Who may ask a pod's inner ports where a foreign runtime shares the pod, and with it loopback and the pod's addresses.

Containers of ours show the port's token. Without it there are the probes and the metrics
(:data:`governed_api.routes.WITHOUT_POD_TOKEN`): whole for who asks from another machine or pod, which NetworkPolicies
judge; for a process of this pod without what they tell of data.
"""

import errno
import socket
from collections.abc import Callable

from starlette.responses import Response
from starlette.types import Scope

from governed_api import routes, runtime
from governed_serving.hosting.answers import STRANGER, problem
from governed_serving.pod_token import PodToken

__all__ = ["Guard", "is_own"]

_EXPECTED = (
    f"expected this port's token once, in the header {runtime.POD_TOKEN_HEADER}, since a foreign runtime shares the "
    f"pod; it is in {runtime.MOUNT_POD_TOKENS} of the containers of ours (README, For auditors: --pod-token-file)"
)


class Guard:
    """Asks for ``token``; ``refused`` is called once for each request that is turned away."""

    def __init__(self, token: PodToken, refused: Callable[[], None]) -> None:
        self._token, self._refused = token, refused

    @classmethod
    def of(cls, token: PodToken | None, refused: Callable[[], None]) -> "Guard | None":
        """None where the pod has no token: its ports are asked by ours alone."""
        return None if token is None else cls(token, refused)

    async def refusal(self, scope: Scope) -> Response | None:
        """401, or None for a request that may go on; ``scope`` then says whether it is a stranger's."""
        if self._token.shown_in(scope["headers"]):
            return None
        if scope["method"] in ("GET", "HEAD") and scope["path"] in routes.WITHOUT_POD_TOKEN:
            client = scope.get("client")
            scope[STRANGER] = client is None or is_own(client[0])
            return None
        self._refused()
        answer = problem(401, _EXPECTED)
        answer.headers["www-authenticate"] = runtime.POD_TOKEN_HEADER  # RFC 9110, 15.5.2
        return answer


def is_own(address: str) -> bool:
    """Whether ``address`` is one of this network namespace's own, loopback included: nobody else can be bound to. True
    where that can't be told."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((address, 0))
    except OSError as error:
        return error.errno != errno.EADDRNOTAVAIL
    return True
