"""Models and data of the benchmarks, all seeded, and their ONNX forms."""

import subprocess
import tempfile
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

__all__ = ["ADULT", "adult_like", "alibi", "columns_of", "logistic", "session"]

ADULT = {
    "workclass": 8,
    "education": 16,
    "marital": 7,
    "occupation": 14,
    "relationship": 6,
    "race": 5,
    "sex": 2,
    "country": 11,
}
"""Categories of the eight categorical groups of the Adult data; four numbers come on top: 12 groups, as in alibi's
notebook."""

NUMBERS = ("age", "gain", "loss", "hours")
SKEW = (0.74, 0.32, 0.46, 0.13, 0.40, 0.85, 0.67, 0.90)
"""Share of each categorical's largest category in Adult."""


def adult_like(rows: int, seed: int) -> np.ndarray:
    """float32 (rows, 12): category codes with Adult's numbers of categories and largest shares; gain and loss are
    mostly zero."""
    rng = np.random.default_rng(seed)
    parts = []
    for count, share in zip(ADULT.values(), SKEW, strict=True):
        rest = 1 / np.arange(1, count)
        parts.append(rng.choice(count, rows, p=np.concatenate([[share], (1 - share) * rest / rest.sum()])))
    parts.append(rng.integers(17, 90, rows))
    parts.append(np.where(rng.random(rows) < 0.92, 0, rng.integers(100, 99999, rows)))
    parts.append(np.where(rng.random(rows) < 0.95, 0, rng.integers(150, 4000, rows)))
    parts.append(np.where(rng.random(rows) < 0.47, 40, rng.integers(1, 99, rows)))
    return np.stack(parts, axis=1).astype(np.float32)


def logistic(mixed: bool, seed: int = 0) -> bytes:
    """ONNX logistic regression with an input per feature (rows, 1), as our artefacts have; with ``mixed`` the first
    eight are categories, whose weights are looked up (one-hot times weights)."""
    rng = np.random.default_rng(seed)
    nodes, constants, parts = [], {}, []
    if mixed:
        for index, (name, count) in enumerate(ADULT.items()):
            nodes += [
                helper.make_node("Cast", [f"f{index}"], [f"{name}i"], to=TensorProto.INT64),
                helper.make_node("Gather", [f"{name}w", f"{name}s"], [f"{name}o"], axis=0),
                helper.make_node("Squeeze", [f"{name}i", "last"], [f"{name}s"]),
            ]
            nodes[-1], nodes[-2] = nodes[-2], nodes[-1]
            constants |= {"last": np.array([1], np.int64), f"{name}w": rng.normal(size=(count, 1)).astype(np.float32)}
            parts.append(f"{name}o")
    start = 8 if mixed else 0
    weights = rng.normal(size=(12 - start, 1)) * ([[0.03], [1e-4], [1e-3], [0.03]] if mixed else 1)
    constants["w"] = weights.astype(np.float32)
    numbers = [f"f{i}" for i in range(start, 12)]
    nodes += [
        helper.make_node("Concat", numbers, ["numbers"], axis=1),
        helper.make_node("MatMul", ["numbers", "w"], ["linear"]),
    ]
    total = "linear"
    for index, part in enumerate(parts):
        nodes.append(helper.make_node("Add", [total, part], [f"sum{index}"]))
        total = f"sum{index}"
    nodes.append(helper.make_node("Sigmoid", [total], ["p"]))
    graph = helper.make_graph(
        nodes,
        "logistic",
        [helper.make_tensor_value_info(f"f{i}", 1, [None, 1]) for i in range(12)],
        [helper.make_tensor_value_info("p", 1, [None, 1])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9).SerializeToString()


def session(model: bytes, threads: int = 1) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model, options)


def columns_of(table: np.ndarray) -> dict[str, np.ndarray]:
    return {f"f{i}": np.ascontiguousarray(table[:, i]) for i in range(table.shape[1])}


def alibi(python: str, task: str, model: bytes, **arrays: np.ndarray) -> dict[str, Any] | None:
    """What the worker measured in the environment that has alibi; None without one."""
    if not python:
        return None
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "model.onnx").write_bytes(model)
        np.savez(Path(folder, "rows.npz"), **arrays)
        worker = Path(__file__).with_name("alibi_worker.py")
        done = subprocess.run(
            [python, str(worker), task, folder], capture_output=True, text=True, timeout=500, check=False
        )
    if done.returncode:
        print(f"alibi: not measured, its worker ended with {done.returncode}: {done.stderr.strip().splitlines()[-1:]}")
        return None
    return msgspec.json.decode(done.stdout.strip().splitlines()[-1])
