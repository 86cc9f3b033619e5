"""Stand-ins for the rooms beside the trainer: real AES-GCM, an archive in memory, a scanner that knows phone
numbers."""

import hashlib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from governed_api.resolved import ResolvedModel
from governed_serving.trainer.job import Dependencies, Job
from governed_serving.trainer.progress import Narrator

COIN_KEY = bytes(range(32))
PHONE = re.compile(r"1[3-9]\d{9}")


class AesCipher:
    def __init__(self, key: bytes = b"k" * 32) -> None:
        self._aead = AESGCM(key)

    def seal(self, data: bytes, aad: bytes) -> bytes:
        nonce = hashlib.sha256(data + aad).digest()[:12]
        return nonce + self._aead.encrypt(nonce, data, aad)

    def open(self, sealed: bytes, aad: bytes) -> bytes:
        return self._aead.decrypt(sealed[:12], sealed[12:], aad)


class MemoryArchive:
    def __init__(self) -> None:
        self.refs: dict[str, dict[str, Any]] = {}
        self.blobs: dict[str, bytes] = {}
        self.entries: list[bytes] = []

    def ref(self, name: str) -> dict[str, Any] | None:
        return self.refs.get(name)

    def put_ref(self, name: str, value: dict[str, Any]) -> None:
        self.refs[name] = value

    def has_blob(self, address: str, *, ref: str) -> bool:
        return address in self.blobs and ref in self.refs

    def put_blob(self, sealed: bytes) -> str:
        address = hashlib.sha256(sealed).hexdigest()
        self.blobs[address] = sealed
        return address

    def append(self, stream: str, entries: list[bytes]) -> int:
        assert stream.startswith("trainer-")
        self.entries += entries
        return len(self.entries) - len(entries)


class MemoryReport:
    def __init__(self) -> None:
        self.parts: list[dict[str, Any]] = []

    def update(self, part: str, values: dict[str, Any]) -> bool:
        assert part == "trainer"
        self.parts.append(values)
        return True

    def flush(self) -> bool:
        return True


def scan_phones(texts: Iterable[str]) -> Mapping[str, int]:
    found = sum(len(PHONE.findall(text)) for text in texts)
    return {"PHONE_NUMBER": found} if found else {}


def mask_phones(texts: list[str]) -> list[str]:
    return [PHONE.sub("<PHONE_NUMBER>", text) for text in texts]


class Workplace:
    """A place to run Jobs in: one archive, one data volume."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.archive, self.report, self.cipher = MemoryArchive(), MemoryReport(), AesCipher()

    def job(self, resolved: ResolvedModel) -> Job:
        masker = mask_phones if resolved.spec.governance.privacy.masking else None
        rooms = Dependencies(
            self.archive, self.report, lambda: self.cipher, lambda: self.cipher, lambda: COIN_KEY, scan_phones, masker
        )
        return Job(resolved, rooms, source=self.directory, data=self.directory / "data", narrator=Narrator(interval=0))

    def artefact(self, made: dict[str, Any]) -> bytes:
        """The packed artefact behind a Job's result."""
        return self.cipher.open(self.archive.blobs[made["blob"]], made["digest"].encode())
