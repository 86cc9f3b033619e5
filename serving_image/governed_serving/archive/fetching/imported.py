"""Models that were not trained here: an ONNX file or an artefact folder with an expected digest, as a packed
artefact."""

import hashlib
from pathlib import Path
from typing import Any, Literal

from governed_api.datatypes import ONNX
from governed_api.resolved import ResolvedModel
from governed_serving.archive.errors import Unverified
from governed_serving.artefact import Feature, Lineage, MalformedArtefact, Manifest, Output, encode_manifest, load, pack
from governed_serving.decoding import decode_json

__all__ = ["packed_import"]

_DTYPES: dict[str, Literal["FP32", "BYTES"]] = {"tensor(float)": "FP32", "tensor(string)": "BYTES"}


def packed_import(path: Path, expected: str, resolved: ResolvedModel) -> bytes:
    """Packed artefact of the model at ``path``, whose digest must be ``expected`` (``sha256:…``).

    A folder is an artefact already. An ONNX file gets a manifest from its graph: one input per feature, shape [-1, 1],
    as trained ones have. Raises :class:`Unverified`, MalformedArtefact, TamperedArtefact, FileNotFoundError.
    """
    if path.is_dir():
        found = load(path, expected)
        return pack({p.name: p.read_bytes() for p in path.iterdir() if p.name in {*found.manifest.files, "model.json"}})
    data = path.read_bytes()
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    if digest != expected:
        raise Unverified(f"{path}: expected digest {expected}, found {digest}: it is not served")
    return pack({"model.onnx": data, "model.json": encode_manifest(_manifest(data, resolved))})


def _manifest(data: bytes, resolved: ResolvedModel) -> Manifest:
    import onnxruntime

    try:
        session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has no common root for its errors
        raise MalformedArtefact(f"storageUri: not a model that ONNX Runtime loads: {error}") from error
    features = [_feature(i) for i in session.get_inputs()]
    outputs = [Output(o.name, ONNX.get(o.type, o.type), [-1, *_rest(o.shape)]) for o in session.get_outputs()]
    names = {o.name: o for o in outputs}
    classified = "probabilities" in names and "label" in names
    if not classified and "prediction" not in names:
        raise MalformedArtefact(
            f"storageUri: outputs must be probabilities and label, or prediction; found {', '.join(names)}"
        )
    bias = resolved.spec.governance.bias
    outcome = bias.favorable_outcome if bias else None
    digest = hashlib.sha256(data).hexdigest()
    return Manifest(
        name=resolved.name,
        task="classification" if classified else "regression",
        features=features,
        inputs=[f.name for f in features],
        outputs=outputs,
        label="label" if classified else "prediction",
        variant="float",
        lineage=Lineage(
            dataset="", training="imported", code=digest, versions={"onnxruntime": onnxruntime.__version__}
        ),
        files={"model.onnx": digest},
        classes=_classes(session, names) if classified else [],
        favorable=outcome.label if outcome else None,
        threshold=outcome.threshold if outcome else None,
        settings={"imported": True},
    )


def _feature(found: Any) -> Feature:
    if found.type not in _DTYPES or _rest(found.shape) not in ([], [1]):
        raise MalformedArtefact(
            f"storageUri: input {found.name} is {found.type} {found.shape}; expected one float or string input per feature, shape [-1, 1]"  # noqa: E501
        )
    numeric = found.type == "tensor(float)"
    return Feature(found.name, "numeric" if numeric else "categorical", _DTYPES[found.type])


def _classes(session: Any, outputs: dict[str, Output]) -> list[str | int]:
    """From the metadata property ``classes`` (a JSON list); otherwise 0 … K − 1."""
    listed = session.get_modelmeta().custom_metadata_map.get("classes")
    if listed:
        return decode_json(listed, type=list[str | int])
    width = outputs["probabilities"].shape[-1]
    if width < 1 or outputs["label"].dtype == "BYTES":
        raise MalformedArtefact("storageUri: the ONNX metadata property classes must list the classes as JSON")
    return list(range(width))


def _rest(shape: list[Any]) -> list[int]:
    return [d if isinstance(d, int) else -1 for d in shape[1:]]
