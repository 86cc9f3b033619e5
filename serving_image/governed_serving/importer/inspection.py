"""What an ONNX file is, what can be done with it, and the manifest that serves it: for people, on one screen."""

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path

from governed_api.model import Model
from governed_api.names import API_VERSION, KIND, MAX_MODEL_NAME
from governed_api.printable import printable
from governed_api.quantities import whole_bytes
from governed_api.regular_files import read_regular
from governed_serving.artefact import Graph, MalformedArtefact, Tensor
from governed_serving.formats import (
    BACKGROUND_BYTES,
    TrialAnswer,
    TrialRequest,
    content_of,
    header_of,
    run_trial,
    volume_for,
)
from governed_serving.formats.description import PROBABILITIES, SCORES

__all__ = ["Inspected", "inspected", "manifest_of", "model_name", "quoted", "screen"]

_PLAIN = re.compile(r"[A-Za-z_](?:[\w./-]|:(?! ))*", re.ASCII)
_WORDS = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false", "null"})
"""What YAML would take for something else than text."""
MAX_COLUMNS = 4096
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
        roles = {tensor.role for tensor in self.graph.outputs}
        return self.graph.unit == "row" and bool(roles & {"probabilities", "score"})

    @property
    def unnamed(self) -> Tensor | None:
        """Of a graph whose exporter named its outputs otherwise: the only one that may be what it decides."""
        floats = [t for t in self.graph.outputs if t.datatype.startswith("FP") and len(t.row) <= 1]
        if self.decides or self.graph.unit != "row" or len(floats) != 1:
            return None
        only = floats[0]
        wide = only.row not in ((), (1,))
        if wide and only.name in (*PROBABILITIES, *SCORES):  # it was tried whether it is what it is called
            return None
        return only if not wide or 2 <= only.row[0] <= MAX_COLUMNS else None

    @property
    def matrices(self) -> list[Tensor]:
        """Inputs that may be tables whose columns nobody has named."""
        if not self.decides and self.unnamed is None:
            return []
        return [t for t in self.graph.inputs if len(t.shape) == 2 and 1 < t.shape[1] <= MAX_COLUMNS and not t.columns]

    @property
    def table(self) -> bool:
        """All inputs are columns, once those of matrices are named, and what it decides."""
        matrices, decides = self.matrices, self.decides or self.unnamed is not None
        return decides and all(t in matrices or t.columns or t.row in ((), (1,)) for t in self.graph.inputs)


@dataclass(frozen=True)
class Rows:
    """Background rows, and how the manifest names their file."""

    uri: str
    digest: str
    header: list[str]

    @classmethod
    def read(cls, path: Path, uri: str) -> "Rows":
        """Raises MalformedArtefact where it has no header, OSError."""
        data = read_regular(path, BACKGROUND_BYTES, follow=True)
        return cls(uri, f"sha256:{hashlib.sha256(data).hexdigest()}", header_of(data))


def inspected(path: Path) -> Inspected:
    """Raises MalformedArtefact where it can't be served, OSError where it can't be read."""
    data = content_of(path)
    digest = hashlib.sha256(data).hexdigest()
    answer = run_trial(path, TrialRequest(str(path), digest=digest))
    assert answer.graph is not None, "what isn't refused has a graph"
    return Inspected(path, len(data), f"sha256:{digest}", answer, answer.graph)


def screen(inspected: Inspected) -> str:
    """The signature, what will and will not be explained and audited, the suggested manifest."""
    opsets = ", ".join(f"{domain} {version}" for domain, version in sorted(inspected.answer.opsets.items()))
    size = f"{inspected.size / 1024:,.0f} KiB"
    by = f"written by {inspected.answer.producer}, " if inspected.answer.producer else ""
    lines = [f"{inspected.path.name}: {by}opset {opsets}, {size}", inspected.digest, ""]
    lines += [_line("in ", tensor, inspected.graph.unit) for tensor in inspected.graph.inputs[:SHOWN]]
    lines += [_line("out", tensor, inspected.graph.unit) for tensor in inspected.graph.outputs[:SHOWN]]
    left = max(0, len(inspected.graph.inputs) - SHOWN) + max(0, len(inspected.graph.outputs) - SHOWN)
    lines += [f"     … and {left} more"] if left else []
    lines += [
        "",
        _answered(inspected),
        _explained(inspected),
        _audited(inspected),
        "",
        "Suggested manifest (governed init writes it):",
    ]
    lines += ["", *manifest_of(inspected, "", f"file:{inspected.path}").splitlines()]
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


def _answered(inspected: Inspected) -> str:
    if inspected.graph.unit == "request":
        return "Served:    each request is one call of the graph, bit for bit; no rows, so that nothing is merged"
    if inspected.answer.merges:
        return (
            "Served:    rows; requests that wait together share a call, shown to give each the bits that it gets alone"
        )
    return f"Served:    rows; each request is a call of its own ({inspected.answer.why})"


def _explained(inspected: Inspected) -> str:
    if inspected.table:
        named = [
            *(["columns named"] if inspected.matrices else []),
            *([f"the role of {inspected.unnamed.name!r} said"] if inspected.unnamed else []),
        ]
        also = f" with {' and '.join(named)}," if named else ""
        return f"Explained: yes,{also} with explainer.background (rows to compare with)"
    why = "it answers no class and no quantity for each row" if not inspected.decides else "an input is no table"
    return f"Explained: no: {why}; leave explainer out, or name roles in predictor.model.inputs and outputs"


