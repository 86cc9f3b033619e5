"""Structure read from ONNX graphs: TreeSHAP and LinearSHAP against shap, sklearn and enumeration."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier, RandomForestRegressor

from governed_serving import artefact
from governed_serving.blackbox.box import BlackBox
from governed_serving.blackbox.errors import NotExplainable
from governed_serving.explainer.game import InterventionalGame
from governed_serving.explainer.graph.ensemble import read_trees
from governed_serving.explainer.graph.linear import read_linear
from governed_serving.explainer.graph.reading import Graph
from governed_serving.explainer.players import Players
from governed_serving.explainer.service.closed_form import ClosedForms
from governed_serving.explainer.service.model import ExplainedModel
from governed_serving.explainer.shapley.exact import exact_shapley
from governed_serving.explainer.shapley.linear import linear_shapley
from governed_serving.explainer.shapley.trees import TreeExplainer, Trees
from unit.explainer.models import strings
from unit.explainer.oracles import shap
from unit.trainer.manifests import inline, resolved
from unit.trainer.neighbours import Workplace

WIDTH = 8
NAMES = [f"f{i}" for i in range(WIDTH)]
RNG = np.random.default_rng(0)
# A coarse grid: no value lies between a double threshold and its single-precision neighbour.
TABLE = (RNG.integers(-20, 20, (600, WIDTH)) / 8).astype(np.float32)
LABEL = (TABLE[:, 0] * TABLE[:, 1] + TABLE[:, 2] > 0).astype(int)
BACKGROUND, ROWS = TABLE[:40], TABLE[100:106]


def columns(table):
    return {name: np.ascontiguousarray(table[:, i]) for i, name in enumerate(NAMES)}


def converted(model):
    from skl2onnx import to_onnx

    options = {id(model): {"zipmap": False}} if hasattr(model, "classes_") else None
    return to_onnx(model, TABLE[:1], options=options, target_opset={"": 17, "ai.onnx.ml": 3}).SerializeToString()


def fitted(kind):
    model = {
        "forest": RandomForestClassifier(20, max_depth=6, random_state=0),
        "regressor": RandomForestRegressor(10, max_depth=5, random_state=0),
        "boosted": GradientBoostingClassifier(n_estimators=15, random_state=0),
    }[kind]
    return model.fit(TABLE, LABEL if kind != "regressor" else TABLE[:, 0] * 2 + TABLE[:, 3])


def explained(kind, rows=ROWS):
    graph = Graph(converted(fitted(kind)), {})
    read = read_trees(graph, graph.model.graph.output[-1].name)
    owners = read.owners(columns(BACKGROUND), Players.of_groups(list(NAMES), {}))
    z = read.columns(columns(BACKGROUND))
    explainer = TreeExplainer(read.trees, z, np.full(len(z), 1 / len(z)), owners, WIDTH)
    return read, explainer, explainer.explain(read.columns(columns(rows)))


@pytest.mark.parametrize("kind", ["forest", "regressor", "boosted"])
def test_tree_values_equal_shap(kind):
    _, _, values = explained(kind)
    oracle = shap.TreeExplainer(fitted(kind), BACKGROUND, feature_perturbation="interventional")
    theirs = np.asarray(oracle.shap_values(ROWS, check_additivity=False))
    theirs = theirs[..., -1] if theirs.ndim == 3 else theirs
    np.testing.assert_allclose(values[..., -1], theirs, atol=2e-6)


@pytest.mark.parametrize("kind", ["forest", "regressor", "boosted"])
def test_tree_values_equal_enumeration_to_rounding(kind):
    read, explainer, values = explained(kind)
    box = BlackBox(lambda c: read.trees.predict(np.stack([c[n] for n in NAMES], axis=1)))
    game = InterventionalGame(box, columns(ROWS), columns(BACKGROUND), Players.of_groups(list(NAMES), {}))
    for one, mine in zip(exact_shapley(game), values, strict=True):
        np.testing.assert_allclose(mine, one.values, atol=1e-9)
        np.testing.assert_allclose(explainer.base, one.base, atol=1e-12)


@pytest.mark.parametrize("kind", ["forest", "regressor"])
def test_trees_answer_as_the_runtime_does(kind):
    import onnxruntime

    content = converted(fitted(kind))
    read, _, _ = explained(kind)
    session = onnxruntime.InferenceSession(content)
    theirs = session.run([session.get_outputs()[-1].name], {session.get_inputs()[0].name: ROWS})[0]
    np.testing.assert_allclose(read.trees.predict(ROWS)[:, -1], theirs.reshape(len(ROWS), -1)[:, -1], atol=1e-5)


def test_groups_of_columns_are_players():
    read, _, _ = explained("forest")
    players = Players.of_groups(NAMES, {"pair": ["f0", "f1"], "rest": ["f4", "f6"]})
    owners = read.owners(columns(BACKGROUND), players)
    z = read.columns(columns(BACKGROUND))
    values = TreeExplainer(read.trees, z, np.full(40, 1 / 40), owners, len(players)).explain(ROWS)
    box = BlackBox(lambda c: read.trees.predict(np.stack([c[n] for n in NAMES], axis=1)))
    oracle = exact_shapley(InterventionalGame(box, columns(ROWS), columns(BACKGROUND), players))
    np.testing.assert_allclose(values, [one.values for one in oracle], atol=1e-9)


def test_missing_values_take_the_branch_that_the_graph_names():
    trees = Trees(
        np.array([0, 0, 0]),
        np.array([1.0, 0, 0], np.float32),
        np.array([0, -1, -1]),
        np.array([True, False, False]),
        np.array([1, 1, 2]),
        np.array([2, 1, 2]),
        np.array([[0.0], [5.0], [7.0]]),
        np.array([0]),
        np.array([0.5]),
    )
    z = np.array([[0.0], [2.0], [np.nan]], np.float32)
    np.testing.assert_array_equal(trees.predict(z)[:, 0], [5.5, 7.5, 5.5])


def test_tree_ensemble_of_opset_5():
    node = helper.make_node(
        "TreeEnsemble",
        ["x"],
        ["y"],
        domain="ai.onnx.ml",
        n_targets=1,
        aggregate_function=1,
        post_transform=0,
        tree_roots=[0],
        nodes_featureids=[0, 2],
        nodes_modes=numpy_helper.from_array(np.array([0, 3], np.uint8)),
        nodes_splits=numpy_helper.from_array(np.array([0.5, 1.5], np.float32)),
        nodes_truenodeids=[0, 1],
        nodes_trueleafs=[1, 1],
        nodes_falsenodeids=[1, 2],
        nodes_falseleafs=[0, 1],
        leaf_targetids=[0, 0, 0],
        leaf_weights=numpy_helper.from_array(np.array([1.0, 10.0, 100.0], np.float32)),
    )
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 1])],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 5)]
    content = helper.make_model(graph, opset_imports=opsets, ir_version=9).SerializeToString()
    x = np.array([[0, 0, 0], [1, 0, 2], [1, 0, 1]], np.float32)
    read = read_trees(Graph(content, {}), "y")
    import onnxruntime

    theirs = onnxruntime.InferenceSession(content).run(None, {"x": x})[0]
    np.testing.assert_array_equal(read.trees.predict(x), theirs)
    np.testing.assert_array_equal(theirs[:, 0], [1, 10, 100])


def logistic(extra_nodes=(), first="z"):
    """Two numbers scaled, one category one-hot, softmax over a Gemm: as a trainer exports."""
    nodes = [
        helper.make_node("Sub", ["a", "mean"], ["a0"]),
        helper.make_node("Div", ["a0", "std"], ["a1"]),
        helper.make_node(
            "LabelEncoder",
            ["c"],
            ["code"],
            domain="ai.onnx.ml",
            keys_strings=["r", "g"],
            values_int64s=[0, 1],
            default_int64=2,
        ),
        helper.make_node("Equal", ["code", "levels"], ["hot"]),
        helper.make_node("Cast", ["hot"], ["hot1"], to=TensorProto.FLOAT),
        helper.make_node("Concat", ["a1", "b", "hot1"], ["z"], axis=1),
        *extra_nodes,
        helper.make_node("Gemm", [first, "w", "bias"], ["logits"], transB=1),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
    ]
    weights = RNG.normal(size=(2, 5)).astype(np.float32)
    constants = {
        "mean": np.float32([[2]]),
        "std": np.float32([[3]]),
        "levels": np.int64([[0, 1, 2]]),
        "w": weights,
        "bias": np.float32([0.1, -0.2]),
    }
    inputs = [
        helper.make_tensor_value_info(n, t, [None, 1]) for n, t in (("a", 1), ("b", 1), ("c", TensorProto.STRING))
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        inputs,
        [helper.make_tensor_value_info("probabilities", 1, [None, 2])],
        [numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items()],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9)


def mixed(rows, seed):
    rng = np.random.default_rng(seed)
    category = np.empty(rows, object)
    category[:] = [["r", "g", "b"][i] for i in rng.integers(0, 3, rows)]
    return {"a": rng.normal(size=rows).astype(np.float32), "b": rng.normal(size=rows).astype(np.float32), "c": category}


def test_linear_layer_behind_preprocessing_equals_enumeration_of_the_margin():
    content = logistic()
    graph = Graph(content.SerializeToString(), {})
    layer = read_linear(graph, "probabilities")
    assert layer.link == "softmax"
    rows, background = mixed(3, 1), mixed(20, 2)
    players = Players.of_groups(["a", "b", "c"], {})
    owners = layer.owners(background, players)
    assert owners.tolist() == [0, 1, 2, 2, 2]
    z, zb = layer.columns(rows), layer.columns(background)
    values, base = linear_shapley(layer.weights, layer.bias, z, zb.mean(axis=0), owners, 3)
    margins = BlackBox(lambda c: np.asarray(graph.evaluate(["logits"], c)["logits"], float))
    oracle = exact_shapley(InterventionalGame(margins, rows, background, players))
    for mine, one in zip(values, oracle, strict=True):
        np.testing.assert_allclose(mine, one.values, atol=1e-6)
        np.testing.assert_allclose(base, one.base, atol=1e-6)


def test_linear_values_equal_shap_linear():
    content = logistic()
    layer = read_linear(Graph(content.SerializeToString(), {}), "probabilities")
    rows, background = mixed(4, 1), mixed(25, 2)
    z, zb = layer.columns(rows), layer.columns(background)
    values, _ = linear_shapley(layer.weights, layer.bias, z, zb.mean(axis=0), np.arange(5), 5)
    oracle = shap.LinearExplainer((layer.weights[:, 1], layer.bias[1]), shap.maskers.Independent(zb))
    np.testing.assert_allclose(values[..., 1], oracle.shap_values(z), atol=1e-12)


def test_a_column_that_mixes_features_is_not_called_linear():
    product = [
        helper.make_node("Mul", ["a", "b"], ["ab"]),
        helper.make_node("Concat", ["a1", "ab", "hot1"], ["z2"], axis=1),
    ]
    layer = read_linear(Graph(logistic(product, "z2").SerializeToString(), {}), "probabilities")
    with pytest.raises(NotExplainable, match=r"isn't linear.*\['a', 'b'\]"):
        layer.owners(mixed(5, 1), Players.of_groups(["a", "b", "c"], {}))
    together = Players.of_groups(["a", "b", "c"], {"ab": ["a", "b"]})
    assert layer.owners(mixed(5, 1), together).tolist() == [0, 0, 1, 1, 1]


def test_a_network_is_neither_trees_nor_linear_in_its_features():
    hidden = [helper.make_node("MatMul", ["z", "m"], ["h"]), helper.make_node("Relu", ["h"], ["h1"])]
    model = logistic(hidden, "h1")
    model.graph.initializer.append(numpy_helper.from_array(np.eye(5, dtype=np.float32), "m"))
    graph = Graph(model.SerializeToString(), {})
    with pytest.raises(NotExplainable, match="tree ensemble, found Softmax"):
        read_trees(graph, "probabilities")
    with pytest.raises(NotExplainable, match="isn't linear"):
        read_linear(graph, "probabilities").owners(mixed(5, 1), Players.of_groups(["a", "b", "c"], {}))


def test_bytes_that_are_no_model_are_refused():
    with pytest.raises(NotExplainable, match="expected an ONNX model"):
        Graph(b"\x00\x01 no model", {})
    assert isinstance(Graph(onnx.ModelProto().SerializeToString(), {}).inputs, list)


LINEAR_PLANS = {
    "two categories and two numbers": ({"x": "numeric", "c": "categorical", "d": "categorical", "z": "numeric"}, "two"),
    "one category": ({"c": "categorical", "x": "numeric"}, "two"),
    "a regression, whose label is scaled": ({"x": "numeric", "c": "categorical", "d": "categorical"}, "number"),
    "three classes": ({"x": "numeric", "c": "categorical", "d": "categorical"}, "three"),
}


def trained(directory, features, label):
    """Our own linear model of ``features``, as the trainer exports it."""
    rng = np.random.default_rng(4)
    rows = {
        "x": np.round(rng.normal(5, 3, 240), 2),
        "z": np.round(rng.normal(size=240), 2),
        "c": np.array(["a", "b", "cc"])[rng.integers(0, 3, 240)],
        "d": np.array(["u", "v"])[rng.integers(0, 2, 240)],
    }
    margin = rows["x"] - 5 + 3 * (rows["c"] == "b") - 2 * (rows["d"] == "u") + rng.normal(size=240)
    y = {
        "two": np.where(margin > 0, "yes", "no"),
        "three": np.array(["low", "middle", "high"])[np.digitize(margin, [-1, 2])],
        "number": np.round(1000 + 40 * margin, 1),
    }[label]
    lines = "\n".join(",".join(str(rows[name][i]) for name in features) + f",{y[i]}" for i in range(240))
    more = {"loss": {"name": "mse"}} if label == "number" else {}
    plan = inline(
        f"{','.join(features)},y\n{lines}\n",
        features,
        model={"type": "linear"},
        loop={"epochs": 4, "batchSize": 32},
        **more,
    )
    place = Workplace(directory)
    made = place.job(resolved(plan)).run()
    content = artefact.unpack(place.artefact(made), made["digest"])
    manifest = artefact.decode_manifest(content["model.json"])
    background = {
        name: (strings(rows[name][:30].tolist()) if kind == "categorical" else rows[name][:30].astype(np.float32))
        for name, kind in features.items()
    }
    return ExplainedModel(manifest, made["digest"], content["model.onnx"], background)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("plan", LINEAR_PLANS)
def test_our_own_linear_models_are_read_as_linear(tmp_path, plan):
    features, label = LINEAR_PLANS[plan]
    model = trained(tmp_path, features, label)
    graph = Graph(model.onnx, {})
    rows = {name: values[:4] for name, values in model.background.items()}
    outputs = np.asarray(graph.evaluate([model.output], rows)[model.output], float).reshape(4, -1)
    players = model.players(None)
    found = ClosedForms(model).linear(rows, players, outputs)
    layer = read_linear(graph, model.output)

    def margin(columns):
        values = layer.columns(columns) @ layer.weights + layer.bias
        return (
            np.stack([values[:, 0] - values[:, 1], values[:, 1] - values[:, 0]], axis=1) if label == "two" else values
        )

    oracle = exact_shapley(InterventionalGame(BlackBox(margin), rows, model.background, players))
    for mine, theirs in zip(found, oracle, strict=True):
        np.testing.assert_allclose(mine.values, theirs.values, atol=1e-4 * max(1, np.abs(theirs.values).max()))
        assert np.abs(mine.residual).max() < 1e-4 * max(1, np.abs(mine.prediction).max())
        assert mine.details["graph_residual"] < 1e-4 * max(1, np.abs(outputs).max())
    if label == "number":
        np.testing.assert_allclose([one.prediction[0] for one in found], outputs[:, 0], rtol=1e-5)


@pytest.mark.parametrize(
    ("operator", "first", "expected"),
    [
        ("Add", False, 7.0 + 2.0),
        ("Sub", False, 7.0 - 2.0),
        ("Sub", True, 2.0 - 7.0),
        ("Mul", False, 7.0 * 2.0),
        ("Div", False, 7.0 / 2.0),
    ],
)
def test_constants_after_a_layer_are_part_of_it(operator, first, expected):
    names = ["two", "m"] if first else ["m", "two"]
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["m"]), helper.make_node(operator, names, ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 1])],
        [numpy_helper.from_array(np.float32([[1], [3]]), "w"), numpy_helper.from_array(np.float32([2]), "two")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    layer = read_linear(Graph(model.SerializeToString(), {}), "y")
    np.testing.assert_allclose(np.float32([[1, 2]]) @ layer.weights + layer.bias, [[expected]])
