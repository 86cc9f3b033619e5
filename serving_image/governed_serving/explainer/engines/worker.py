"""A process of another environment that computes an explanation, and asks the model through us while it does.

Frames on its standard input and output: four bytes of length, big-endian, then JSON; a matrix is its shape and its
float64 values in row-major order, base64. It greets with ``hello``; for each ``task`` it sends ``ask`` (a matrix of
rows) or ``texts`` (we answer with ``answer``, a matrix of outputs, or with ``stop``) any number of times, then ``done``
or ``failed``.

Nothing that it does may cost more than its task: its memory, its time, its silence, its frames and those who wait for
it are bounded. A budget that ends lets it off its task, and ends it only where it goes on. One that ends, or is ended,
begins again, later each time while it does nothing else. It gets no variable of ours but those of ``INHERITED``, no
words of a caller outside its frames, and ends with us.
"""

import base64
import contextlib
import hashlib
import math
import os
import resource
import select
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

import msgspec
import numpy as np

from governed_api.printable import printable
from governed_serving.blackbox.columns import Floats
from governed_serving.blackbox.errors import BudgetExhausted, EngineAway, ExplainerError, NotExplainable
from governed_serving.decoding import decode_json
from governed_serving.explainer.service.lanes import Busy

__all__ = ["Asked", "Bounds", "Ended", "Matrix", "Worker", "matrix_of", "message_of"]

T = TypeVar("T")

Asked = Floats | list[str]
"""What an engine wants the model's outputs of: rows of a matrix, or texts."""

Ended = Literal["budget", "lost"]
"""Why a process is no more: its task's time was over, or it ended, hung or babbled."""

LONGEST_FRAME = 1 << 26
"""Bytes of one frame, either way: 64 MiB."""

LONGEST_MESSAGE = 500
"""Characters of an engine's own refusal that a caller is told."""

LONGEST_GREETING = 16
"""Libraries that a process may name."""

LONGEST_PAUSE = 60.0
"""Seconds before a process that keeps ending is begun again."""

CLOSING = 10.0
"""Seconds that :meth:`Worker.close` waits for who has the turn."""

INHERITED = ("PATH", "HOME", "LANG", "LD_LIBRARY_PATH", "TMPDIR")


@dataclass(frozen=True)
class Bounds:
    """What one worker may take. ``starting``: seconds until it has greeted (its libraries take ten of a core, and so
    minutes of a tenth of one); ``silence``: seconds without a word after which it counts as hung; ``task``: seconds of
    one task, waiting included; ``memory``: bytes of its private memory; ``waiting``: callers in line behind the one
    that is served; ``grace``: seconds that a task may take to give up before it is cut."""

    starting: float = 300.0
    silence: float = 120.0
    task: float = 600.0
    memory: int = 2 << 30
    waiting: int = 4
    grace: float = 2.0


class _Late(Exception):
    """The time of a caller is over."""


class _LetOff(_Late):
    """Likewise, and the turn is now of the thread that winds up its task."""


class Matrix(msgspec.Struct):
    """As it travels."""

    shape: list[int]
    data: str


class _Frame(msgspec.Struct):
    """What a worker sends: one of these."""

    hello: dict[str, str] | None = None
    ask: Matrix | None = None
    texts: list[str] | None = None
    done: msgspec.Raw = msgspec.Raw()
    failed: str | None = None

    @property
    def last(self) -> bool:
        """Whether its task is over."""
        return bool(bytes(self.done)) or self.failed is not None


def message_of(matrix: Floats) -> Matrix:
    values = np.ascontiguousarray(matrix, np.float64)
    return Matrix(list(values.shape), base64.b64encode(values.tobytes()).decode())


