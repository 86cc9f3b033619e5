"""Models that were not trained here: an ONNX file or an artefact folder with an expected digest, as a packed
artefact."""

import hashlib
from pathlib import Path
from typing import Literal, cast

import msgspec

from governed_api.datatypes import BYTES
from governed_api.governance import FavorableOutcome
from governed_api.quantities import whole_bytes
from governed_api.regular_files import read_regular
from governed_api.resolved import ResolvedModel
from governed_api.storage import claim_of, file_of
from governed_serving.archive.errors import Unverified
from governed_serving.artefact import (
    Feature,
    Graph,
    Lineage,
    MalformedArtefact,
    Manifest,
    Output,
    Untried,
    class_meant,
    decode_manifest,
    encode_manifest,
    pack,
    packed_folder,
)
from governed_serving.artefact.package import BACKGROUND, MANIFEST, MODEL
from governed_serving.formats import (
    BACKGROUND_BYTES,
    Said,
    TrialRequest,
    background_columns,
    content_of,
    run_trial,
    volume_for,
)
from governed_serving.sources import SourceError, Tree

__all__ = ["packed_import"]


def packed_import(path: Path, expected: str, resolved: ResolvedModel, base: Path = Path()) -> bytes:
    """Packed artefact of the model at ``path``, whose digest must be ``expected`` (``sha256:…``). ``base``: where URIs
    of further files begin.

    A folder is an artefact already. An ONNX file gets a manifest from its graph and what the spec says of its tensors,
    after it was run through the server's own parts (importer). Raises :class:`Unverified`, MalformedArtefact,
    TamperedArtefact, FileNotFoundError.
    """
    if path.is_dir():
        pinned = _pinned(path, expected)
        packed, held = packed_folder(path, "" if pinned else expected)
        for name, content in held.items() if pinned else ():
            if pinned.get(name) != hashlib.sha256(content).hexdigest():
                raise Unverified(f"{path / name}: it was changed while it was read: it is not served")
        _fits_rules(decode_manifest(held[MANIFEST]), resolved)
        return packed
    data = content_of(path)
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    if digest != expected:
        raise Unverified(f"{path}: expected digest {expected}, found {digest}: it is not served")
    _fits_volume(len(data), resolved)
    manifest, files = _manifest(path, data, resolved), {MODEL: data}
    _fits_rules(manifest, resolved)
    if (rows := _background(manifest, resolved, base)) is not None:
        files[BACKGROUND] = rows
    listed = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    return pack({**files, MANIFEST: encode_manifest(msgspec.structs.replace(manifest, files=listed))})


def _fits_volume(size: int, resolved: ResolvedModel) -> None:
    """Raises MalformedArtefact where a pod's volume has no room for the file and what lies beside it."""
    room, needed = resolved.spec.predictor.model.room, volume_for(size)
    if whole_bytes(room) < whole_bytes(needed):
        raise MalformedArtefact(
            f"predictor.model.volumeSize: expected room for the file's {size >> 20} MiB, found {room}; say {needed}, "
            "or compress it"
        )


def _pinned(folder: Path, expected: str) -> dict[str, str]:
    """SHA-256 by file, where the digest is the one over the folder's files, as `governed pin` prints it, and not that
    of the package."""
    try:
        tree = Tree.of(folder)
    except SourceError:
        return {}
    return {file.path: file.sha256 for file in tree.files} if tree.digest == expected else {}


