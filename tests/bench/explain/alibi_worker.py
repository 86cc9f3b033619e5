"""Runs in an environment that has alibi: reads a folder, measures, prints one JSON line."""

import json
import sys
import time
import warnings
from pathlib import Path

warnings.simplefilter("ignore")

import numpy as np  # noqa: E402
import onnxruntime  # noqa: E402


def predictor(folder):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(Path(folder, "model.onnx")), options)
    names, output = [one.name for one in session.get_inputs()], session.get_outputs()[-1].name
    count = [0]

    def predict(table):
        count[0] += len(table)
        table = np.asarray(table, np.float32)
        split = [table] if len(names) == 1 else [np.ascontiguousarray(table[:, i : i + 1]) for i in range(len(names))]
        return session.run([output], dict(zip(names, split, strict=True)))[0]

    return predict, count


def kernel(folder, rows):
    from alibi.explainers import KernelShap

    predict, count = predictor(folder)
    explainer = KernelShap(lambda t: predict(t)[:, -1:], link="identity")
    explainer.fit(rows["background"])
    start = time.process_time()
    found = explainer.explain(rows["rows"], silent=True)
    spent = time.process_time() - start
    return {
        "seconds": spent / len(rows["rows"]),
        "values": np.asarray(found.shap_values[0]).tolist(),
        "evaluated": count[0],
    }


def anchor(folder, rows):
    from alibi.explainers import AnchorTabular

    predict, count = predictor(folder)
    explainer = AnchorTabular(lambda t: predict(t), [f"f{i}" for i in range(rows["rows"].shape[1])], seed=0)
    explainer.fit(rows["train"])
    count[0] = 0
    start = time.process_time()
    found = [explainer.explain(row) for row in rows["rows"]]
    spent = time.process_time() - start
    return {
        "seconds": spent / len(found),
        "evaluated": count[0] / len(found),
        "precision": float(np.mean([one.precision for one in found])),
        "length": float(np.mean([len(one.anchor) for one in found])),
    }


if __name__ == "__main__":
    task, folder = sys.argv[1:3]
    print(json.dumps({"kernel": kernel, "anchor": anchor}[task](folder, np.load(Path(folder, "rows.npz")))))
