"""Trees given to another library: what shap makes of our structure, and ours of the same trees."""

from itertools import pairwise

import numpy as np
import pytest

from governed_serving.blackbox.errors import NotExplainable
from governed_serving.explainer.engines.tree_structure import tree_structure
from governed_serving.explainer.shapley.trees import TreeExplainer, Trees
from unit.explainer.oracles import shap
from unit.explainer.test_trees_and_linear import BACKGROUND, ROWS, WIDTH, explained

LEAF = -1


def theirs(trees, background, rows):
    """As the worker reads what it is sent."""
    given = tree_structure(trees)
    edges = [*given["roots"].ravel().astype(int), len(given["thresholds"])]
    parts = [slice(*pair) for pair in pairwise(edges)]
    names = {"children_left": "left", "children_right": "right", "children_default": "default", "features": "features"}
    model = {
        "trees": [
            {name: given[key][part].ravel().astype(np.int32) for name, key in names.items()}
            | {"thresholds": given["thresholds"][part].ravel(), "values": given["values"][part]}
            | {"node_sample_weight": np.ones(part.stop - part.start)}
            for part in parts
        ]
    }
    explainer = shap.TreeExplainer(model, background.astype(float), feature_perturbation="interventional")
    values = np.asarray(explainer.shap_values(rows.astype(float), check_additivity=False))
    return values.reshape(len(rows), background.shape[1], -1)


@pytest.mark.parametrize("kind", ["forest", "regressor", "boosted"])
def test_shap_reads_the_trees_that_we_read(kind):
    read, _, ours = explained(kind)
    found = theirs(read.trees, read.columns({f"f{i}": BACKGROUND[:, i] for i in range(WIDTH)}), ROWS)
    np.testing.assert_allclose(found, ours, atol=1e-7)  # shap's sums are in single precision


def split(mode, missing=False):
    """One tree: x₀ against 1, then x₁ ≤ 0 on its true branch."""
    return Trees(
        np.array([0, 1, 0, 0, 0]),
        np.array([1.0, 0, 0, 0, 0], np.float32),
        np.array([mode, 0, LEAF, LEAF, LEAF]),
        np.array([missing, False, False, False, False]),
        np.array([1, 2, 2, 3, 4]),
        np.array([4, 3, 2, 3, 4]),
        np.array([[0.0], [0.0], [5.0], [7.0], [11.0]]),
        np.array([0]),
        np.array([0.0]),
    )


@pytest.mark.parametrize("mode", [0, 1, 2, 3])
@pytest.mark.parametrize("missing", [False, True])
def test_every_comparison_parts_the_same_numbers(mode, missing):
    trees = split(mode, missing)
    near = [np.float32(1), np.nextafter(np.float32(1), np.float32(0)), np.nextafter(np.float32(1), np.float32(2))]
    numbers = np.array([[x, y] for x in (*near, np.float32(-3), np.float32(np.nan)) for y in (-1, 0, 1)], np.float32)
    background = numbers[[0, 4, 8, 11]]
    whole = TreeExplainer(trees, background, np.full(4, 0.25), np.array([0, 1]), 2)
    np.testing.assert_allclose(theirs(trees, background, numbers), whole.explain(numbers), atol=1e-12)


def test_what_has_no_such_form_is_refused():
    for mode in (4, 5):
        with pytest.raises(NotExplainable, match="split at a threshold, and this graph compares for equality"):
            tree_structure(split(mode))
    looped = split(0)
    looped.true[1] = 0
    with pytest.raises(NotExplainable, match="branches meet or lead back"):
        tree_structure(looped)
