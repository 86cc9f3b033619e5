"""Files that run code when they are read: refused by name and by content, since nobody should have them loaded.

Pickle: a protocol byte (PEP 307, PEP 3154); torch.save and joblib wrap it in a ZIP archive or compress it; NumPy's
object arrays hold it behind a header of their own.
"""

import struct
import zipfile
from pathlib import Path

from governed_api.regular_files import open_regular
from governed_serving.sources.errors import Refused

__all__ = ["is_pickle_name", "refuse_pickle"]

ENDINGS = (".pkl", ".pickle", ".joblib", ".dill", ".cloudpickle", ".pt", ".pth", ".ckpt")
_HEAD = 1024
_TAIL = (1 << 16) + 22 + 76
"""Of a ZIP archive: its longest comment, and the records behind its directory."""
MOST_DIRECTORY = 32 << 20
"""Bytes of a ZIP archive's directory, of some 46 for each file."""
REMEDY = "export it to ONNX or safetensors, or name the files that are needed in storage.files"


def is_pickle_name(name: str) -> bool:
    """By its ending, before a byte of it is fetched."""
    return name.lower().endswith(ENDINGS)


def refuse_pickle(path: Path, name: str) -> None:
    """Raises Refused where reading the file as what it is would run code; OSError."""
    if is_pickle_name(name) or _holds_pickle(path):
        raise Refused(f"{name}: expected no pickle, whose reading runs code, found one; {REMEDY}")


def _holds_pickle(path: Path) -> bool:
    with open_regular(path, follow=True) as file:
        head = file.read(_HEAD)
    if len(head) > 2 and head[0] == 0x80 and 2 <= head[1] <= 5 and _stops(path):
        return True
    if head.startswith(b"\x93NUMPY"):
        return b"'|O'" in head
    if not head.startswith(b"PK\x03\x04"):
        return False
    if _directory_bytes(path) > MOST_DIRECTORY:
        raise Refused(f"{path.name}: its ZIP directory is longer than {MOST_DIRECTORY} bytes; it isn't read")
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            arrays = [n for n in names if n.endswith(".npy")]
            return any(n.endswith(("/data.pkl", ".pkl")) for n in names) or any(_objects(archive, n) for n in arrays)
    except (zipfile.BadZipFile, RuntimeError, NotImplementedError, EOFError, ValueError):
        return False  # no reader opens it either


def _directory_bytes(path: Path) -> int:
    """What the end of a ZIP archive says of its directory, which is read into memory as a whole (APPNOTE 4.3.14 to
    4.3.16); 0 where there is none."""
    with open_regular(path, follow=True) as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - _TAIL))
        tail = file.read(_TAIL)
    end = tail.rfind(b"PK\x05\x06")
    if end < 0 or len(tail) < end + 22:
        return 0
    (claimed,) = struct.unpack_from("<I", tail, end + 12)
    large = tail.rfind(b"PK\x06\x06", 0, end)
    if large >= 0 and len(tail) >= large + 48:
        claimed = max(claimed if claimed < 0xFFFFFFFF else 0, *struct.unpack_from("<Q", tail, large + 40))
    return int(claimed)


def _objects(archive: zipfile.ZipFile, name: str) -> bool:
    with archive.open(name) as member:
        return b"'|O'" in member.read(_HEAD)


def _stops(path: Path) -> bool:
    """A pickle's last opcode; other formats may begin with the same byte."""
    with open_regular(path, follow=True) as file:
        file.seek(-1, 2)
        return file.read(1) == b"."
