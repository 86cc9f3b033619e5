"""Bundles of a ledger with one thing changed in them."""

import io
import random
import tarfile
from pathlib import Path

__all__ = ["members", "only_another_keys_line", "rebuilt", "tampered"]


def members(path: Path) -> dict[str, bytes]:
    with tarfile.open(path) as tar:
        return {name: file.read() for name in tar.getnames() if (file := tar.extractfile(name))}


def rebuilt(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def tampered(rng: random.Random, files: dict[str, bytes]) -> str:
    """Change one member; its name."""
    name = rng.choice(sorted(files))
    data = bytearray(files[name])
    kind = rng.choice(("flip", "flip", "flip", "cut", "delete", "line"))
    if kind == "delete":
        del files[name]
        return name
    if kind == "flip":
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    elif kind == "cut":
        del data[rng.randrange(len(data)) :]
    else:
        lines = bytes(data).splitlines(keepends=True)
        rng.shuffle(lines)
        data = bytearray(b"".join(lines[: rng.choice((len(lines), max(len(lines) - 1, 1)))]))
    files[name] = bytes(data)
    return name


def only_another_keys_line(pristine: dict[str, bytes], files: dict[str, bytes]) -> bool:
    """An older key's signature line, which a verifier with the newest one passes over (C2SP signed-note)."""
    differing = {n for n in pristine.keys() | files.keys() if pristine.get(n) != files.get(n)}
    before, after = (f["checkpoint"].splitlines() for f in (pristine, files))
    return differing == {"checkpoint"} and before[:5] == after[:5]
