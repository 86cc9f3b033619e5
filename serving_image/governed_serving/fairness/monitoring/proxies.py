"""Proxies: other features from whose values the protected attribute can be told, so that leaving it out hides
nothing."""

from dataclasses import dataclass
from math import sqrt

import numpy as np

from governed_serving.fairness.counts.cells import CodedColumn
from governed_serving.fairness.inference.hypotheses import chi_square

__all__ = ["Association", "association", "joint_lift", "proxies"]


@dataclass(frozen=True)
class Association:
    """How well ``feature`` tells the attribute. ``cramers_v``: bias-corrected (Bergsma 2013), 0 to 1.

    ``lift``: accuracy of guessing the attribute from the feature beyond always guessing the largest group, over the
    most possible.
    """

    feature: str
    cramers_v: float
    lift: float
    p_value: float


def association(feature: str, column: CodedColumn, attribute: CodedColumn) -> Association:
    """From two coded columns, shape (rows,) each."""
    (codes, names), (groups, group_names) = column, attribute
    size = len(group_names)
    joint = np.bincount(codes.astype(np.int64) * size + groups, minlength=len(names) * size).reshape(-1, size)
    test, n = chi_square(joint), int(joint.sum())
    r, k = int((joint.sum(1) > 0).sum()), int((joint.sum(0) > 0).sum())
    if min(r, k) < 2:
        return Association(feature, 0.0, 0.0, 1.0)
    phi = max(0.0, test.statistic / n - (r - 1) * (k - 1) / (n - 1))
    rows, columns = r - (r - 1) ** 2 / (n - 1), k - (k - 1) ** 2 / (n - 1)
    largest = joint.sum(0).max()
    lift = float((joint.max(1).sum() - largest) / (n - largest))
    return Association(feature, sqrt(phi / max(min(rows, columns) - 1, 1e-12)), lift, test.p_value)


def joint_lift(features: dict[str, CodedColumn], attribute: CodedColumn, folds: int = 2) -> float:
    """How much better than the largest group all features together guess the attribute, over the most possible.

    Naive Bayes with Laplace's correction, each half of the rows judged by what the other half taught; rows are in
    random order.
    """
    groups, names = attribute
    rows, size = len(groups), len(names)
    fold = np.arange(rows) % folds
    right = 0
    for part in range(folds):
        train, test = fold != part, fold == part
        score = np.log(np.bincount(groups[train], minlength=size) + 1.0) * np.ones((int(test.sum()), 1))
        for codes, values in features.values():
            width = len(values)
            joint = np.bincount(codes[train].astype(np.int64) * size + groups[train], minlength=width * size)
            chance = joint.reshape(width, size) + 1.0
            score += np.log(chance / chance.sum(0))[codes[test]]
        right += int((score.argmax(1) == groups[test]).sum())
    largest = int(np.bincount(groups, minlength=size).max()) if rows else 0
    return (right - largest) / (rows - largest) if rows > largest else 0.0


def proxies(features: dict[str, CodedColumn], attribute: CodedColumn, least: float = 0.1) -> list[Association]:
    """Features with Cramér's V of at least ``least``, the strongest first; numeric columns go in as bands."""
    associations = [association(name, column, attribute) for name, column in features.items()]
    return sorted((a for a in associations if a.cramers_v >= least), key=lambda a: -a.cramers_v)
