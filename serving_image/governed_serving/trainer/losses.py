"""Losses per row, weighted by row, averaged over the weights."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from governed_api.lifecycle import Loss

Objective = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(scores (batch, outputs), target (batch,), row weights (batch,)) → scalar."""


def objective(spec: Loss, class_counts: list[int]) -> Objective:
    """The loss of ``spec``; ``class_counts`` are training rows per class (empty for a regression).

    focal: (1 − p)^γ · CE, Lin et al. 2017; weightedCrossEntropy: each class weighs n / (classes × its rows).
    """
    classes = torch.ones(max(len(class_counts), 1))
    if spec.name == "weightedCrossEntropy":
        counts = torch.tensor(class_counts, dtype=torch.float32)
        classes = counts.sum() / (len(class_counts) * counts.clamp(min=1.0))

    def loss(scores: Tensor, target: Tensor, weight: Tensor) -> Tensor:
        if spec.name == "mse":
            row = (scores.squeeze(1) - target) ** 2
        else:
            row = functional.cross_entropy(scores, target, reduction="none")
            if spec.name == "focal":
                row = (1 - torch.exp(-row)) ** spec.gamma * row
            weight = weight * classes[target]
        return (row * weight).sum() / weight.sum()

    return loss
