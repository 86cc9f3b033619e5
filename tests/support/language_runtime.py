"""A language-model runtime that isn't ours: llama.cpp behind llama-cpp-python's OpenAI server, with a tiny model.

Compiled once into an environment of its own below the cache (some three minutes of two processors), and kept there.
"""

import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import time
import venv
from collections import deque
from dataclasses import dataclass
from pathlib import Path

from support.host import require_packages
from support.places import SUPPORT, cache, locked
from support.progress import BedError, Say, say

SOURCE = SUPPORT / "llama"

# Any x86-64 of the last ten years runs it. Pictures and the compiler's own threads have no part in a tiny model of
# text, and -O1 spares half of the compiler's work, the library left out another half.
FLAGS = (
    "-DLLAVA_BUILD=OFF", "-DGGML_NATIVE=OFF", "-DGGML_OPENMP=OFF",
    "-DCMAKE_C_FLAGS_RELEASE=-O1", "-DCMAKE_CXX_FLAGS_RELEASE=-O1",
)  # fmt: skip
LEFT_OUT = SOURCE / "without_tools.cmake"
MODEL = "tiny.gguf"


@dataclass(frozen=True)
class LanguageRuntime:
    """What is in the cache."""

    folder: Path

    @property
    def python(self) -> Path:
        return self.folder / "bin" / "python"

    @property
    def model(self) -> Path:
        """A language model of random weights, the same bytes each time it is made."""
        return self.folder / MODEL

    def command(self, port: int, *options: str) -> list[str]:
        """The server's command line. It answers log-probabilities, which explanations need, and one request doesn't cut
        another's stream."""
        where = ["--host", "127.0.0.1", "--port", str(port), "--n_threads", "1", "--n_threads_batch", "1"]
        return [
            str(self.python), "-m", "llama_cpp.server", "--model", str(self.model), "--logits_all", "true", "--interrupt_requests", "false", *where, *options  # noqa: E501
        ]  # fmt: skip


def language_runtime(tell: Say = say) -> LanguageRuntime:
    """The runtime, compiled when the cache has none. Raises BedError that says what failed."""
    key = _key()
    folder = cache("runtimes", f"llama-{key}")
    done = folder / ".complete"
    if not done.exists():
        with locked(f"llama-{key}"):
            if not done.exists():
                _build(folder, tell)
                done.touch()
    return LanguageRuntime(folder)


def _key() -> str:
    """Digest of all that decides the bytes."""
    parts = [path.read_bytes() for path in sorted(SOURCE.iterdir()) if path.is_file()]
    place = f"{FLAGS} {platform.machine()} {sys.version_info[:2]} {sys.executable}"
    return hashlib.sha256(b"\0".join([*parts, place.encode()])).hexdigest()[:12]


def _build(folder: Path, tell: Say) -> None:
    started = time.monotonic()
    require_packages({"g++": "g++", "gcc": "gcc"}, tell)
    shutil.rmtree(folder)
    tell("compiling the language-model runtime (llama.cpp, some three minutes of two processors) …")
    venv.create(folder, with_pip=True)
    runtime = LanguageRuntime(folder)
    requirements = ["-r", str(SOURCE / "requirements.txt")]
    _run([str(runtime.python), "-m", "pip", "install", "-v", "--disable-pip-version-check", *requirements], tell)
    _run([str(runtime.python), str(SOURCE / "tiny_model.py"), str(runtime.model)], tell)
    tell(f"compiled the language-model runtime in {time.monotonic() - started:.0f} s")


def _run(command: list[str], tell: Say) -> None:
    """Run to the end; ninja's count of steps is told by quarters."""
    flags = [*FLAGS, f"-DCMAKE_PROJECT_llama_cpp_INCLUDE={LEFT_OUT}"]
    environment = {**os.environ, "CMAKE_ARGS": " ".join(flags)}
    last: deque[str] = deque(maxlen=30)
    told = 0
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", env=environment
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            last.append(line[:500].rstrip())
            step = re.match(r"\s*\[(\d+)/(\d+)\]", line)
            quarter = 4 * int(step.group(1)) // int(step.group(2)) if step else 0
            if quarter > told:
                told = quarter
                tell(f"compiling the language-model runtime: {25 * quarter} %")
    if process.returncode:
        raise BedError(
            "the language-model runtime could not be made; it needs a C++ compiler, and a package index that has "
            "what is in "
            f"{SOURCE.name}/requirements.txt. {command[1:4]} ended with:\n" + "\n".join(last)
        )
