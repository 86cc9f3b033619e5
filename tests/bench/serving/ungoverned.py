"""Our server without its duties: no quota, no masking, no journal. Not a product mode: composed here, for the
comparison alone."""

import asyncio
import sys
from pathlib import Path

import uvloop

from governed_serving.artefact import load
from governed_serving.hosting import listen, web_server
from governed_serving.server.admission import Admission
from governed_serving.server.app.connection import FastPathConnection
from governed_serving.server.app.fast_path import FastPathApp
from governed_serving.server.app.routes import application
from governed_serving.server.app.service import Gateway, HttpService
from governed_serving.server.dataplane import DataPlane
from governed_serving.server.identity import Identity
from governed_serving.server.metrics import ServerMetrics
from governed_serving.server.pipeline import PathRules, Pipeline
from governed_serving.server.predictors.onnx import OnnxPredictor
from governed_serving.server.protocol.v2 import V2Codec
from governed_serving.server.signature import Signature


async def main(port: int, folder: Path) -> None:
    artefact = load(folder)
    signature = Signature.of(artefact.manifest)
    gateway, metrics = Gateway("credit", why=""), ServerMetrics("default", "credit")
    pipeline = Pipeline(Identity("credit", "default", "r1"), Admission(lambda: gateway.why, metrics), PathRules())
    plane = DataPlane(pipeline, OnnxPredictor(artefact.model, signature, threads=1))
    await plane.warm_up()
    gateway.service = HttpService(plane, V2Codec(signature, "credit", "r1"))
    server = web_server(
        FastPathApp(gateway, application(gateway), 1 << 26),
        grace=60,
        http=FastPathConnection,
        timeout_keep_alive=75,
        backlog=2048,
    )
    await server.serve([listen("127.0.0.1", port)])


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main(int(sys.argv[1]), Path(sys.argv[2])))
