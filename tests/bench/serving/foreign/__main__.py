"""``python -m bench.serving.foreign``: foreign models, each imported, served and compared with bare ONNX Runtime."""

import asyncio
import hashlib
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from bench.serving.foreign.models import Foreign, downloaded, exported
from governed_api.datatypes import ONNX
from governed_api.resolved import ResolvedModel
from governed_serving.archive.fetching.imported import packed_import
from governed_serving.artefact import ArtefactError, decode_manifest, unpack
from governed_serving.server.admission import Admission
from governed_serving.server.dataplane import DataPlane
from governed_serving.server.identity import Identity
from governed_serving.server.metrics import ServerMetrics
from governed_serving.server.pipeline import PathRules, Pipeline
from governed_serving.server.predictors.onnx import OnnxPredictor, session
from governed_serving.server.protocol.v2 import V2Codec
from governed_serving.server.signature import NUMPY, Signature

AT_ONCE = 6
"""Requests that are sent together."""


def imported(model: Foreign, folder: Path) -> dict[str, bytes]:
    """The artefact's files, as the init container makes them. Raises ArtefactError."""
    path = folder / "model.onnx"
    path.write_bytes(model.data)
    digest = f"sha256:{hashlib.sha256(model.data).hexdigest()}"
    spec = {
        "predictor": {
            "model": {"storageUri": "file:m.onnx", "digest": digest, "inputs": model.inputs, "outputs": model.outputs}
        }
    }
    resolved = ResolvedModel.model_validate({"name": "m", "namespace": "default", "spec": spec})
    return unpack(packed_import(path, digest, resolved))


def feeds_of(model: Foreign, bare: Any, seed: int) -> dict[str, Any]:
    """What the bare graph is given: two rows, or the shape that the table names."""
    rng = np.random.default_rng(seed)
    feeds = {}
    for node in bare.get_inputs():
        shape = model.sizes.get(node.name) or [d if isinstance(d, int) and d > 0 else 2 for d in node.shape]
        dtype = NUMPY[ONNX[node.type]]
        if node.name in model.values:
            feeds[node.name] = np.full(shape, model.values[node.name]).astype(dtype)
        elif dtype.kind == "f":
            feeds[node.name] = rng.normal(size=shape).astype(dtype)
        else:
            feeds[node.name] = rng.integers(0, 2 if dtype.kind == "b" else 20, shape).astype(dtype)
    return feeds


def body_of(feeds: dict[str, Any], signature: Signature) -> bytes:
    """The V2 request that says the same."""
    tensors = []
    graph = signature.graph
    assert graph is not None, "an import has a graph"
    types = {tensor.name: tensor.datatype for tensor in graph.inputs}
    for name, values in feeds.items():
        tensors.append({
            "name": name, "shape": list(values.shape), "datatype": types[name], "data": values.ravel().tolist(),
        })  # fmt: skip
    return json.dumps({"inputs": tensors}).encode()


def wanted_of(bare: Any, feeds: dict[str, Any], signature: Signature) -> dict[str, Any]:
    """The bare graph's answer by the served names, maps as matrices."""
    assert signature.graph is not None, "an import has a graph"
    out = {}
    for tensor in signature.graph.outputs:
        (values,) = bare.run([tensor.name], feeds)
        if tensor.maps:
            values = np.array([[row[name] for name in tensor.classes] for row in values], NUMPY[tensor.datatype])
        out[tensor.served] = np.asarray(values)
    return out


async def served(files: dict[str, bytes], model: Foreign, bare: Any) -> tuple[bool, bool, DataPlane]:
    """Whether answers are the bare graph's bits, alone and sent together."""
    signature = Signature.of(decode_manifest(files["model.json"]))
    predictor = OnnxPredictor(files["model.onnx"], signature)
    metrics = ServerMetrics("default", "m")
    pipeline = Pipeline(Identity("m", "default", "r"), Admission(lambda: "", metrics), PathRules())
    plane, codec = DataPlane(pipeline, predictor), V2Codec(signature, "m", "r")
    await plane.warm_up()
    asked = [feeds_of(model, bare, seed) for seed in range(AT_ONCE)]

    async def right(feeds: dict[str, Any]) -> bool:
        response = await plane.infer(codec.decode(body_of(feeds, signature))[0])
        reply = json.loads(codec.encode(response).body)
        wanted = wanted_of(bare, feeds, signature)
        for output in reply["outputs"]:
            values = np.array(
                [np.nan if value is None else value for value in output["data"]], NUMPY[output["datatype"]]
            ).reshape(output["shape"])
            expected = wanted[output["name"]]
            if values.shape != expected.shape or not np.array_equal(values, expected, values.dtype.kind == "f"):
                return False
        return {output["name"] for output in reply["outputs"]} == set(wanted)

    alone = [await right(feeds) for feeds in asked]
    together = await asyncio.gather(*(right(feeds) for feeds in asked))
    await plane.close()
    return all(alone), all(together), plane


def row_of(model: Foreign) -> tuple[bool, str]:
    """Whether it is served with the bare graph's bits, and its line of the table."""
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        try:
            files = imported(model, Path(folder))
        except ArtefactError as error:
            return False, f"| {model.name} | refused: {error} | | | |"
    manifest = decode_manifest(files["model.json"])
    assert manifest.graph is not None, "an import has a graph"
    try:
        alone, together, plane = asyncio.run(served(files, model, session(model.data)))
    except Exception as error:  # the table says so
        return False, f"| {model.name} | {manifest.graph.unit} | failed: {type(error).__name__}: {error} | | |"
    merges = "merged" if plane.predictor.merges else "one by one"
    seconds = time.perf_counter() - started
    unit = manifest.graph.unit
    return (
        alone and together,
        f"| {model.name} | {unit}, {manifest.task} | {alone} | {together}, {merges} | {seconds:.1f} s |",
    )


def main() -> int:
    """0 when all but the two that may be missing are served."""
    ort.set_default_logger_severity(4)
    print("| model | unit, task | alone | together | time |\n|---|---|---|---|---|")
    good = total = 0
    for model in (*exported(), *downloaded()):
        if len(sys.argv) > 1 and not any(word in model.name for word in sys.argv[1:]):
            continue
        right, line = row_of(model)
        good, total = good + right, total + 1
        print(line, flush=True)
    print(f"\n{good} of {total} served, equal bit for bit to bare ONNX Runtime {ort.__version__}, alone and together")
    return 0 if good >= total - 2 else 1


if __name__ == "__main__":
    sys.exit(main())
