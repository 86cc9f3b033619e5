"""The preprocessing graph against plain numpy and Python."""

import numpy as np
import pytest

from governed_api.lifecycle import Preprocess
from governed_serving.artefact import CJK_CHARACTERS, segment
from governed_serving.trainer.dataset import Dataset
from governed_serving.trainer.preprocessing import LEAST_TEXTS, Categorical, Text, encode, feeds, fit, graph, session


def rows(**columns: tuple[str, list[object]]) -> Dataset:
    features, types = {}, {}
    for name, (kind, values) in columns.items():
        types[name] = kind
        features[name] = np.array(values, dtype=np.float32 if kind == "numeric" else object)
    count = len(next(iter(features.values())))
    return Dataset(features, types, np.zeros(count, np.int64), (0, 1), {})


@pytest.mark.parametrize(
    ("scaling", "want"),
    [
        ("standardize", lambda x, seen: (x - seen.mean()) / seen.std()),
        ("minmax", lambda x, seen: (x - seen.min()) / np.ptp(seen)),
        ("none", lambda x, _: x),
    ],
)
def test_numeric(scaling: str, want: object) -> None:
    values = np.array([3.0, np.nan, -1.0, 10.0, 4.5], np.float32)
    train = rows(x=("numeric", values.tolist()), z=("numeric", [1.0] * 5))
    fitted = fit(train, Preprocess(numeric=scaling))
    got = encode(fitted, train)["encoded"]
    seen = values[~np.isnan(values)]
    filled = np.where(np.isnan(values), seen.mean(), values)
    np.testing.assert_allclose(got[:, 0], want(filled, seen), atol=1e-6)  # type: ignore[operator]
    assert np.isfinite(got).all()


def test_an_unseen_category_is_the_average_one() -> None:
    train = rows(c=("categorical", ["b", "a", "b", "b"]))
    fitted = fit(train, Preprocess())
    got = encode(fitted, rows(c=("categorical", ["a", "b", "zzz", ""])))["encoded"]
    np.testing.assert_allclose(got, [[1, 0], [0, 1], [0.25, 0.75], [0.25, 0.75]])


def test_rare_categories_share_a_code_with_unseen_ones() -> None:
    train = rows(c=("categorical", ["a"] * 5 + ["b"] * 4 + ["c", "d", ""]))
    fitted = fit(train, Preprocess(max_categories=2))
    assert isinstance(fitted.features[0], Categorical)
    assert fitted.features[0].categories == ["a", "b"]
    got = encode(fitted, rows(c=("categorical", ["a", "c", "new", ""])))["encoded"]
    np.testing.assert_array_equal(got, [[1, 0, 0], [0, 0, 1], [0, 0, 1], [0, 0, 1]])


def test_tokens_against_plain_python() -> None:
    texts = ["Good morning, 你好", "good DAY", "", "你 good ÉCOLE école", "  "] * LEAST_TEXTS
    train = rows(t=("text", texts))
    fitted = fit(train, Preprocess(max_tokens=4))
    (text,) = fitted.features
    assert isinstance(text, Text)
    got = encode(fitted, train)["tokens_0"]
    known = {token: k + 2 for k, token in enumerate(text.vocabulary)}
    for line, ids in zip(segment(texts, CJK_CHARACTERS), got.tolist(), strict=True):
        words = "".join(c.lower() if c.isascii() else c for c in line).split()
        want = [known.get(word, 1) for word in words][:4]
        assert ids == want + [0] * (4 - len(want))
    assert {"good", "你", "École", "école"} <= set(known), "only ASCII is folded"


def test_rare_tokens_have_no_code() -> None:
    texts = ["call Zhang"] + ["call me"] * LEAST_TEXTS
    fitted = fit(rows(t=("text", texts)), Preprocess(max_tokens=4))
    assert isinstance(fitted.features[0], Text)
    assert sorted(fitted.features[0].vocabulary) == ["call", "me"]


def test_any_number_of_rows() -> None:
    train = rows(x=("numeric", [1.0, 2.0]), c=("categorical", ["a", "b"]), t=("text", ["u v", "w"]))
    fitted = fit(train, Preprocess(max_tokens=4))
    running = session(graph(fitted))
    for count in (1, 2, 7):
        many = train.at(np.zeros(count, np.int64))
        assert [o.shape[0] for o in running.run(None, feeds(many))] == [count, count]
    empty = encode(fitted, train.at(np.zeros(0, np.int64)))
    assert [v.shape for v in empty.values()] == [(0, 3), (0, 4)]
