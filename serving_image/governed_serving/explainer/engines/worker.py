"""A process of another environment that computes an explanation, and asks the model through us while it does.

Frames on its standard input and output: four bytes of length, big-endian, then JSON; a matrix is its shape and its
float64 values in row-major order, base64. It greets with ``hello``; for each ``task`` it sends ``ask`` (a matrix of
rows; we answer with ``answer``, a matrix of outputs, or with ``stop``) any number of times, then ``done`` or
``failed``.
"""

import base64
import os
import select
import subprocess
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import msgspec
import numpy as np

from governed_serving.blackbox.columns import Floats
from governed_serving.blackbox.errors import ExplainerError, NotExplainable
from governed_serving.decoding import decode_json

__all__ = ["EngineAway", "Matrix", "Worker", "matrix_of", "message_of"]

T = TypeVar("T")

PATIENCE = 300.0
"""Seconds without a word from a worker after which it counts as hung; importing its libraries takes ten or so."""

LONGEST = 1 << 28
"""Bytes of one frame."""

INHERITED = ("PATH", "HOME", "LANG", "LD_LIBRARY_PATH", "TMPDIR")


class EngineAway(ExplainerError):
    """The engine's process can't be started, or ended, or said nothing for too long (HTTP 503)."""


class Matrix(msgspec.Struct):
    """As it travels."""

    shape: list[int]
    data: str


class _Frame(msgspec.Struct):
    """What a worker sends: one of these."""

    hello: dict[str, str] | None = None
    ask: Matrix | None = None
    done: msgspec.Raw = msgspec.Raw()
    failed: str | None = None

    @property
    def last(self) -> bool:
        """Whether its task is over."""
        return bool(bytes(self.done)) or self.failed is not None


def message_of(matrix: Floats) -> Matrix:
    values = np.ascontiguousarray(matrix, np.float64)
    return Matrix(list(values.shape), base64.b64encode(values.tobytes()).decode())


def matrix_of(message: Matrix) -> Floats:
    """The matrix that travelled. Raises EngineAway where shape and data don't fit."""
    try:
        flat: Floats = np.frombuffer(base64.b64decode(message.data, validate=True), np.float64)
        return flat.reshape(message.shape)
    except ValueError as error:
        raise EngineAway(f"expected a matrix from the engine: {error}") from error


class Worker:
    """``python`` runs ``program``, which gets one task at a time; started at the first, and again after it ended."""

    def __init__(self, python: Path, program: Path, patience: float = PATIENCE) -> None:
        self._command = [str(python), "-I", str(program)]
        self._patience = patience
        self._turn = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self.about: dict[str, str] = {}

    def start(self) -> None:
        """Until it has greeted: ``about`` says then what it is. Raises EngineAway."""
        with self._turn:
            self._running()

    def run(self, task: Mapping[str, object], ask: Callable[[Floats], Floats], done: type[T]) -> T:
        """What the worker has ``done``. Raises EngineAway, NotExplainable (the engine's own refusal), and what ``ask``
        raises."""
        with self._turn:
            self._send(self._running(), {"task": task})
            while True:
                frame = self._receive()
                if frame.ask is not None:
                    self._answer(frame.ask, ask)
                elif raw := bytes(frame.done):
                    return self._read(raw, done)
                else:
                    raise NotExplainable(f"the engine could not explain it: {frame.failed}")

    def close(self) -> None:
        """Ends the process, whatever it does."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.communicate()

    def _answer(self, rows: Matrix, ask: Callable[[Floats], Floats]) -> None:
        try:
            answer = ask(matrix_of(rows))
        except ExplainerError:
            self._stop()
            raise
        except BaseException:
            self.close()
            raise
        self._send(self._running(), {"answer": message_of(answer)})

    def _stop(self) -> None:
        """Until the worker has given up its task: some libraries try again after an error."""
        self._send(self._running(), {"stop": True})
        while not self._receive().last:
            self._send(self._running(), {"stop": True})

    def _running(self) -> "subprocess.Popen[bytes]":
        if self._process is not None and self._process.poll() is None:
            return self._process
        environment = {name: os.environ[name] for name in INHERITED if name in os.environ}
        environment |= dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"), "1")
        try:
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, bufsize=0
            )
        except OSError as error:
            raise EngineAway(f"expected an environment at {self._command[0]}: {error.strerror}") from error
        self.about = self._receive().hello or {}
        return self._process

    def _send(self, process: "subprocess.Popen[bytes]", message: Mapping[str, object]) -> None:
        body = msgspec.json.encode(message)
        assert process.stdin is not None
        try:
            process.stdin.write(len(body).to_bytes(4, "big") + body)
        except OSError as error:
            raise self._lost("it ended") from error

    def _receive(self) -> _Frame:
        size = int.from_bytes(self._bytes(4), "big")
        if size > LONGEST:
            raise self._lost(f"it sent a frame of {size} bytes")
        return self._read(self._bytes(size), _Frame)

    def _read(self, body: bytes, kind: type[T]) -> T:
        try:
            return decode_json(body, kind)
        except msgspec.DecodeError as error:
            raise self._lost(f"it sent something else: {error}") from error

    def _bytes(self, count: int) -> bytes:
        assert self._process is not None
        assert self._process.stdout is not None
        pipe, parts, left = self._process.stdout.fileno(), [], count
        while left:
            if not select.select([pipe], [], [], self._patience)[0]:
                raise self._lost(f"it said nothing for {self._patience:g} s")
            part = os.read(pipe, min(left, 1 << 20))
            if not part:
                raise self._lost("it ended")
            parts.append(part)
            left -= len(part)
        return b"".join(parts)

    def _lost(self, why: str) -> EngineAway:
        self.close()
        return EngineAway(f"expected {' '.join(self._command)} to go on; {why} (its messages are in the log)")
