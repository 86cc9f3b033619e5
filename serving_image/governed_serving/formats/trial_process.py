"""The trial of a model (importer) as a process of its own, bounded in time and memory: a graph may take all of either,
or end the process that runs it."""

import signal
import subprocess
import sys
from pathlib import Path
from typing import Literal

import msgspec

from governed_api.json_types import Scalar
from governed_api.printable import printable
from governed_serving.artefact import Graph, MalformedArtefact, Text, Untried
from governed_serving.decoding import decode_json

__all__ = ["Said", "TextAnswer", "TrialAnswer", "TrialRequest", "run_trial"]

PROGRAM = "governed_serving.importer"
Said = dict[str, Scalar | list[Scalar]]
"""A tensor as the manifest has it."""
SECONDS = 180.0
"""Time of a trial: loading, looking for sizes, checking independence, a request's way alone and merged."""


class TrialRequest(msgspec.Struct, frozen=True):
    """``inputs`` and ``outputs`` as the manifest has them; ``memory``: bytes that the graph may take, 0 for any."""

    path: str
    inputs: list[Said] = []
    outputs: list[Said] = []
    memory: int = 0
    digest: str = ""
    """SHA-256 (hex) that the file's bytes must have; empty: any."""
    digests: dict[str, str] = {}
    """Of a folder with a tokenizer, likewise of each file; empty: any."""


class TextAnswer(msgspec.Struct, frozen=True):
    """Of a folder with a tokenizer: ``model``, the path of its graph; ``width`` of the vector or classes answered."""

    text: Text
    task: Literal["classification", "regression", "embedding"]
    model: str
    width: int
    classes: list[str] = []


class TrialAnswer(msgspec.Struct, frozen=True):
    """What was shown, or why the model is ``refused``. ``merges``: requests share a call, else ``why`` not."""

    graph: Graph | None = None
    merges: bool = False
    why: str = ""
    producer: str = ""
    opsets: dict[str, int] = {}
    refused: str = ""
    text: TextAnswer | None = None


def run_trial(path: Path, request: TrialRequest, seconds: float = SECONDS) -> TrialAnswer:
    """What the trial of the file at ``path`` showed. Raises MalformedArtefact where it is refused, Untried where
    time or the machine's memory ended first."""
    command = [sys.executable, "-m", PROGRAM, "trial"]
    try:
        done = subprocess.run(
            command, input=msgspec.json.encode(request), capture_output=True, timeout=seconds, check=False
        )
    except subprocess.TimeoutExpired:
        raise Untried(
            f"{path.name}: expected an answer to a made-up request within {seconds:g} s, found none: a graph this slow "
            "is not served in process; compress it, narrow its shapes in predictor.model.inputs, or serve it by a "
            "predictor.model.runtime"
        ) from None
    try:
        answer = decode_json(done.stdout, TrialAnswer)
    except msgspec.DecodeError:
        how = f"signal {-done.returncode}" if done.returncode < 0 else f"exit status {done.returncode}"
        last = (done.stderr.decode(errors="replace").strip().splitlines() or [""])[-1][:300]
        kind = Untried if done.returncode == -signal.SIGKILL else MalformedArtefact
        raise kind(
            f"{path.name}: expected ONNX Runtime to run the graph, found that it ended the process that tried it "
            f"({how}{'; ' if last else ''}{printable(last)})"
        ) from None
    if answer.refused or (answer.graph is None and answer.text is None):
        raise MalformedArtefact(printable(f"{path.name}: {answer.refused or 'expected a graph, found none'}"))
    return answer
