"""Models that were not trained here: an ONNX file or an artefact folder with an expected digest, as a packed
artefact."""

import hashlib
from pathlib import Path
from typing import Literal, cast

from governed_api.datatypes import BYTES
from governed_api.quantities import whole_bytes
from governed_api.resolved import ResolvedModel
from governed_serving.archive.errors import Unverified
from governed_serving.artefact import (
    Feature,
    Graph,
    Lineage,
    Manifest,
    Output,
    encode_manifest,
    load,
    pack,
)
from governed_serving.formats import Said, TrialRequest, run_trial

__all__ = ["packed_import"]


def packed_import(path: Path, expected: str, resolved: ResolvedModel) -> bytes:
    """Packed artefact of the model at ``path``, whose digest must be ``expected`` (``sha256:…``).

    A folder is an artefact already. An ONNX file gets a manifest from its graph and what the spec says of its tensors,
    after it was run through the server's own parts (importer). Raises :class:`Unverified`, MalformedArtefact,
    TamperedArtefact, FileNotFoundError.
    """
    if path.is_dir():
        found = load(path, expected)
        return pack({p.name: p.read_bytes() for p in path.iterdir() if p.name in {*found.manifest.files, "model.json"}})
    data = path.read_bytes()
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    if digest != expected:
        raise Unverified(f"{path}: expected digest {expected}, found {digest}: it is not served")
    return pack({"model.onnx": data, "model.json": encode_manifest(_manifest(path, data, resolved))})


def _manifest(path: Path, data: bytes, resolved: ResolvedModel) -> Manifest:
    model = resolved.spec.predictor.model
    limit = model.resources.limits.get("memory", "")
    request = TrialRequest(
        str(path),
        cast(list[Said], [tensor.plain() for tensor in model.inputs or ()]),
        cast(list[Said], [tensor.plain() for tensor in model.outputs or ()]),
        whole_bytes(limit) if limit else 0,
    )
    graph = run_trial(path, request).graph
    assert graph is not None, "what isn't refused has a graph"
    return _described(graph, hashlib.sha256(data).hexdigest(), resolved)


def _described(graph: Graph, digest: str, resolved: ResolvedModel) -> Manifest:
    import onnxruntime

    served = {tensor.served: tensor for tensor in graph.outputs}
    task: Literal["classification", "regression", "tensors"] = "tensors"
    if graph.unit == "row" and "probabilities" in served and served["probabilities"].classes:
        task = "classification"
    elif graph.unit == "row" and "prediction" in served:
        task = "regression"
    bias = resolved.spec.governance.bias
    outcome = bias.favorable_outcome if bias else None
    features = _features(graph)
    labels = {"classification": "label", "regression": "prediction"}
    return Manifest(
        name=resolved.name,
        task=task,
        features=features,
        inputs=[feature.name for feature in features],
        outputs=[Output(tensor.served, tensor.datatype, tensor.shape) for tensor in graph.outputs],
        label=labels.get(task, ""),
        variant="float",
        lineage=Lineage(
            dataset="", training="imported", code=digest, versions={"onnxruntime": onnxruntime.__version__}
        ),
        files={"model.onnx": digest},
        classes=served["probabilities"].classes if task == "classification" else [],
        favorable=outcome.label if outcome else None,
        threshold=outcome.threshold if outcome else None,
        settings={"imported": True},
        graph=graph,
    )


def _features(graph: Graph) -> list[Feature]:
    """The columns of the model's tables: of matrices with named columns, and of inputs of one value for each row."""
    if graph.unit == "request":
        return []
    return [
        Feature(
            name,
            "categorical" if tensor.datatype == BYTES else "numeric",
            tensor.datatype,
            missing="impute" if tensor.accepts_missing else "refuse",
        )
        for tensor in graph.inputs
        if tensor.columns or tensor.row in ((), (1,))
        for name in tensor.columns or [tensor.served]
    ]
