"""References: small JSON pointers per model, such as ``artefact-<digest>`` → {"blob": …}.

Files that are replaced atomically, sealed under the archive's keyring; their history is in the ledger.
"""

import re
import threading
from pathlib import Path

import msgspec

from governed_serving.archive.entrylog import Cipher
from governed_serving.archive.errors import Refused
from governed_serving.durable import replace_file

__all__ = ["References", "check_model", "check_name"]

_MODEL = re.compile(r"[a-z0-9]([-a-z0-9.]{0,61}[a-z0-9])?")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


def check_model(model: str) -> str:
    """``model`` when it is a DNS label; raises :class:`Refused` (400)."""
    if not _MODEL.fullmatch(model):
        raise Refused(400, f"a model's name must be lower-case letters, digits and '-', found {model[:80]!r}")
    return model


def check_name(name: str) -> str:
    """``name`` when it may name a file; raises :class:`Refused` (400)."""
    if not _NAME.fullmatch(name):
        raise Refused(400, f"a name must be letters, digits, '.', '_' and '-', at most 128, found {name[:80]!r}")
    return name


class References:
    """Sealed JSON pointers: ``{root}/{model}/{name}``."""

    MAX_BYTES = 16 << 10

    def __init__(self, root: Path, cipher: Cipher):
        self.root = root
        self._cipher = cipher
        self._numbers: dict[tuple[str, str, str], float] = {}
        self._lock = threading.Lock()

    def number(self, model: str, name: str, field: str) -> float:
        """A number that a pointer holds, kept for the next look; 0 where there is none."""
        key = (model, name, field)
        with self._lock:
            known = self._numbers.get(key)
            if known is None:
                data = self.get(model, name)
                value = msgspec.json.decode(data).get(field) if data else None
                known = self._numbers[key] = float(value) if isinstance(value, int | float) else 0.0
            return known

    def get(self, model: str, name: str) -> bytes | None:
        """JSON bytes, or None."""
        path = self._path(model, name)
        return self._cipher.open(path.read_bytes(), self._aad(model, name)) if path.exists() else None

    def put(self, model: str, name: str, data: bytes) -> None:
        """Store JSON bytes under a name."""
        with self._lock:
            replace_file(self._path(model, name), self._cipher.seal(data, self._aad(model, name)))
            self._numbers = {k: v for k, v in self._numbers.items() if k[:2] != (model, name)}

    def names(self, model: str) -> list[str]:
        """Names of all references of ``model``."""
        folder = self.root / check_model(model)
        return sorted(p.name for p in folder.iterdir() if not p.name.startswith(".")) if folder.is_dir() else []

    def _path(self, model: str, name: str) -> Path:
        return self.root / check_model(model) / check_name(name)

    def _aad(self, model: str, name: str) -> bytes:
        return f"governed reference 1\0{model}\0{name}".encode()
