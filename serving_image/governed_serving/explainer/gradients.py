"""Integrated gradients, saliency and gradient × input of a torch module: for the training step, where torch is.

Nothing else in this room imports this module; the explainer's container has no torch.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from governed_serving.blackbox.columns import Floats

__all__ = ["GradientAttribution", "integrated_gradients", "saliency"]

Module = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class GradientAttribution:
    """``values`` as the input, shape (rows, *features); ``residual`` (rows,): f(x) − f(baseline) − Σ values, the completeness gap."""

    values: Floats
    residual: Floats
    steps: int


def integrated_gradients(
    module: Module,
    inputs: torch.Tensor,
    baseline: torch.Tensor,
    target: int,
    *,
    tolerance: float = 1e-4,
    most: int = 1024,
) -> GradientAttribution:
    """Path integral of the gradient from ``baseline`` to ``inputs`` (Sundararajan, Taly, Yan 2017), by Gauss-Legendre quadrature.

    ``baseline`` broadcasts to ``inputs``; steps double from 16 until the completeness gap is at most ``tolerance`` of the largest
    |f(x) − f(baseline)| (or 1), or ``most`` is reached: the gap is in the result either way.
    """
    base = baseline.expand_as(inputs)
    with torch.no_grad():
        change = (module(inputs)[:, target] - module(base)[:, target]).double()
    steps = 16
    while True:
        values = _integral(module, inputs, base, target, steps)
        gap = change - values.reshape(len(values), -1).sum(dim=1)
        if float(gap.abs().max()) <= tolerance * max(float(change.abs().max()), 1.0) or steps >= most:
            return GradientAttribution(values.numpy(), gap.numpy(), steps)
        steps *= 2


def _integral(module: Module, inputs: torch.Tensor, base: torch.Tensor, target: int, steps: int) -> torch.Tensor:
    nodes, weights = np.polynomial.legendre.leggauss(steps)
    total = torch.zeros_like(inputs, dtype=torch.float64)
    for node, weight in zip((nodes + 1) / 2, weights / 2, strict=True):
        point = base + float(node) * (inputs - base)
        total += float(weight) * _gradient(module, point, target).double()
    return total * (inputs - base).double()


def saliency(module: Module, inputs: torch.Tensor, target: int, *, absolute: bool = True) -> Floats:
    """|∂f/∂x| (Simonyan, Vedaldi, Zisserman 2014), or the signed gradient; shape of ``inputs``."""
    gradient = _gradient(module, inputs, target)
    values: Floats = (gradient.abs() if absolute else gradient).double().numpy()
    return values


def _gradient(module: Module, point: torch.Tensor, target: int) -> torch.Tensor:
    moved = point.detach().clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(module(moved)[:, target].sum(), moved)
    return gradient
