"""Where training data comes from: the manifest itself, a file or volume, or a documented generator."""

import gzip
import hashlib
import io
import zlib
from pathlib import Path

from governed_api.lifecycle import Data
from governed_api.regular_files import read_regular
from governed_api.storage import file_of
from governed_serving.trainer.errors import InvalidTraining
from governed_serving.trainer.generators import GENERATORS
from governed_serving.trainer.tables import Table, parse_csv, with_counts

DATA = "spec.lifecycle.training.data"
DATA_BYTES = 8 << 30
"""Most of a source that is read, packed or unpacked: all of it is held in memory."""


def source_bytes(data: Data, directory: Path) -> bytes:
    """CSV bytes as they lie at the source; for a generator its name, rows and seed, which stand for them.

    ``directory`` is where relative ``file:`` paths and the mounted claim of ``pvc://`` begin.
    Raises InvalidTraining (missing, unreadable, other than ``data.digest``).
    """
    if data.generator is not None:
        return data.generator.model_dump_json().encode()
    if data.inline is not None:
        content = data.inline.encode()
    else:
        path = _path(data.uri or "", directory)
        try:
            content = read_regular(path, DATA_BYTES, follow=True)
        except OSError as error:
            raise InvalidTraining(
                f"{DATA}.uri", f"expected a readable file, found {error.strerror} at {path}"
            ) from error
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    if data.digest is not None and data.digest != digest:
        raise InvalidTraining(f"{DATA}.digest", f"expected {data.digest}, found {digest}: the data changed")
    return content


def _path(uri: str, directory: Path) -> Path:
    try:
        return file_of(uri, directory)
    except ValueError as error:
        raise InvalidTraining(f"{DATA}.uri", str(error)) from None


def read(data: Data, content: bytes) -> Table:
    """The table of ``content`` (see :func:`source_bytes`), counts applied. Raises InvalidTraining."""
    if data.generator is not None:
        return GENERATORS[data.generator.name](data.generator.rows, data.generator.seed)
    path = f"{DATA}.inline" if data.inline is not None else f"{DATA}.uri"
    if data.uri is not None and data.uri.endswith(".gz"):
        try:
            content = _unpacked(content, path)
        except (OSError, EOFError, zlib.error) as error:
            raise InvalidTraining(path, f"expected gzip, found {error}") from error
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidTraining(path, f"expected UTF-8, found byte {error.start} that is none") from error
    table = parse_csv(text, path)
    return with_counts(table, data.count_column, f"{DATA}.countColumn") if data.count_column else table


def _unpacked(content: bytes, path: str) -> bytes:
    """Raises InvalidTraining before a bomb fills the memory; OSError, EOFError, zlib.error."""
    with gzip.GzipFile(fileobj=io.BytesIO(content)) as file:
        data = file.read(DATA_BYTES + 1)
    if len(data) > DATA_BYTES:
        raise InvalidTraining(path, f"expected at most {DATA_BYTES >> 30} GiB once unpacked, found more")
    return data
