"""The training loop: seeded per epoch, so that a resumed run gives the very weights of an uninterrupted one."""

import io
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from governed_api.lifecycle import Loop, Training
from governed_serving.trainer.errors import TrainingFailed
from governed_serving.trainer.losses import Objective, objective
from governed_serving.trainer.networks import Network
from governed_serving.trainer.preprocessing import Encoded, Preprocessing
from governed_serving.trainer.schedules import optimiser, rate
from governed_serving.trainer.volume import DataVolume

CHECKPOINT = "checkpoint"

Curve = list[dict[str, float]]
"""One entry per epoch: epoch, learningRate, trainingLoss, validationLoss, and validationAccuracy for a classifier."""


@dataclass(frozen=True)
class Rows:
    """Encoded rows, targets (int64 codes or standardised float32) and weights (float32), as tensors."""

    inputs: tuple[Tensor, ...]
    target: Tensor
    weight: Tensor

    @classmethod
    def of(
        cls, encoded: Encoded, target: NDArray[np.integer | np.floating], weight: NDArray[np.float32] | None = None
    ) -> "Rows":
        ones = np.ones(len(target), np.float32) if weight is None else weight
        tensors = tuple(torch.from_numpy(np.ascontiguousarray(v)) for v in encoded.values())
        return cls(tensors, torch.from_numpy(target), torch.from_numpy(ones))

    def __len__(self) -> int:
        return len(self.target)

    def at(self, index: Tensor) -> "Rows":
        return Rows(tuple(t[index] for t in self.inputs), self.target[index], self.weight[index])


@dataclass
class State:
    """All that a checkpoint must hold; ``epoch`` is how many are done."""

    epoch: int = 0
    curve: Curve = field(default_factory=list)
    best_loss: float = float("inf")
    best: dict[str, Tensor] | None = None
    stale: int = 0


def deterministic(seed: int) -> None:
    """One thread and deterministic kernels: sums are taken in the same order in every run."""
    torch.set_num_threads(1)
    torch.set_deterministic_debug_mode("error")  # as use_deterministic_algorithms, without importing the compiler
    torch.manual_seed(seed)


def build(fitted: Preprocessing, training: Training, outputs: int) -> Network:
    """A freshly initialised network, the same for the same seed."""
    deterministic(training.loop.seed)
    return Network(fitted, training.model, outputs)


class Trainer:
    """Trains ``network`` in place. ``key`` ties checkpoints on ``volume`` to this very training."""

    def __init__(self, network: Network, training: Training, volume: DataVolume, key: str) -> None:
        self.network, self.spec, self.loop = network, training, training.loop
        self._volume, self._key = volume, key
        self._optimiser = optimiser(training.optimizer, network.parameters())
        self.state = State()

    def run(
        self, train: Rows, validation: Rows, class_counts: list[int], progress: Callable[[int, dict[str, float]], None]
    ) -> Curve:
        """Train to the end or to early stopping; ``progress`` hears (epochs done, last entry of the curve).

        Resumes from the last checkpoint of the same key. Raises TrainingFailed when the loss is no longer finite.
        """
        self._resume()
        loss = objective(self.spec.loss, class_counts)
        while self.state.epoch < self.loop.epochs and not self._stopped():
            entry = self._epoch(train, loss)
            self._measure(validation if len(validation) else train, loss, entry)
            self.state.curve.append(entry)
            self.state.epoch += 1
            if self.state.epoch % self.loop.checkpoint_epochs == 0 and self.state.epoch < self.loop.epochs:
                self._save()
            progress(self.state.epoch, entry)
        if self.state.best is not None:
            self.network.load_state_dict(self.state.best)
        self.network.eval()
        return self.state.curve

    def _epoch(self, rows: Rows, loss: Objective) -> dict[str, float]:
        torch.manual_seed(epoch_seed(self.loop, self.state.epoch))
        order, size = torch.randperm(len(rows)), self.loop.batch_size
        steps = -(-len(rows) // size)
        self.network.train()
        total = 0.0
        for k in range(steps):
            batch = rows.at(order[k * size : (k + 1) * size])
            step = self.state.epoch * steps + k
            peak = self.spec.optimizer.learning_rate
            for group in self._optimiser.param_groups:
                group["lr"] = rate(self.spec.schedule, peak, step, self.loop.epochs * steps, steps)
            self._optimiser.zero_grad()
            value = loss(self.network(*batch.inputs), batch.target, batch.weight)
            value.backward()  # type: ignore[no-untyped-call]
            self._optimiser.step()
            total += float(value.detach()) * len(batch)
        if not np.isfinite(total):
            raise TrainingFailed(
                f"epoch {self.state.epoch + 1}: expected a finite loss, found {total}: "
                "lower spec.lifecycle.training.optimizer.learningRate or add a warm-up"
            )
        learning_rate = self._optimiser.param_groups[0]["lr"]
        return {"epoch": self.state.epoch + 1, "learningRate": learning_rate, "trainingLoss": total / len(rows)}

    @torch.no_grad()
    def _measure(self, rows: Rows, loss: Objective, entry: dict[str, float]) -> None:
        self.network.eval()
        scores = torch.cat([self.network(*part.inputs) for part in _chunks(rows)])
        entry["validationLoss"] = float(loss(scores, rows.target, rows.weight))
        if self.spec.loss.name != "mse":
            entry["validationAccuracy"] = float((scores.argmax(1) == rows.target).to(torch.float64).mean())
        if (stopping := self.loop.early_stopping) is None:
            return
        if entry["validationLoss"] < self.state.best_loss - stopping.min_delta:
            self.state.best_loss, self.state.stale = entry["validationLoss"], 0
            self.state.best = {name: value.clone() for name, value in self.network.state_dict().items()}
        else:
            self.state.stale += 1

    def _stopped(self) -> bool:
        stopping = self.loop.early_stopping
        return stopping is not None and self.state.stale >= stopping.patience

    def _save(self) -> None:
        out = io.BytesIO()
        state = {**vars(self.state), "key": self._key}
        torch.save(
            {"state": state, "network": self.network.state_dict(), "optimiser": self._optimiser.state_dict()}, out
        )
        self._volume.write(CHECKPOINT, out.getvalue())

    def _resume(self) -> None:
        data = self._volume.read(CHECKPOINT)
        if data is None:
            return
        saved = torch.load(io.BytesIO(data), weights_only=True)
        if saved["state"].pop("key") != self._key:
            return
        self.network.load_state_dict(saved["network"])
        self._optimiser.load_state_dict(saved["optimiser"])
        self.state = State(**saved["state"])


def epoch_seed(loop: Loop, epoch: int) -> int:
    """Seed of one epoch's shuffling and dropout, from the manifest's seed and the epoch alone."""
    return (loop.seed * 1_000_003 + epoch + 1) % 2**31


def _chunks(rows: Rows, size: int = 4096) -> list[Rows]:
    return [rows.at(torch.arange(k, min(k + size, len(rows)))) for k in range(0, len(rows), size)]
