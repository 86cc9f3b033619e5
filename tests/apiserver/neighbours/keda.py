"""KEDA's own operator as a process on this machine, and what answers its queries in Prometheus's place."""

import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from support.apiserver_bed import ApiServerBed
from support.certificates import Authority
from support.ports import free_port
from support.processes import Process
from support.programs import program
from support.waiting import eventually

NAMESPACE = "keda"


@dataclass
class Answers:
    """What queries are answered (https://prometheus.io/docs/prometheus/latest/querying/api): by a word that they hold,
    else nothing."""

    values: dict[str, float] = field(default_factory=dict)
    broken: bool = False
    """500 to everything."""
    asked: list[str] = field(default_factory=list)
    url: str = ""

    def to(self, query: str) -> dict[str, Any]:
        self.asked.append(query)
        found = [value for word, value in self.values.items() if word in query]
        result = [{"metric": {}, "value": [0, str(value)]} for value in found[:1]]
        return {"status": "success", "data": {"resultType": "vector", "result": result}}


@contextmanager
def answering() -> Iterator[Answers]:
    """An HTTP server for the length of a with block."""
    answers = Answers()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            query = parse_qs(urlsplit(self.path).query).get("query", [""])[0]
            body = json.dumps(answers.to(query)).encode()
            self.send_response(500 if answers.broken else 200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        answers.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield answers
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def running_keda(bed: ApiServerBed, folder: Path) -> Iterator[Process]:
    """Its process, watching all namespaces; ended with the block."""
    bed.cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
    Authority.create(folder / "certs").issue("tls", "keda-operator", hosts=["127.0.0.1"])
    command = [
        str(program("keda-operator")),
        "--metrics-bind-address=0",
        f"--health-probe-bind-address=127.0.0.1:{free_port()}",
        f"--metrics-service-bind-address=127.0.0.1:{free_port()}",
        f"--cert-dir={folder / 'certs'}",
        "--enable-prometheus-metrics=false",
    ]
    process = Process("keda-operator", command, str(folder / "keda.log"))
    environment = {"WATCH_NAMESPACE": "", "POD_NAMESPACE": NAMESPACE, "KEDA_CLUSTER_OBJECT_NAMESPACE": NAMESPACE}
    process.start(
        {**os.environ, **environment, "KUBECONFIG": str(bed.kubeconfig_for("keda-operator", ["system:masters"]))}
    )
    try:
        eventually(lambda: "Starting workers" in process.tail(200), within=60, what="KEDA's operator watches")
        yield process
    finally:
        process.stop()
