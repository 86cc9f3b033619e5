"""Request identifiers: UUIDv7 (RFC 9562, clause 5.7), sortable by time."""

import os
import time

_POOL_BYTES = 10 * 256


class Identifiers:
    """UUIDv7 texts. Randomness is drawn from the kernel in blocks: one system call per 256 identifiers. Not
    thread-safe."""

    def __init__(self) -> None:
        self._pool = b""
        self._at = 0

    def __call__(self) -> str:
        if self._at >= len(self._pool):
            self._pool, self._at = os.urandom(_POOL_BYTES), 0
        noise = int.from_bytes(self._pool[self._at : self._at + 10], "little")
        self._at += 10
        # 48 bits of milliseconds, version 7, 12 random bits, variant 10, 62 random bits
        value = (
            (time.time_ns() // 1_000_000 << 80) | (0x7 << 76) | ((noise & 0xFFF) << 64) | (0b10 << 62) | (noise >> 18)
        )
        text = f"{value:032x}"
        return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
