"""What an ONNX file is, what can be done with it, and the manifest that serves it: for people, on one screen."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from governed_api.names import API_VERSION, KIND, MAX_MODEL_NAME
from governed_api.printable import printable
from governed_serving.artefact import Graph, Tensor
from governed_serving.formats import TrialAnswer, TrialRequest, run_trial

__all__ = ["Inspected", "inspected", "manifest_of", "screen"]

SHOWN = 12
"""Tensors, classes or columns that one screen has room for."""


@dataclass(frozen=True)
class Inspected:
    """A file, its digest, and what its trial showed."""

    path: Path
    size: int
    digest: str
    answer: TrialAnswer
    graph: Graph

    @property
    def decides(self) -> bool:
        """Answers a class or a quantity for each row."""
        served = {tensor.served for tensor in self.graph.outputs}
        return self.graph.unit == "row" and bool(served & {"probabilities", "prediction"})

    @property
    def matrices(self) -> list[Tensor]:
        """Inputs that may be tables whose columns nobody has named."""
        if not self.decides:
            return []
        return [t for t in self.graph.inputs if len(t.shape) == 2 and 1 < t.shape[1] <= 4096 and not t.columns]

    @property
    def table(self) -> bool:
        """All inputs are columns, once those of matrices are named."""
        matrices = self.matrices
        return self.decides and all(t in matrices or t.columns or t.row in ((), (1,)) for t in self.graph.inputs)


def inspected(path: Path) -> Inspected:
    """Raises MalformedArtefact where it can't be served, OSError where it can't be read."""
    data = path.read_bytes()
    answer = run_trial(path, TrialRequest(str(path)))
    assert answer.graph is not None, "what isn't refused has a graph"
    return Inspected(path, len(data), f"sha256:{hashlib.sha256(data).hexdigest()}", answer, answer.graph)


def screen(found: Inspected) -> str:
    """The signature, what will and will not be explained and audited, the suggested manifest."""
    opsets = ", ".join(f"{domain} {version}" for domain, version in sorted(found.answer.opsets.items()))
    size = f"{found.size / 1024:,.0f} KiB"
    by = f"written by {found.answer.producer}, " if found.answer.producer else ""
    lines = [f"{found.path.name}: {by}opset {opsets}, {size}", found.digest, ""]
    lines += [_line("in ", tensor, found.graph.unit) for tensor in found.graph.inputs[:SHOWN]]
    lines += [_line("out", tensor, found.graph.unit) for tensor in found.graph.outputs[:SHOWN]]
    left = max(0, len(found.graph.inputs) - SHOWN) + max(0, len(found.graph.outputs) - SHOWN)
    lines += [f"     … and {left} more"] if left else []
    lines += [
        "",
        _answered(found),
        _explained(found),
        _audited(found),
        "",
        "Suggested manifest (governed init writes it):",
    ]
    lines += ["", *manifest_of(found, "").splitlines()]
    return "\n".join(printable(line) for line in lines) + "\n"


def _line(way: str, tensor: Tensor, unit: str) -> str:
    shape = [
        ("n" if unit == "row" and axis == 0 else "any") if s < 0 else str(s) for axis, s in enumerate(tensor.shape)
    ]
    more = f" as {tensor.served}" if tensor.served != tensor.name else ""
    if tensor.maps:
        more += " (maps, as a matrix)"
    if tensor.classes:
        names = ", ".join(map(str, tensor.classes[:SHOWN])) + (" …" if len(tensor.classes) > SHOWN else "")
        more += f"; classes {names}"
    return f"{way}  {tensor.name[:40]:<24} {tensor.datatype:<6} [{', '.join(shape)}]{more}"


def _answered(found: Inspected) -> str:
    if found.graph.unit == "request":
        return "Served:    each request is one call of the graph, bit for bit; no rows, so that nothing is merged"
    if found.answer.merges:
        return (
            "Served:    rows; requests that wait together share a call, shown to give each the bits that it gets alone"
        )
    return f"Served:    rows; each request is a call of its own ({found.answer.why})"


def _explained(found: Inspected) -> str:
    if found.table:
        name = " with columns named," if found.matrices else ""
        return f"Explained: yes,{name} with explainer.background (rows to compare with)"
    why = "it answers no class and no quantity for each row" if not found.decides else "an input is no table"
    return f"Explained: no: {why}; leave explainer out, or name roles in predictor.model.inputs and outputs"


def _audited(found: Inspected) -> str:
    served = {tensor.served for tensor in found.graph.outputs}
    if not found.table:
        return "Audited:   journalled, masked, proved; bias needs a table with a label or a score"
    if "prediction" in served:
        return "Audited:   yes, by favorableOutcome.threshold or range of prediction"
    if "label" in served:
        return "Audited:   yes, by favorableOutcome.label"
    return "Audited:   journalled, masked, proved; bias needs an output of role label, which the graph hasn't"


def manifest_of(found: Inspected, name: str) -> str:
    """A manifest that serves the file, as YAML; columns that nobody has named are x1, x2 …"""
    called = _name(name or found.path.stem)
    lines = [
        f"apiVersion: {API_VERSION}",
        f"kind: {KIND}",
        f"metadata: {{name: {called}}}",
        "spec:",
        "  predictor:",
        "    model:",
        f"      storageUri: {json.dumps('file:' + str(found.path), ensure_ascii=False)}",
        f"      digest: {found.digest}",
    ]
    matrices = found.matrices if found.table else []
    if matrices:
        lines.append("      inputs:   # name the columns in the graph's order: they are the features of requests")
    for place, tensor in enumerate(matrices):
        prefix = "x" if len(matrices) == 1 else f"{'xyzuvw'[place % 6]}{place // 6 or ''}_"
        columns = ", ".join(f"{prefix}{k}" for k in range(1, tensor.shape[1] + 1))
        named = json.dumps(tensor.name, ensure_ascii=False)
        lines.append(f"      - {{name: {named}, role: tabular, columns: [{columns}]}}")
    if found.table:
        lines += [
            "  # explainer:",
            "  #   background: {uri: file:rows.csv, digest: sha256:…}   # training rows, a column for each feature",
        ]
    return "\n".join(lines) + "\n"


def _name(text: str) -> str:
    """A name that a model may have."""
    plain = "".join(c if c.isascii() and c.isalnum() else "-" for c in text.lower()).strip("-0123456789")
    return plain[:MAX_MODEL_NAME].strip("-") or "model"
