"""Models that were not trained here: an ONNX file or an artefact folder with an expected digest, as a packed
artefact."""

import hashlib
from importlib.metadata import version
from pathlib import Path
from typing import Literal, cast

import msgspec

from governed_api.datatypes import BYTES
from governed_api.governance import FavorableOutcome
from governed_api.model import GovernedModelSpec
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
from governed_serving.artefact.package import BACKGROUND, MANIFEST, MODEL, TOKENIZER
from governed_serving.formats import (
    BACKGROUND_BYTES,
    Said,
    TrialRequest,
    background_columns,
    content_of,
    is_text_folder,
    read_text_folder,
    run_trial,
    text_manifest,
    volume_for,
)
from governed_serving.formats.text_folder import TEXT_INPUT
from governed_serving.sources import Differs, SourceError, Tree

__all__ = ["packed_import", "verified_tree"]


def packed_import(path: Path, expected: str, resolved: ResolvedModel, base: Path = Path()) -> bytes:
    """Packed artefact of the model at ``path``, whose digest must be ``expected`` (``sha256:…``). ``base``: where URIs
    of further files begin.

    A folder is an artefact already, or has a tokenizer beside its graph. An ONNX file gets a manifest from its graph
    and what the spec says of its tensors, after it was run through the server's own parts (importer). Raises
    :class:`Unverified`, MalformedArtefact, TamperedArtefact, FileNotFoundError.
    """
    if path.is_dir() and is_text_folder(path):
        return _packed_text(path, expected, resolved)
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


def verified_tree(place: Path, expected: str, uri: str) -> Tree:
    """The files at ``place``, which ``uri`` names to people. Raises Unverified where their digest isn't ``expected``,
    MalformedArtefact for names, links and pickles that none are served of."""
    try:
        tree = Tree.of(place)
        tree.check(expected, {}, uri)
    except Differs as error:
        raise Unverified(str(error)) from None
    except SourceError as error:
        raise MalformedArtefact(str(error)) from None
    return tree


def _packed_text(folder: Path, expected: str, resolved: ResolvedModel) -> bytes:
    """Of a folder with a tokenizer, whose digest is the one over its files. Raises Unverified, MalformedArtefact."""
    tree = verified_tree(folder, expected, str(folder))
    digests = {file.path: file.sha256 for file in tree.files}
    files = read_text_folder(folder, digests)
    _fits_volume(len(files.model) + len(files.tokenizer), resolved)
    limit = resolved.spec.predictor.model.resources.limits.get("memory", "")
    memory = whole_bytes(limit) if limit else 0
    answer = run_trial(folder, TrialRequest(str(folder), memory=memory, digests=digests)).text
    assert answer is not None, "what isn't refused has an answer"
    lineage = Lineage(dataset="", training="imported", code=digests[files.path], versions=_versions())
    manifest = text_manifest(resolved.name, answer, _attributes(resolved), lineage)
    _fits_rules(manifest, resolved)
    outcome = resolved.spec.governance.bias.favorable_outcome if resolved.spec.governance.bias else None
    listed = {MODEL: digests[files.path], TOKENIZER: digests[TOKENIZER]}
    manifest = msgspec.structs.replace(
        manifest,
        files=listed,
        favorable=outcome.label if outcome else None,
        threshold=outcome.threshold if outcome else None,
    )
    return pack({MODEL: files.model, TOKENIZER: files.tokenizer, MANIFEST: encode_manifest(manifest)})


def _versions() -> dict[str, str]:
    import onnxruntime

    return {"onnxruntime": onnxruntime.__version__, "tokenizers": version("tokenizers")}


def _attributes(resolved: ResolvedModel) -> list[Feature]:
    """What requests say of whom a text is about, for the audit. Raises MalformedArtefact."""
    governance = resolved.spec.governance
    bias, person = governance.bias, governance.privacy.subject
    banded = {attribute.name: bool(attribute.bands) for attribute in bias.protected_attributes} if bias else {}
    banded |= {name: False for name in (bias.strata if bias else ()) if name not in banded}
    if person and person not in banded:
        banded[person] = False
    if TEXT_INPUT in banded:
        raise MalformedArtefact(
            f"governance: expected attributes of requests, such as sex, found {TEXT_INPUT!r}, which is the text itself"
        )
    return [
        Feature(name, "numeric", "FP32") if numbers else Feature(name, "categorical", "BYTES")
        for name, numbers in banded.items()
    ]


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
    if manifest.text is not None:
        _fits_texts(manifest, spec)
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


def _fits_texts(manifest: Manifest, spec: GovernedModelSpec) -> None:
    """Raises MalformedArtefact for rules that a model of texts can't have."""
    model, explainer = spec.predictor.model, spec.explainer
    for field, given in (("inputs", model.inputs), ("outputs", model.outputs)):
        if given:
            raise MalformedArtefact(
                f"predictor.model.{field}: expected none beside a tokenizer, which says what the graph takes; leave "
                f"{field} out"
            )
    for field, asked in (("explainer", explainer), ("governance.bias", spec.governance.bias)):
        if asked is not None and manifest.task == "tensors":
            raise MalformedArtefact(
                f"{field}: expected a model that decides something, found embeddings; leave {field} out, or bring a "
                "classifier"
            )
    if explainer is None:
        return
    if explainer.type not in ("shap", "lime") or explainer.engine or explainer.config.groups:
        raise MalformedArtefact(
            "explainer: expected type shap or lime of our own, without groups, for texts, found another; the words "
            "of a text are explained"
        )
    if explainer.background is not None:
        raise MalformedArtefact(
            "explainer.background: expected none for texts, whose words are left out, found rows; leave it out"
        )


def _fits_outcome(manifest: Manifest, outcome: FavorableOutcome) -> None:
    """Raises MalformedArtefact where no answer could be favourable: all would count as unfavourable."""
    field, classes = "governance.bias.favorableOutcome", [str(c) for c in manifest.classes]
    if manifest.task == "regression" and outcome.threshold is None:
        raise MalformedArtefact(f"{field}: expected threshold, since the model predicts a number, found none; name it")
    if manifest.task == "classification" and outcome.label not in classes:
        label = "none" if outcome.label is None else repr(outcome.label)
        alike = class_meant(outcome.label or "", classes)
        meant = "; name the one that favours a person" if alike is None else f"; did you mean {alike!r}?"
        raise MalformedArtefact(
            f"{field}.label: expected a class of the model ({', '.join(classes)[:400]}), found {label}{meant}"
        )


def _background(manifest: Manifest, resolved: ResolvedModel, base: Path) -> bytes | None:
    """background.json, where the spec gives rows. Raises Unverified, MalformedArtefact."""
    explainer, model = resolved.spec.explainer, resolved.spec.predictor.model
    if explainer is None or manifest.text is not None:
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
