"""``python -m governed_serving.importer trial|inspect|manifest|job``.

``trial`` tries the model that standard input names (formats.TrialRequest), and answers with one line of JSON
(formats.TrialAnswer). ``inspect FILE`` says on one screen what a file, or a folder with a tokenizer, is and what can be
done with it; ``manifest FILE NAME URI [ROWS URI]`` prints a manifest that serves it, and explains it by ROWS. Both run
a trial as a process of its own.
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
from governed_serving.formats import Declared, TrialAnswer, TrialRequest, content_of, is_text_folder, read_text_folder
from governed_serving.importer.text_trial import text_tried
from governed_serving.importer.trial import tried

_PAGE = resource.getpagesize()


def _available() -> int:
    """Bytes that a graph may take where nobody says how many: most of what the machine has to spare."""
    line = next(row for row in Path("/proc/meminfo").read_text().splitlines() if row.startswith("MemAvailable:"))
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
        if Path(request.path).is_dir():
            answer, why = text_tried(read_text_folder(Path(request.path), request.digests or None))
            return TrialAnswer(text=answer, merges=not why, why=why)
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
    try:
        text = _of_folder(verb, path, words) if path.is_dir() else _of_file(verb, path, words)
    except (MalformedArtefact, OSError) as error:
        print(printable(f"error: {error}"), file=sys.stderr)
        return 1
    sys.stdout.write(text)
    return 0


def _of_file(verb: str, path: Path, words: Sequence[str]) -> str:
    from governed_serving.importer.inspection import Rows, inspected, manifest_of, screen

    inspection = inspected(path)
    if verb == "inspect":
        return screen(inspection)
    name, uri, *beside = words
    return manifest_of(inspection, name, uri, Rows.read(Path(beside[0]), beside[1]) if beside else None)


def _of_folder(verb: str, path: Path, words: Sequence[str]) -> str:
    from governed_serving.importer.text_inspection import inspected_text, text_manifest_of, text_screen

    if not is_text_folder(path):
        raise MalformedArtefact(
            f"{path}: expected an ONNX file, or a folder with config.json, tokenizer.json and one, found a folder "
            "without; an artefact's folder needs no inspection: name it in storageUri"
        )
    if verb == "manifest" and words[2:]:
        raise MalformedArtefact("background: expected none for texts, whose words are left out; leave it out")
    inspection = inspected_text(path)
    return text_screen(inspection) if verb == "inspect" else text_manifest_of(inspection, words[0], words[1])


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
