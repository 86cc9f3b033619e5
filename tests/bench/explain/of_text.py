"""A text classifier: milliseconds and texts evaluated per explanation, beside lime's and shap's text explainers."""

import lime.lime_text
import numpy as np
import shap
from sklearn.feature_extraction.text import HashingVectorizer
from sklearn.linear_model import LogisticRegression
from table import best_ms, show

from governed_serving.blackbox.box import BlackBox
from governed_serving.explainer.shapley.sampled import Stopping
from governed_serving.explainer.text.masking import RowText, lime_text, text_shapley

GOOD, BAD = (
    ["good", "kind", "fast", "warm", "clean", "fresh", "bright", "lovely"],
    ["bad", "rude", "slow", "cold", "dirty", "stale", "gloomy", "awful"],
)
PLAIN = [
    "the",
    "a",
    "room",
    "food",
    "staff",
    "place",
    "was",
    "were",
    "and",
    "with",
    "for",
    "our",
    "day",
    "night",
    "very",
    "quite",
    "so",
    "it",
    "we",
    "they",
]
WORDS, TEXTS = 24, 6


def _texts(count: int, seed: int) -> tuple[list[str], list[int]]:
    rng = np.random.default_rng(seed)
    texts, labels = [], []
    for _ in range(count):
        label = int(rng.integers(2))
        words = [str(rng.choice((GOOD if label else BAD) if rng.random() < 0.2 else PLAIN)) for _ in range(WORDS)]
        texts.append(" ".join(words))
        labels.append(label)
    return texts, labels


def measure(alibi_python: str) -> None:  # noqa: ARG001  alibi's text explainers are anchors over a language model
    texts, labels = _texts(3000, 0)
    vectorizer = HashingVectorizer(n_features=1 << 12, ngram_range=(1, 2), alternate_sign=False)
    model = LogisticRegression(max_iter=300).fit(vectorizer.transform(texts), labels)
    asked = [0]

    def predict(batch) -> np.ndarray:
        asked[0] += len(batch)
        return model.predict_proba(vectorizer.transform(list(batch)))

    rows = _texts(TEXTS, 1)[0]
    box = BlackBox(lambda c: predict(c["text"]))
    reference = np.array([_shapley(box, text, 20_000)[0] for text in rows])
    table = []

    def add(name: str, work, values) -> None:
        asked[0] = 0
        median, least = best_ms(lambda i: work(rows[i]), TEXTS)
        evaluated = asked[0] / TEXTS
        error = (
            "–"
            if values is None
            else float(((np.array([values(text) for text in rows]) - reference) ** 2).sum(axis=1).mean())
        )
        table.append([name, median, least, evaluated, error])

    for count in (256, 1000):
        add(
            f"ours Shapley over tokens ({count})",
            lambda t, n=count: _shapley(box, t, n),
            lambda t, n=count: _shapley(box, t, n)[0],
        )
    add("ours LIME (1,000)", lambda t: _lime(box, t), None)
    library = lime.lime_text.LimeTextExplainer(random_state=0, bow=False)
    add("lime (1,000)", lambda t: library.explain_instance(t, predict, num_features=WORDS, num_samples=1000), None)
    partition = shap.Explainer(
        lambda b: predict(b)[:, 1], shap.maskers.Text(r"\W+"), algorithm="partition", silent=True
    )
    add("shap Partition (Owen values, default)", lambda t: partition([t]), None)
    show(
        f"Text classifier, {WORDS} words: one explanation",
        ["", "CPU ms (median)", "CPU ms (least)", "texts evaluated", "squared error of Shapley values"],
        table,
        "reference: ours with 20,000 coalitions; Owen values of shap's partition are another quantity, hence no error",
    )


def _column(text: str) -> dict[str, np.ndarray]:
    column = np.empty(1, object)
    column[0] = text
    return {"text": column}


def _shapley(box: BlackBox, text: str, count: int) -> tuple[np.ndarray, int]:
    found, _ = text_shapley(
        box, RowText(_column(text), "text"), seed=np.random.SeedSequence(0), stopping=Stopping(count)
    )
    return found.values[:, 1], found.evaluations


def _lime(box: BlackBox, text: str) -> np.ndarray:
    found, _ = lime_text(box, RowText(_column(text), "text"), seed=np.random.SeedSequence(0), samples=1000)
    return found.values[:, 1]
