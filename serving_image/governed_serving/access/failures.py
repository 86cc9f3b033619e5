"""Wrong credentials by the address that they came from: a few are answered, a flood is put off."""

import ipaddress
import math
from collections import OrderedDict

__all__ = ["Failures"]

MOST, WINDOW = 20, 60.0
"""So many of one address are answered in so many seconds."""
ADDRESSES = 4096
"""That are remembered; the one that failed longest ago is forgotten first."""


class Failures:
    """IPv6 addresses count by their network of 64 bits, which is one customer's."""

    def __init__(self) -> None:
        self._seen: OrderedDict[str, tuple[float, int]] = OrderedDict()

    def failed(self, address: str, now: float) -> int:
        """Count one; seconds until the next is answered, 0: it is."""
        peer = _network(address)
        since, count = self._seen.get(peer, (now, 0))
        if now - since >= WINDOW:
            since, count = now, 0
        self._seen[peer] = (since, count + 1)
        self._seen.move_to_end(peer)
        if len(self._seen) > ADDRESSES:
            self._seen.popitem(last=False)
        return max(1, math.ceil(WINDOW - (now - since))) if count >= MOST else 0


def _network(address: str) -> str:
    """Whose an address is. One of a family that isn't IP's stands for itself."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(found, ipaddress.IPv4Address):
        return address
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return str(ipaddress.IPv6Network((int(found), 64), strict=False))
