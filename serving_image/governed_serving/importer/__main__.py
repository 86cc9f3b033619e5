"""``python -m governed_serving.importer trial|inspect|manifest|job``.

``trial`` tries the model that standard input names (formats.TrialRequest), and answers with one line of JSON
(formats.TrialAnswer). ``inspect FILE`` says on one screen what a file is and what can be done with it; ``manifest FILE
NAME URI [ROWS URI]`` prints a manifest that serves it, and explains it by ROWS. Both run a trial as a process of its
own.
"""

import hashlib
import resource
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

from governed_api.printable import printable
from governed_api.tensors import TensorInput, TensorOutput
from governed_serving.artefact import MalformedArtefact
from governed_serving.decoding import decode_json
from governed_serving.formats import Declared, TrialAnswer, TrialRequest, content_of
from governed_serving.importer.trial import tried

_PAGE = resource.getpagesize()


def _available() -> int:
    """Bytes that a graph may take where nobody says how many: most of what the machine has to spare."""
    line = next(one for one in Path("/proc/meminfo").read_text().splitlines() if one.startswith("MemAvailable:"))
    return int(line.split()[1]) * 1024 * 4 // 5


def _bound_memory(more: int) -> None:
    """Beyond what is mapped by now, at most ``more`` bytes: what takes more fails by itself, and nobody else's
    process."""
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * _PAGE
    resource.setrlimit(resource.RLIMIT_AS, (mapped + more, mapped + more))


def _answer(request: TrialRequest) -> TrialAnswer:
    declared = Declared(
        [TensorInput.model_validate(said) for said in request.inputs],
        [TensorOutput.model_validate(said) for said in request.outputs],
    )
    memory = request.memory or _available()
    _bound_memory(memory)
    try:
        data = content_of(Path(request.path))
        if request.digest not in ("", hashlib.sha256(data).hexdigest()):
            return TrialAnswer(
                refused="expected the bytes that were verified, found others: the file changed meanwhile"
            )
        trial = tried(data, declared)
    except MalformedArtefact as error:
        return TrialAnswer(refused=_of_memory(str(error), memory))
    except MemoryError:
        return TrialAnswer(refused=_of_memory("bad allocation", memory))
    except OSError as error:
        return TrialAnswer(refused=f"expected a file that can be read, found: {error.strerror or error}")
    return TrialAnswer(trial.graph, trial.merges, trial.why, trial.file.producer, trial.file.opsets)


def _of_memory(text: str, memory: int) -> str:
    if any(sign in text.lower() for sign in ("bad alloc", "bad_alloc", "failed to allocate", "out of memory")):
        return (
            f"expected a graph that runs in {memory >> 20} MiB of memory, found one that takes more; narrow its shapes "
            "in predictor.model.inputs, or raise predictor.model.resources.limits.memory"
        )
    return text


def _print(verb: str, path: Path, words: Sequence[str]) -> int:
    from governed_serving.importer.inspection import Rows, inspected, manifest_of, screen

    try:
        found = inspected(path)
        if verb == "inspect":
            text = screen(found)
        else:
            name, uri, *beside = words
            text = manifest_of(found, name, uri, Rows.read(Path(beside[0]), beside[1]) if beside else None)
    except (MalformedArtefact, OSError) as error:
        print(printable(f"error: {error}"), file=sys.stderr)
        return 1
    sys.stdout.write(text)
    return 0


def main() -> int:
    """0: the answer is on standard output; 1: it is refused, and why is on standard error."""
    if sys.argv[1] == "job":
        from governed_serving.importer.job import run

        return run()
    if sys.argv[1] != "trial":
        return _print(sys.argv[1], Path(sys.argv[2]), sys.argv[3:])
    answer = _answer(decode_json(sys.stdin.buffer.read(), TrialRequest))
    sys.stdout.buffer.write(msgspec.json.encode(answer) + b"\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
