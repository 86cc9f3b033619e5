"""Graphs that others exported, asked by gRPC's raw contents and by JSON: every datatype comes back bit for bit."""

from typing import Any

import grpc.aio
import numpy as np
import pytest
from numpy.typing import NDArray

from governed_serving.server.app.fast_path import BodyRoom
from governed_serving.server.app.service import Gateway, HttpService
from governed_serving.server.protocol import binary
from governed_serving.server.rpc.service import RpcServer
from governed_serving.server.signature import NUMPY
from unit.importer.graphs import model, node, tensor
from unit.importer.test_trial import KINDS
from unit.server.planes import MemoryJournal
from unit.server.test_request_batch import Service
from unit.server.test_rpc import Client

ROWS: dict[str, list[Any]] = {name: ["n", 2] for name in KINDS}
WHOLE = {**ROWS, "BYTES": [], "FP64": ["a", None, 2], "BOOL": [2, 2]}


def mirror(shapes: dict[str, list[Any]]) -> bytes:
    """A graph that answers each of its tensors."""
    return model(
        [node("Identity", [name], [f"of {name}"]) for name in shapes],
        [tensor(name, shape, KINDS[name]) for name, shape in shapes.items()],
        [tensor(f"of {name}", shape, KINDS[name]) for name, shape in shapes.items()],
    )


def values(name: str, shape: list[Any]) -> NDArray[Any]:
    """Up to the ends of what the datatype holds."""
    sizes = [size if isinstance(size, int) else 2 for size in shape]
    if name == "BYTES":
        return np.full(sizes, "héllo ☃\u2028", object)
    dtype = NUMPY[name]
    most = {"b": 1, "f": 0.1}.get(dtype.kind) or np.iinfo(dtype).max
    return np.resize(np.array([most, 0], dtype), sizes)


async def asked_by_grpc(port: int, gateway: Gateway, sent: dict[str, NDArray[Any]]) -> Any:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        client = Client(channel, gateway, MemoryJournal(), BodyRoom(1))
        told = await client("ModelMetadata", name="m")
        assert {t.name: t.datatype for t in told.outputs} == {f"of {name}": name for name in sent}
        return await client(
            "ModelInfer",
            model_name="m",
            inputs=[{"name": n, "datatype": n, "shape": v.shape} for n, v in sent.items()],
            raw_input_contents=[binary.pack(n, v.ravel().tolist()) for n, v in sent.items()],
        )


@pytest.mark.parametrize("shapes", [ROWS, WHOLE], ids=["rows", "whole"])
async def test_every_datatype_by_grpc_and_json(shapes: dict[str, list[Any]]) -> None:
    service, sent = Service(mirror(shapes)), {name: values(name, shape) for name, shape in shapes.items()}
    gateway = Gateway("m", why="", service=HttpService(service.plane, service.codec))
    server = RpcServer(gateway, 1 << 20, BodyRoom(1 << 22))
    port = await server.start("127.0.0.1", 0)
    try:
        answer = await asked_by_grpc(port, gateway, sent)
    finally:
        await server.stop(0)
    for output, raw in zip(answer.outputs, answer.raw_output_contents, strict=True):
        given = sent[output.datatype]
        assert list(output.shape) == list(given.shape), output.name
        assert raw == binary.pack(output.datatype, given.ravel().tolist()), output.name
    asked = [{"name": n, "datatype": n, "shape": list(v.shape), "data": v.ravel().tolist()} for n, v in sent.items()]
    for name, output in (await service.ask(*asked)).items():
        given = sent[output["datatype"]]
        assert (output["shape"], output["data"]) == (list(given.shape), given.ravel().tolist()), name
    await service.plane.close()