def matrix_of(message: Matrix, shape: tuple[int, ...] | None = None) -> Floats:
    """The matrix that travelled, of this ``shape``. Raises EngineAway where shape and data don't fit."""
    try:
        flat: Floats = np.frombuffer(base64.b64decode(message.data, validate=True), np.float64)
        matrix = flat.reshape(message.shape)
    except (ValueError, OverflowError) as error:
        raise EngineAway(f"expected a matrix from the engine: {error}") from error
    if shape is not None and matrix.shape != shape:
        raise EngineAway(f"expected a matrix {shape} from the engine, found {str(matrix.shape)[:80]}")
    return matrix


def _told(hello: Mapping[str, str]) -> dict[str, str]:
    """Names and versions that go with every answer and into the ledger: few, short and printable."""
    pairs = list(hello.items())[:LONGEST_GREETING]
    return {
        name: version for name, version in pairs if all(0 < len(w) <= 64 and w.isprintable() for w in (name, version))
    }


class Worker:
    """``python`` runs ``program``, which gets one task at a time; started at the first, and again after it ended.

    ``ended`` is told of every process that is no more before :meth:`close`.
    """

    def __init__(
        self, python: Path, program: Path, bounds: Bounds = Bounds(), ended: Callable[[Ended], None] = lambda _: None
    ) -> None:
        self._command = [str(python), "-I", str(program)]
        self._bounds, self._ended = bounds, ended
        self._turn, self._count, self._inside = threading.Lock(), threading.Lock(), 0
        self._process: subprocess.Popen[bytes] | None = None
        self._buffer = bytearray()
        self._failures, self._not_before = 0, 0.0
        self._least: dict[str, float] = {}
        self._half_written = False
        self._closed = False
        self._code = f"sha256:{hashlib.sha256(program.read_bytes()).hexdigest()}"
        self.about: dict[str, str] = {}

    def start(self) -> None:
        """Until it has greeted: ``about`` says then what it is. Raises EngineAway."""
        with self._one_at_a_time(until := _now() + self._bounds.task):
            self._greeted(until)

    def signature(self, name: str, licence: str) -> dict[str, str]:
        """What computed an answer: versions, licence, and the digest of the program, which the explainer's own code
        doesn't hold."""
        return {**self.about, "name": name, "licence": licence, "code": self._code}

    def run(
        self, task: Mapping[str, object], ask: Callable[[Asked], Floats], done: type[T], left: float = math.inf
    ) -> T:
        """What the worker has ``done``, within ``left`` seconds.

        Raises BudgetExhausted, saying what the fastest task of this method took; at once where that was twice as long.
        The process is then let off its task, and ended only if it goes on. Raises Busy, EngineAway, NotExplainable (the
        engine's own refusal), and what ``ask`` raises.
        """
        until, method = _now() + min(left, self._bounds.task), str(task.get("method"))
        if 2 * left < self._least.get(method, 0.0):
            raise BudgetExhausted(self._too_short(method))
        try:
            with self._one_at_a_time(until):
                self._greeted(until)
                if until <= _now():
                    raise _Late
                return self._converse(task, ask, done, until)
        except _Late:
            if left > self._bounds.task:
                raise EngineAway(f"the engine took longer than {self._bounds.task:g} s; ask for less") from None
            raise BudgetExhausted(self._too_short(method)) from None

    def _too_short(self, method: str) -> str:
        least = self._least.get(method)
        fastest = f" (the fastest {method} here took {math.ceil(1000 * least)} ms)" if least is not None else ""
        return (
            f"the latency budget ended before the engine did, which can't be cut short{fastest}; raise "
            "budgetMilliseconds, lower maxEvaluations, or leave the engine out"
        )

    def close(self) -> None:
        """Ends the process, whatever it does; there will be no other.

        Its pipes are closed in a turn of ours, or by who has the turn: the number of a pipe that is closed while
        somebody waits on it is the next file's, whose bytes would be taken from it.
        """
        self._closed = True
        if (process := self._process) is not None:
            process.kill()  # who waits for its word learns that it ended
        if self._turn.acquire(timeout=CLOSING):
            try:
                self._kill()
            finally:
                self._turn.release()

    def _converse(self, task: Mapping[str, object], ask: Callable[[Asked], Floats], done: type[T], until: float) -> T:
        begun = _now()
        try:
            self._send({"task": task}, until)
            while True:
                frame = self._receive(until)
                if frame.ask is not None:
                    self._answer(matrix_of(frame.ask), ask, until)
                elif frame.texts is not None:
                    self._answer(frame.texts, ask, until)
                elif raw := bytes(frame.done):
                    answer = self._read(raw, done)
                    self._failures = 0
                    self._took(str(task.get("method")), _now() - begun)
                    return answer
                elif frame.failed is not None:
                    self._failures = 0
                    raise NotExplainable(self._refusal(frame.failed))
                else:
                    raise self._lost("it sent a frame that says nothing")
        except _Late:
            if self._half_written:  # what comes next would be read as the rest
                self._cut()
                raise
            threading.Thread(target=self._wound_up, daemon=True).start()
            raise _LetOff from None

    def _took(self, method: str, seconds: float) -> None:
        self._least[method] = min(seconds, self._least.get(method, math.inf))

    def _wound_up(self) -> None:
        """Beside the caller, who has no more time: until the worker has given up its task, the turn is its own."""
        try:
            with contextlib.suppress(OSError):  # its pipes were closed meanwhile
                self._stop()
        finally:
            self._turn.release()

    def _refusal(self, failed: str) -> str:
        more = f"; it may have {self._bounds.memory >> 20} MiB, ask for less" if "MemoryError" in failed else ""
        return f"the engine could not explain it: {printable(failed[:LONGEST_MESSAGE])}{more}"

    def _answer(self, asked: Asked, ask: Callable[[Asked], Floats], until: float) -> None:
        try:
            body = _encoded({"answer": message_of(ask(asked))})
        except ExplainerError:
            self._stop()
            raise
        except BaseException:
            self._kill()
            raise
        self._write(body, until)

    def _stop(self) -> None:
        """Until the worker has given up its task, some libraries trying again after an error; else it is cut."""
        until = _now() + self._bounds.grace
        try:
            self._send({"stop": True}, until)
            while not self._receive(until).last:
                self._send({"stop": True}, until)
        except _Late:
            self._cut()
        except EngineAway:  # what led here is what the caller should be told
            return

    @contextlib.contextmanager
    def _one_at_a_time(self, until: float) -> Iterator[None]:
        """A turn; who may not even wait for one, or waits too long, is told so."""
        with self._count:
            if self._inside > self._bounds.waiting:
                raise Busy(f"{self._inside} explanations wait for the engine already, which gives one at a time")
            self._inside += 1
        try:
            if not self._turn.acquire(timeout=max(0.0, until - _now())):
                raise _Late
            kept = True
            try:
                yield
            except _LetOff:
                kept = False
                raise
            finally:
                if kept:
                    self._turn.release()
        finally:
            with self._count:
                self._inside -= 1

    def _greeted(self, until: float) -> None:
        """A process that has said what it is; one that a caller doesn't wait for goes on beginning."""
        if self._process is None or self._process.poll() is not None:
            if self._process is not None:
                self._gone()
            if (left := self._not_before - _now()) > 0:
                raise EngineAway(
                    f"the engine's process ended {self._failures} times in a row; it begins again in {left:.0f} s"
                )
            self._spawn()
        if not self.about:
            self.about = _told(self._receive(until, self._bounds.starting).hello or {})
            if not self.about:
                raise self._lost("it did not greet")

    def _spawn(self) -> None:
        self.about, self._half_written = {}, False
        self._buffer.clear()
        if self._closed:
            raise EngineAway("the engine is closed")
        environment = {name: os.environ[name] for name in INHERITED if name in os.environ}
        environment |= dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"), "1")
        try:
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, bufsize=0
            )
        except OSError as error:
            raise EngineAway(f"expected an environment at {self._command[0]}: {error.strerror}") from error
        with contextlib.suppress(ProcessLookupError):  # it ended at once: the first word that it lacks will tell
            resource.prlimit(self._process.pid, resource.RLIMIT_DATA, (self._bounds.memory, self._bounds.memory))
        assert self._process.stdin is not None
        os.set_blocking(self._process.stdin.fileno(), False)
        if self._closed:  # meanwhile, before there was a process to end
            self._process.kill()

    def _kill(self) -> None:
        """In a turn only."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.communicate()

    def _cut(self) -> None:
        """Another process in the place of one that goes on with a task which nobody waits for."""
        self._kill()
        self._tell("budget")
        with contextlib.suppress(EngineAway):  # the next caller is told
            self._spawn()

    def _gone(self) -> None:
        """Counts an end that nobody asked for; the first is followed by a beginning at once."""
        self._kill()
        self._failures += 1
        self._not_before = _now() + (min(2.0 ** (self._failures - 2), LONGEST_PAUSE) if self._failures > 1 else 0.0)
        self._tell("lost")

    def _tell(self, how: Ended) -> None:
        if not self._closed:
            self._ended(how)

    def _lost(self, why: str) -> EngineAway:
        self._gone()
        if self._closed:
            return EngineAway("the engine is closed")
        return EngineAway(f"expected {' '.join(self._command)} to go on; {why} (its messages are in the log)")

    def _send(self, message: Mapping[str, object], until: float) -> None:
        self._write(_encoded(message), until)

    def _write(self, body: bytes, until: float) -> None:
        pipe, rest = self._pipe("stdin"), memoryview(len(body).to_bytes(4, "big") + body)
        self._half_written = True
        while rest:
            silence = self._bounds.silence
            self._await(pipe, select.POLLOUT, until, _now() + silence, silence)
            try:
                rest = rest[os.write(pipe, rest) :]
            except OSError as error:
                raise self._lost("it ended") from error
        self._half_written = False

    def _receive(self, until: float, silence: float | None = None) -> _Frame:
        silence = self._bounds.silence if silence is None else silence
        pipe, silent = self._pipe("stdout"), _now() + silence
        while (body := self._framed()) is None:
            self._await(pipe, select.POLLIN, until, silent, silence)
            part = os.read(pipe, 1 << 20)
            if not part:
                raise self._lost("it ended")
            self._buffer += part
        return self._read(body, _Frame)

    def _framed(self) -> bytes | None:
        """The next frame, once it is whole."""
        size = int.from_bytes(self._buffer[:4], "big") if len(self._buffer) >= 4 else 0
        if size > LONGEST_FRAME:
            raise self._lost(f"it sent a frame of {size} bytes")
        if len(self._buffer) < 4 + size or len(self._buffer) < 4:
            return None
        body = bytes(self._buffer[4 : 4 + size])
        del self._buffer[: 4 + size]
        return body

    def _pipe(self, name: Literal["stdin", "stdout"]) -> int:
        process = self._process
        stream = getattr(process, name) if process is not None else None
        if stream is None or stream.closed:
            raise EngineAway("the engine is closed")
        descriptor: int = stream.fileno()
        return descriptor

    def _await(self, pipe: int, what: int, until: float, silent: float, silence: float) -> None:
        """Until the pipe is ready. Raises _Late, or EngineAway after too long a silence."""
        poll = select.poll()
        poll.register(pipe, what)
        if poll.poll(max(0.0, min(until, silent) - _now()) * 1000):
            return
        if until <= silent:
            raise _Late
        raise self._lost(f"it said nothing for {silence:g} s")

    def _read(self, body: bytes, kind: type[T]) -> T:
        try:
            return decode_json(body, kind)
        except msgspec.DecodeError as error:
            raise self._lost(f"it sent something else: {error}") from error


def _encoded(message: Mapping[str, object]) -> bytes:
    body = msgspec.json.encode(message)
    if len(body) > LONGEST_FRAME:
        raise NotExplainable(f"the engine takes {LONGEST_FRAME} bytes at once, found {len(body)}; ask for less")
    return body


def _now() -> float:
    return time.monotonic()