def _audited(inspected: Inspected) -> str:
    roles = {tensor.role for tensor in inspected.graph.outputs}
    if inspected.table and inspected.unnamed and inspected.unnamed.row in ((), (1,)):
        name = inspected.unnamed.name
        return f"Audited:   yes, by favorableOutcome.threshold or range, with role score of {name!r} said"
    if not inspected.table:
        return "Audited:   journalled, masked, proved; bias needs a table with a label or a score"
    if "score" in roles:
        return "Audited:   yes, by favorableOutcome.threshold or range of prediction"
    if "label" in roles:
        return "Audited:   yes, by favorableOutcome.label"
    return "Audited:   journalled, masked, proved; bias needs an output of role label, which the graph hasn't"


def manifest_of(inspected: Inspected, name: str, uri: str, rows: Rows | None = None) -> str:
    """A manifest that serves the file, as YAML; columns that nobody has named are those of ``rows``, else x1, x2 …
    Raises MalformedArtefact where ``rows`` don't fit."""
    called, needed = model_name(name or inspected.path.stem), volume_for(inspected.size)
    lines = [
        f"apiVersion: {API_VERSION}",
        f"kind: {KIND}",
        f"metadata: {{name: {called}}}",
        "spec:",
        "  predictor:",
        "    model:",
        f"      storageUri: {quoted(uri)}",
        f"      digest: {inspected.digest}",
        *([f"      volumeSize: {needed}"] if whole_bytes(needed) > whole_bytes(Model().room) else []),
    ]
    matrices = inspected.matrices if inspected.table else []
    columns = _columns(inspected, matrices, rows)
    if matrices:
        told = f"as {rows.uri} names them" if rows else "name the columns"
        lines.append(f"      inputs:   # {told}, in the graph's order: they are the features of requests")
    for tensor, names in zip(matrices, columns, strict=True):
        lines.append(f"      - {{name: {quoted(tensor.name)}, role: tabular, columns: [{', '.join(names)}]}}")
    if inspected.table and inspected.unnamed:
        lines += _role(inspected.unnamed, asked=rows is not None)
    if rows:
        lines += ["  explainer:", f"    background: {{uri: {quoted(rows.uri)}, digest: {rows.digest}}}"]
    elif inspected.table:
        lines += [
            "  # explainer:",
            "  #   background: {uri: file:rows.csv, digest: sha256:…}   # training rows, a column for each feature",
        ]
    return "\n".join([*lines, *_bias(inspected)]) + "\n"


def _role(output: Tensor, *, asked: bool) -> list[str]:
    """What the graph decides, as its exporter didn't say; a comment where nothing needs it."""
    role = "role: score"
    if output.row not in ((), (1,)):
        names = ", ".join(f'"{k}"' for k in range(output.row[0]))
        role = f"role: probabilities, classes: [{names}]"
    told = "what is explained: is it that? logits of classes aren't" if "classes" in role else "what is explained"
    lines = [f"outputs:   # {told}", f"- {{name: {quoted(output.name)}, {role}}}"]
    return [f"      {'' if asked else '# '}{line}" for line in lines]


def _bias(inspected: Inspected) -> list[str]:
    """How bias would be audited, as a comment: whom it is about and what favours them only a person knows."""
    roles = {tensor.role: tensor for tensor in inspected.graph.outputs}
    score = inspected.unnamed is not None and inspected.unnamed.row in ((), (1,))
    if not inspected.table or not (score or roles.keys() & {"label", "score"}):
        return []
    classes = roles["probabilities"].classes if "probabilities" in roles else []
    outcome = f"label: {json.dumps(str(classes[-1]), ensure_ascii=False)}" if classes else "threshold: 0"
    return [
        "  # governance:",
        "  #   bias:",
        "  #     protectedAttributes: [{name: …}]",
        f"  #     favorableOutcome: {{{outcome}}}",
        "  #     metrics: [{name: disparateImpactRatio, thresholdLower: 0.8}]",
    ]


def _columns(inspected: Inspected, matrices: list[Tensor], rows: Rows | None) -> list[list[str]]:
    """Names of each matrix's columns, as YAML has them. Raises MalformedArtefact."""
    widths = [tensor.shape[1] for tensor in matrices]
    if rows is None:
        prefixes = ["x"] if len(widths) == 1 else [f"{'xyzuvw'[k % 6]}{k // 6 or ''}_" for k in range(len(widths))]
        return [[f"{p}{k}" for k in range(1, width + 1)] for p, width in zip(prefixes, widths, strict=True)]
    if not inspected.table:
        raise MalformedArtefact(f"background: {_explained(inspected).removeprefix('Explained: ')}")
    columns = [tensor.served for tensor in inspected.graph.inputs if tensor not in matrices]
    left = [name for name in rows.header if name not in columns]
    if absent := [name for name in columns if name not in rows.header]:
        raise MalformedArtefact(f"background: expected a column {absent[0]!r}, as the model's input is named")
    if matrices and len(left) != sum(widths):
        raise MalformedArtefact(
            f"background: expected {sum(widths)} columns for the matrix that the graph takes, in its order, found "
            f"{len(left)} ({', '.join(left)[:200]}); leave out what the model isn't given, such as the label"
        )
    names = iter(map(quoted, left))
    return [[next(names) for _ in range(width)] for width in widths]


def quoted(text: str) -> str:
    """As YAML has it: plain where that is safe."""
    return text if _PLAIN.fullmatch(text) and text.lower() not in _WORDS else json.dumps(text, ensure_ascii=False)


def model_name(text: str) -> str:
    """A name that a model may have."""
    plain = "".join(c if c.isascii() and c.isalnum() else "-" for c in text.lower()).lstrip("-0123456789")
    return plain[:MAX_MODEL_NAME].rstrip("-") or "model"
