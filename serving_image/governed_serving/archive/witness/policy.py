"""Which witnesses are asked, and how many of them must have cosigned a checkpoint."""

import ipaddress
from dataclasses import dataclass

from governed_api import runtime
from governed_serving.archive.ledger.cosignature import Cosigner
from governed_serving.archive.ledger.note import NoteError
from governed_serving.environment import InvalidSettings, PodEnvironment
from governed_serving.outbound import is_internal, parsed

__all__ = ["MOST", "Witness", "WitnessPolicy"]

MOST = 16
"""Witnesses: signed notes need hold no more signatures for every verifier to accept them (C2SP signed-note)."""


@dataclass(frozen=True)
class Witness:
    """``url``: its submission prefix, without the slash at its end."""

    cosigner: Cosigner
    url: str


@dataclass(frozen=True)
class WitnessPolicy:
    """``quorum`` of ``witnesses`` make a checkpoint a witnessed one."""

    witnesses: tuple[Witness, ...] = ()
    quorum: int = 0

    @classmethod
    def from_environment(cls, env: PodEnvironment) -> "WitnessPolicy":
        """Raises InvalidSettings."""
        lines = [line for line in env.text(runtime.WITNESSES).splitlines() if line.strip()]
        witnesses = tuple(_witness(line) for line in lines)
        _check(witnesses)
        quorum = env.number(runtime.WITNESS_QUORUM, 0) or len(witnesses)
        if quorum > len(witnesses):
            raise InvalidSettings(
                f"{runtime.WITNESS_QUORUM}: expected at most {len(witnesses)}, the witnesses there are, found {quorum}"
            )
        return cls(witnesses, quorum)


def _check(witnesses: tuple[Witness, ...]) -> None:
    if len(witnesses) > MOST:
        raise InvalidSettings(f"{runtime.WITNESSES}: expected at most {MOST} witnesses, found {len(witnesses)}")
    key_ids: set[bytes] = set()
    for witness in witnesses:
        if witness.cosigner.public in key_ids:
            raise InvalidSettings(
                f"{runtime.WITNESSES}: {witness.cosigner.name} has the key of another witness: a quorum would count it "
                "twice; remove one"
            )
        key_ids.add(witness.cosigner.public)


def _witness(line: str) -> Witness:
    vkey, _, url = line.strip().partition(" ")
    try:
        cosigner = Cosigner.parse(vkey)
    except NoteError as error:
        raise InvalidSettings(
            f"{runtime.WITNESSES}: {error}, found {vkey[:80]!r}; expected VKEY URL on each line"
        ) from None
    try:
        place = parsed(url.strip())
    except ValueError as error:
        raise InvalidSettings(
            f"{runtime.WITNESSES}: URL of {cosigner.name}: expected {error}, found {url[:80]!r}"
        ) from None
    if place.scheme != "https" and not is_internal(place.host):
        raise InvalidSettings(
            f"{runtime.WITNESSES}: URL of {cosigner.name}: expected https, found {url[:80]!r}: plain http is for "
            "addresses and hosts of this cluster or machine"
        )
    if _is_link_local(place.host):
        raise InvalidSettings(
            f"{runtime.WITNESSES}: URL of {cosigner.name}: {place.host} is link-local, where clouds keep credentials; "
            "name another host"
        )
    return Witness(cosigner, url.strip().rstrip("/"))


def _is_link_local(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_link_local
    except ValueError:
        return False
