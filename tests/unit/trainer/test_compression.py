"""int8 with a scale per row: close to float at every magnitude; one with a scale over the batch doesn't ship."""

import logging
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from governed_api.lifecycle import Compression
from governed_serving.trainer import pipeline
from governed_serving.trainer.compression import compress
from governed_serving.trainer.export import plain
from governed_serving.trainer.preprocessing import session
from unit.trainer.batch_scaled import batch_scaled
from unit.trainer.manifests import ADMISSIONS_BIAS, admissions, resolved
from unit.trainer.neighbours import Workplace

WEIGHTS = np.random.default_rng(2).normal(size=(6, 3)).astype(np.float32)


def product(operator: str) -> onnx.ModelProto:
    transposed = operator == "Gemm"
    inputs = ["x", "w", "b"] if transposed else ["x", "w"]
    node = helper.make_node(operator, inputs, ["y"], name="n", **({"transB": 1} if transposed else {}))
    weights = [numpy_helper.from_array(WEIGHTS.T.copy() if transposed else WEIGHTS, "w")]
    if transposed:
        weights.append(numpy_helper.from_array(np.arange(3, dtype=np.float32), "b"))
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["batch", k]) for n, k in (("x", 6), ("y", 3))]
    graph = helper.make_graph([node], "g", ends[:1], ends[1:], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


@pytest.mark.parametrize("method", ["dynamicInt8", "staticInt8"])
def test_what_is_logged_after_a_compression_is_heard_as_before(method: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    compress(product("MatMul"), Compression(method=method), {"x": np.ones((4, 6), np.float32)})  # type: ignore[arg-type]
    logging.getLogger("another").warning("heard")
    assert [record.getMessage() for record in caplog.records] == ["heard"]


@pytest.mark.parametrize("operator", ["Gemm", "MatMul"])
def test_each_row_has_its_own_scale(operator: str) -> None:
    rows = np.random.default_rng(4).normal(size=(50, 6)).astype(np.float32)
    rows *= (10.0 ** np.linspace(-6, 12, 50)).astype(np.float32)[:, None]
    rows[7] = 0
    small, variant = compress(product(operator), Compression(method="dynamicInt8"), {"x": rows})
    found = session(small, "all").run(None, {"x": rows})[0]
    expected = rows @ WEIGHTS + (np.arange(3, dtype=np.float32) if operator == "Gemm" else 0)
    room = np.abs(rows).max(1, keepdims=True) * np.abs(WEIGHTS).max() * 6 / 127 + 1e-6 * np.abs(expected)
    assert variant == "int8"
    assert (np.abs(found - expected) <= room).all()
    assert any(t.data_type == TensorProto.INT8 for t in small.graph.initializer)


def test_a_candidate_whose_rows_depend_on_each_other_does_not_ship(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "compress", lambda network, *_: (plain(batch_scaled(network)), "int8"))
    generous = {
        "maxAccuracyDrop": 1,
        "maxDisparityIncrease": 1,
        "minExplanationCorrelation": -1,
        "maxLatencyRatio": 100,
    }
    lifecycle = {"compression": {"method": "dynamicInt8"}, "gates": generous}
    place = Workplace(tmp_path)
    plan = resolved(admissions(epochs=2, batchSize=128), governance={"bias": ADMISSIONS_BIAS}, lifecycle=lifecycle)
    made = place.job(plan).run()
    gate = {g["name"]: g for g in place.report.parts[-1]["gates"]}["rowIndependence"]
    assert made["variant"] == "float"
    assert gate["verdict"] == "fail"
    assert gate["measured"] > 0
    assert "asked alone: 0 of" in gate["message"]
