"""Optimisers, and learning rates as a pure function of the step."""

import math
from collections.abc import Iterable

import torch

from governed_api.lifecycle import Optimizer, Schedule


def rate(spec: Schedule, peak: float, step: int, total: int, per_epoch: int) -> float:
    """Learning rate of step ``step`` (0-based) of ``total``: linear warm-up from zero, then the schedule's shape.

    step: × gamma every ``stepEpochs`` epochs; cosine, linear: from the peak to zero over what the warm-up leaves.
    """
    warm = round(spec.warmup_fraction * total)
    if step < warm:
        return peak * (step + 1) / (warm + 1)
    done = (step - warm) / max(total - warm, 1)
    if spec.name == "step":
        return peak * float(spec.gamma ** (step // per_epoch // spec.step_epochs))
    if spec.name == "cosine":
        return peak * 0.5 * (1 + math.cos(math.pi * done))
    if spec.name == "linear":
        return peak * (1 - done)
    return peak


def optimiser(spec: Optimizer, parameters: Iterable[torch.nn.Parameter]) -> torch.optim.Optimizer:
    """SGD with momentum, Adam or AdamW."""
    if spec.name == "sgd":
        return torch.optim.SGD(parameters, spec.learning_rate, spec.momentum, weight_decay=spec.weight_decay)
    kind = torch.optim.Adam if spec.name == "adam" else torch.optim.AdamW
    return kind(parameters, spec.learning_rate, weight_decay=spec.weight_decay, foreach=False)