def _fits_rules(manifest: Manifest, resolved: ResolvedModel) -> None:
    """Raises MalformedArtefact for rules that need what the graph hasn't."""
    spec, table = resolved.spec, manifest.features and manifest.task != "tensors"
    for field, asked in (("explainer", spec.explainer), ("governance.bias", spec.governance.bias)):
        if asked is not None and not table:
            raise MalformedArtefact(
                f"{field}: expected a table, found a graph without: name its columns in predictor.model.inputs (role "
                "tabular, columns) and an output of role probabilities or score in predictor.model.outputs; or leave "
                f"{field} out"
            )
    names = [feature.name for feature in manifest.features]
    bias = spec.governance.bias
    if bias is not None and manifest.task == "classification" and "label" not in {o.name for o in manifest.outputs}:
        raise MalformedArtefact(
            "governance.bias: expected an output of role label, found none; export the graph with its label"
        )
    if bias is not None:
        _fits_outcome(manifest, bias.favorable_outcome)
    for attribute in bias.protected_attributes if bias else ():
        if attribute.name not in names:
            raise MalformedArtefact(
                "governance.bias.protectedAttributes: expected some of the model's columns "
                f"({', '.join(names)[:400]}), found {attribute.name!r}"
            )


def _fits_outcome(manifest: Manifest, outcome: FavorableOutcome) -> None:
    """Raises MalformedArtefact where no answer could be favourable: all would count as unfavourable."""
    field, classes = "governance.bias.favorableOutcome", [str(c) for c in manifest.classes]
    if manifest.task == "regression" and outcome.threshold is None:
        raise MalformedArtefact(f"{field}: expected threshold, since the model predicts a number, found none; name it")
    if manifest.task == "classification" and outcome.label not in classes:
        found = "none" if outcome.label is None else repr(outcome.label)
        alike = class_meant(outcome.label or "", classes)
        meant = "; name the one that favours a person" if alike is None else f"; did you mean {alike!r}?"
        raise MalformedArtefact(
            f"{field}.label: expected a class of the model ({', '.join(classes)[:400]}), found {found}{meant}"
        )


def _background(manifest: Manifest, resolved: ResolvedModel, base: Path) -> bytes | None:
    """background.json, where the spec gives rows. Raises Unverified, MalformedArtefact."""
    explainer, model = resolved.spec.explainer, resolved.spec.predictor.model
    if explainer is None:
        return None
    given = explainer.background
    if given is None:
        raise MalformedArtefact(
            "explainer: expected explainer.background, rows that explanations compare with, found none; name a CSV "
            "file (uri, digest), or give some rows (inline)"
        )
    if given.uri is None:
        content = (given.inline or "").encode()
    else:
        if model.is_mounted and claim_of(given.uri) != claim_of(model.storage_uri):
            raise MalformedArtefact(
                f"explainer.background.uri: expected a file on the volume of storageUri ({model.storage_uri}), found "
                f"{given.uri}; put it beside the model"
            )
        try:
            content = read_regular(file_of(given.uri, base), BACKGROUND_BYTES, follow=True)
        except (OSError, ValueError) as error:
            raise Untried(f"explainer.background.uri: expected a readable file, found: {error}") from error
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        if digest != given.digest:
            raise Unverified(f"{given.uri}: expected digest {given.digest}, found {digest}: nothing is explained by it")
    return msgspec.json.encode({"columns": background_columns(content, manifest.features)}, order="deterministic")


def _manifest(path: Path, data: bytes, resolved: ResolvedModel) -> Manifest:
    model = resolved.spec.predictor.model
    limit = model.resources.limits.get("memory", "")
    request = TrialRequest(
        str(path),
        cast(list[Said], [tensor.plain() for tensor in model.inputs or ()]),
        cast(list[Said], [tensor.plain() for tensor in model.outputs or ()]),
        whole_bytes(limit) if limit else 0,
        hashlib.sha256(data).hexdigest(),
    )
    graph = run_trial(path, request).graph
    assert graph is not None, "what isn't refused has a graph"
    return _described(graph, hashlib.sha256(data).hexdigest(), resolved)


def _described(graph: Graph, digest: str, resolved: ResolvedModel) -> Manifest:
    import onnxruntime

    roles = {tensor.role: tensor for tensor in graph.outputs}
    task: Literal["classification", "regression", "tensors"] = "tensors"
    if graph.unit == "row" and "probabilities" in roles and roles["probabilities"].classes:
        task = "classification"
    elif graph.unit == "row" and "score" in roles:
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
        classes=roles["probabilities"].classes if task == "classification" else [],
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
