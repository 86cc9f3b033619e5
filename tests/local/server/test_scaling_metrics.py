"""What autoscalers are told to look at is what a real server process exports."""

import re
from collections.abc import Callable
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from governed_api.model import GovernedModel
from governed_api.resolved import ResolvedModel
from governed_operator.desired.autoscaling import horizontal_pod_autoscaler, scaled_object
from governed_operator.desired.manifest import Subject
from governed_operator.settings import Capabilities, OperatorSettings
from local.server.test_process import DIGEST, Server, start  # noqa: F401  # the fixture
from unit.server.tabular_model import v2_body

SELECTOR = re.compile(r'([a-z_:]+)\{namespace="([^"]+)",name="([^"]+)"\}')


def subject(metric: str, *, keda: bool) -> Subject:
    predictor = {
        "model": {"storageUri": "file:m.onnx", "digest": DIGEST}, "maxReplicas": 3, "scaleMetric": metric, "scaleTarget": 9,  # noqa: E501
    }  # fmt: skip
    document = {
        "apiVersion": "governedmodels.io/v1alpha1", "kind": "GovernedModel", "metadata": {"name": "credit"},
        "spec": {"predictor": predictor},
    }  # fmt: skip
    model = ResolvedModel.of(GovernedModel.model_validate(document))
    return Subject(
        model, settings=OperatorSettings(prometheus="http://prometheus:9090"), capabilities=Capabilities(keda=keda)
    )


def samples(text: str) -> list[Any]:
    return [s for family in text_string_to_metric_families(text) for s in family.samples]


def test_queries_and_metric_names_find_what_the_server_exports(start: Callable[..., Server]) -> None:  # noqa: F811
    server = start().ready()
    assert server.http.post("/v2/models/credit/infer", json=v2_body()).status_code == 200
    found = samples(server.http.get("/metrics").text)
    for metric in ("concurrency", "rps"):
        keda = scaled_object(subject(metric, keda=True))
        assert keda is not None
        match = SELECTOR.search(keda["spec"]["triggers"][0]["metadata"]["query"])
        assert match is not None
        series, namespace, name = match.groups()
        selected = [
            s for s in found if s.name == series and (s.labels["namespace"], s.labels["name"]) == (namespace, name)
        ]
        assert selected, f"{series} is not exported"
        assert sum(s.value for s in selected) == {"concurrency": 0.0, "rps": 1.0}[metric]
        hpa = horizontal_pod_autoscaler(subject(metric, keda=False))
        assert hpa is not None
        pods_metric = hpa["spec"]["metrics"][0]["pods"]["metric"]["name"]
        # prometheus-adapter: a gauge keeps its name, a counter x_total is served as the rate x_per_second
        assert pods_metric.replace("_per_second", "_total") == series
