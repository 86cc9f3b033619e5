"""What a folder with a tokenizer is, what can be done with it, and the manifest that serves it: as inspection.py."""

from dataclasses import dataclass
from pathlib import Path

from governed_api.model import Model
from governed_api.names import API_VERSION, KIND
from governed_api.printable import printable
from governed_api.quantities import whole_bytes
from governed_serving.artefact import MalformedArtefact
from governed_serving.formats import TextAnswer, TextFiles, TrialRequest, read_text_folder, run_trial, volume_for
from governed_serving.importer.inspection import SHOWN, model_name, quoted
from governed_serving.sources import SourceError, Tree

__all__ = ["InspectedText", "inspected_text", "text_manifest_of", "text_screen"]

POOLED = {
    "": "made by the graph", "cls": "that of the first token", "mean": "the mean over its tokens",
    "meanSqrtLen": "the sum over its tokens by the root of their number", "max": "the greatest over its tokens",
    "lastToken": "that of the last token",
}  # fmt: skip


@dataclass(frozen=True)
class InspectedText:
    """A folder, the digest over its files, and what its trial showed."""

    path: Path
    digest: str
    size: int
    files: TextFiles
    answer: TextAnswer
    why: str


def inspected_text(path: Path) -> InspectedText:
    """Raises MalformedArtefact where it can't be served, OSError where it can't be read."""
    try:
        tree = Tree.of(path)
    except SourceError as error:
        raise MalformedArtefact(str(error)) from None
    digests = {file.path: file.sha256 for file in tree.files}
    files = read_text_folder(path, digests)
    trial = run_trial(path, TrialRequest(str(path), digests=digests))
    assert trial.text is not None, "what isn't refused has an answer"
    return InspectedText(path, tree.digest, tree.size, files, trial.text, trial.why)


def text_screen(inspected: InspectedText) -> str:
    """Task, labels, tokens, pooling, what will and will not be explained and audited, the suggested manifest."""
    answer, text = inspected.answer, inspected.answer.text
    kind = inspected.files.settings.architecture or inspected.files.settings.model_type or "a model of texts"
    head = (
        f"{inspected.path.resolve().name}: {kind}, {answer.model} and tokenizer.json, {inspected.size / 1024:,.0f} KiB"
    )
    lines = [head, inspected.digest, "", f"in   {'text':<24} BYTES  [n]; at most {text.max_tokens} tokens are read"]
    if answer.task == "classification":
        names = ", ".join(answer.classes[:SHOWN]) + (" …" if len(answer.classes) > SHOWN else "")
        lines += [
            f"out  {'probabilities':<24} FP32   [n, {answer.width}]; {text.activation} over classes {names}",
            f"out  {'label':<24} BYTES  [n]; the most probable class",
        ]
    elif answer.task == "regression":
        lines.append(f"out  {'prediction':<24} FP32   [n]{'; its sigmoid' if text.activation else ''}")
    else:
        long = ", of length 1" if text.normalized else ""
        lines.append(f"out  {'embedding':<24} FP32   [n, {answer.width}]; {POOLED[text.pooling]}{long}")
    lines += [f"out  {'tokens, truncated':<24} INT32  [n]; tokens that were read, and left out of a longer text", ""]
    lines += [_answered(inspected), *_governed(answer), "", "Suggested manifest (governed init writes it):", ""]
    lines += text_manifest_of(inspected, "", f"file:{inspected.path}").splitlines()
    return "\n".join(printable(line) for line in lines) + "\n"


def _answered(inspected: InspectedText) -> str:
    if inspected.why:
        return f"Served:    texts; each is a call of its own ({inspected.why})"
    return "Served:    texts; those of equal length share a call, shown to give each the bits that it gets alone"


def _governed(answer: TextAnswer) -> list[str]:
    if answer.task == "embedding":
        return [
            "           V2's infer, and OpenAI's /v1/embeddings",
            "Explained: no: it decides nothing; leave explainer out",
            "Audited:   journalled, masked before the tokenizer, proved; bias needs a label or a score",
        ]
    by = "label" if answer.task == "classification" else "threshold or range"
    return [
        "Explained: yes, by its words, with explainer type shap or lime; no background is needed",
        f"Audited:   yes, by favorableOutcome.{by}; protectedAttributes are inputs that the model isn't given",
    ]


def text_manifest_of(inspected: InspectedText, name: str, uri: str) -> str:
    """A manifest that serves the folder, as YAML."""
    needed = volume_for(len(inspected.files.model) + len(inspected.files.tokenizer))
    lines = [
        f"apiVersion: {API_VERSION}",
        f"kind: {KIND}",
        f"metadata: {{name: {model_name(name or inspected.path.resolve().name)}}}",
        "spec:",
        "  predictor:",
        "    model:",
        f"      storageUri: {quoted(uri)}",
        f"      digest: {inspected.digest}",
        *([f"      volumeSize: {needed}"] if whole_bytes(needed) > whole_bytes(Model().room) else []),
    ]
    answer = inspected.answer
    if answer.task != "embedding":
        outcome = f"label: {quoted(answer.classes[-1])}" if answer.classes else "threshold: 0"
        lines += [
            "  # explainer: {type: shap}",
            "  # governance:",
            "  #   bias:",
            "  #     protectedAttributes: [{name: …}]   # requests say it beside the text; the model doesn't see it",
            f"  #     favorableOutcome: {{{outcome}}}",
            "  #     metrics: [{name: disparateImpactRatio, thresholdLower: 0.8}]",
        ]
    return "\n".join(lines) + "\n"
