"""Random valid specs: the API server takes whatever we render for them."""

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from operator_bed import DIGEST, model

from governed_api.model import GovernedModel
from governed_api.resolved import ResolvedModel
from governed_api.validation import validate
from governed_operator.local.rendering import render
from governed_operator.settings import Capabilities, OperatorSettings
from support.cluster_access import Cluster

QUANTITIES = st.sampled_from(["100m", "0.5", "1", "1000m", "2"])
MEMORY = st.sampled_from(["128Mi", "1024Mi", "0.5Gi", "1Gi"])
RESOURCES = st.fixed_dictionaries({"requests": st.fixed_dictionaries({"cpu": QUANTITIES, "memory": MEMORY})})
SOURCES = st.sampled_from(
    [
        {"model": {"storageUri": "pvc://models/m.onnx", "digest": DIGEST}},
        {"model": {"storageUri": "s3://models/m.onnx", "digest": DIGEST, "storage": {"secretRef": {"name": "reader"}}}},
        {"model": {"modelFormat": {"name": "runtime"}, "runtime": {"image": "vllm:1", "args": ["--port", "9000"]}}},
        None,
    ]
)
TRAINING = {"data": {"inline": "x,ok\n0,no\n1,yes\n", "label": "ok", "features": [{"name": "x"}]}}


@st.composite
def specs(draw: st.DrawFn) -> dict[str, Any]:
    source = draw(SOURCES)
    low = draw(st.integers(1, 4))
    predictor = {
        **(source or {}),
        "minReplicas": low,
        "maxReplicas": draw(st.integers(low, 6)),
        "timeout": draw(st.integers(1, 90)),
    }
    predictor["scaleMetric"] = draw(st.sampled_from(["cpu", "memory", "concurrency", "rps"]))
    spec: dict[str, Any] = {"predictor": predictor, "suspend": draw(st.booleans())}
    if source is None:
        spec["lifecycle"] = {"training": {**TRAINING, "resources": draw(RESOURCES)}}
    if source is None or "runtime" not in source["model"]:
        rows = {"background": {"inline": "x\n0\n1\n"}} if source else {}  # a trained model's artefact has its own
        spec |= draw(st.sampled_from([{}, {"explainer": {"type": "lime", "sampling": 0.5, **rows}}]))
    compute = st.fixed_dictionaries({"cpu": QUANTITIES, "memory": MEMORY})
    spec["quota"] = draw(st.sampled_from([{}, {"store": "redis://r.s.svc:6380"}])) | draw(
        st.one_of(st.just({}), st.fixed_dictionaries({"compute": compute}))
    )
    return spec


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(spec=specs())
@pytest.mark.usefixtures("defined")
def test_whatever_is_rendered_is_accepted(namespace: Cluster, spec: dict[str, Any]) -> None:
    manifest = model("random", spec)
    manifest["metadata"]["namespace"] = namespace.namespace
    assert validate(manifest) == []
    resolved = ResolvedModel.of(GovernedModel.model_validate(manifest))
    text = render(resolved, DIGEST, OperatorSettings(), Capabilities())
    namespace.kubectl("apply", "--server-side", "--dry-run=server", "-f", "-", stdin=text)
