"""Request identifiers: UUIDv7 (RFC 9562, clause 5.7), sortable by time."""

import os
import time

_DIGITS = 19
"""Random hexadecimal digits of an identifier: 3, one that gives the variant's two bits, 3 and 12."""
_IDENTIFIERS = 256
_VARIANT = {digit: "89ab"[int(digit, 16) & 3] for digit in "0123456789abcdef"}


class Identifiers:
    """UUIDv7 texts: 48 bits of milliseconds, version 7, 12 random bits, variant 10, 62 random bits.

    Randomness is drawn from the kernel in blocks: one system call per 256 identifiers. Not thread-safe.
    """

    def __init__(self) -> None:
        self._pool = ""
        self._at = 0
        self._millisecond = -1
        self._time = ""

    def __call__(self) -> str:
        now = time.time_ns() // 1_000_000
        if now != self._millisecond:
            text = f"{now & 0xFFFFFFFFFFFF:012x}"
            self._millisecond, self._time = now, f"{text[:8]}-{text[8:]}-7"
        at = self._at
        if at >= len(self._pool):
            self._pool, at = os.urandom(_IDENTIFIERS * _DIGITS // 2).hex(), 0
        self._at = at + _DIGITS
        noise = self._pool[at : at + _DIGITS]
        return f"{self._time}{noise[:3]}-{_VARIANT[noise[3]]}{noise[4:7]}-{noise[7:]}"
