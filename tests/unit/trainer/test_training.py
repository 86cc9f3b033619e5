"""Losses, schedules and the loop against their definitions; resuming gives the weights of an uninterrupted run."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from governed_api.lifecycle import Loss, Schedule, Training
from governed_serving.trainer.dataset import typed
from governed_serving.trainer.errors import TrainingFailed
from governed_serving.trainer.loop import CHECKPOINT, Rows, Trainer, build
from governed_serving.trainer.losses import objective
from governed_serving.trainer.preprocessing import encode, fit
from governed_serving.trainer.schedules import rate
from governed_serving.trainer.sources import read, source_bytes
from governed_serving.trainer.volume import DataVolume
from unit.trainer.manifests import admissions, inline, training
from unit.trainer.neighbours import AesCipher


def test_losses_against_their_formulas() -> None:
    scores = torch.tensor([[2.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    target, weight = torch.tensor([0, 0, 1]), torch.tensor([1.0, 2.0, 1.0])
    p = torch.softmax(scores, 1)[torch.arange(3), target]
    plain = objective(Loss(name="crossEntropy"), [2, 1])(scores, target, weight)
    assert float(plain) == pytest.approx(float((-p.log() * weight).sum() / 4), rel=1e-6)
    focal = objective(Loss(name="focal", gamma=2.0), [2, 1])(scores, target, weight)
    assert float(focal) == pytest.approx(float((-((1 - p) ** 2) * p.log() * weight).sum() / 4), rel=1e-5)
    balanced = weight * torch.tensor([0.75, 0.75, 1.5])
    weighted = objective(Loss(name="weightedCrossEntropy"), [2, 1])(scores, target, weight)
    assert float(weighted) == pytest.approx(float((-p.log() * balanced).sum() / balanced.sum()), rel=1e-6)
    mse = objective(Loss(name="mse"), [])(torch.tensor([[1.0], [3.0]]), torch.tensor([0.0, 1.0]), torch.ones(2))
    assert float(mse) == pytest.approx(2.5)


def test_focal_with_gamma_zero_is_cross_entropy() -> None:
    scores, target = torch.randn(5, 3), torch.tensor([0, 1, 2, 0, 1])
    values = [
        objective(Loss(name=n, gamma=0.0), [2, 2, 1])(scores, target, torch.ones(5)) for n in ("focal", "crossEntropy")
    ]
    assert float(values[0]) == pytest.approx(float(values[1]), rel=1e-6)


@pytest.mark.parametrize(
    ("schedule", "step", "want"),
    [
        (Schedule(), 50, 1.0),
        (Schedule(name="cosine"), 0, 1.0),
        (Schedule(name="cosine"), 50, 0.5),
        (Schedule(name="cosine"), 25, 0.5 * (1 + math.cos(math.pi / 4))),
        (Schedule(name="linear"), 75, 0.25),
        (Schedule(name="step", step_epochs=2, gamma=0.1), 19, 1.0),
        (Schedule(name="step", step_epochs=2, gamma=0.1), 20, 0.1),
        (Schedule(name="step", step_epochs=2, gamma=0.1), 40, 0.01),
        (Schedule(name="linear", warmup_fraction=0.1), 0, 1 / 11),
        (Schedule(name="linear", warmup_fraction=0.1), 9, 10 / 11),
        (Schedule(name="linear", warmup_fraction=0.1), 10, 1.0),
        (Schedule(name="linear", warmup_fraction=0.1), 55, 0.5),
    ],
)
def test_schedules(schedule: Schedule, step: int, want: float) -> None:
    assert rate(schedule, 1.0, step, 100, 10) == pytest.approx(want)


class Killed(Exception):
    """As kill -9 would: nothing after it runs."""


def trainer(directory: Path, plan: Training, key: str = "k") -> tuple[Trainer, Rows, Rows]:
    dataset = typed(read(plan.data, source_bytes(plan.data, directory)), plan, None)
    fitted = fit(dataset, plan.preprocess)
    rows = Rows.of(encode(fitted, dataset), dataset.label)
    index = torch.arange(0, len(rows), 9)
    volume = DataVolume(directory, AesCipher())
    return Trainer(build(fitted, plan, len(dataset.classes) or 1), plan, volume, key), rows, rows.at(index)


def run(made: tuple[Trainer, Rows, Rows], until: int | None = None) -> dict[str, np.ndarray]:
    def progress(done: int, _: dict[str, float]) -> None:
        if done == until:
            raise Killed

    made[0].run(made[1], made[2], [1, 1], progress)
    return {name: value.numpy() for name, value in made[0].network.state_dict().items()}


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_resume_gives_the_same_weights(tmp_path: Path, optimizer: str) -> None:
    plan = training(
        admissions(epochs=6, checkpointEpochs=2, earlyStopping={"patience": 5})
        | {"optimizer": {"name": optimizer}, "schedule": {"name": "cosine"}, "model": {"hidden": [8], "dropout": 0.2}}
    )
    whole = run(trainer(tmp_path / "a", plan))
    with pytest.raises(Killed):
        run(trainer(tmp_path / "b", plan), until=5)
    assert b"optimiser" not in (tmp_path / "b" / CHECKPOINT).read_bytes()
    resumed = trainer(tmp_path / "b", plan)
    weights = run(resumed)
    assert [e["epoch"] for e in resumed[0].state.curve] == [1, 2, 3, 4, 5, 6]
    for name, values in whole.items():
        np.testing.assert_array_equal(weights[name], values)


def test_a_checkpoint_of_another_training_is_ignored(tmp_path: Path) -> None:
    plan = training(admissions(epochs=4, checkpointEpochs=1))
    with pytest.raises(Killed):
        run(trainer(tmp_path, plan, "one"), until=3)
    other = trainer(tmp_path, plan, "two")
    seen: list[int] = []
    other[0].run(other[1], other[2], [1, 1], lambda done, _: seen.append(done))
    assert seen == [1, 2, 3, 4]


def test_early_stopping_keeps_the_best(tmp_path: Path) -> None:
    plan = training(admissions(epochs=30, earlyStopping={"patience": 2, "minDelta": 0.5}))
    made = trainer(tmp_path, plan)
    run(made)
    assert len(made[0].state.curve) == 3
    entry = made[0].state.curve[0]
    with torch.no_grad():
        scores = made[0].network(*made[2].inputs)
    loss = objective(plan.loss, [1, 1])(scores, made[2].target, made[2].weight)
    assert float(loss) == pytest.approx(entry["validationLoss"], rel=1e-6)


def test_divergence_is_told(tmp_path: Path) -> None:
    csv = "x,y\n" + "".join(f"{k * 1e30},{k}\n" for k in range(20))
    plan = training(
        inline(
            csv, {"x": "numeric"}, loss={"name": "mse"}, preprocess={"numeric": "none"}, optimizer={"learningRate": 10}
        )
    )
    with pytest.raises(TrainingFailed, match="expected a finite loss"):
        run(trainer(tmp_path, plan))
