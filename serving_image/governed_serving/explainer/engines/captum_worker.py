"""Runs captum in an environment of its own (the extra ``captum``), by path: nothing of ours is imported here, and this
by nobody.

What travels over its standard streams is said in ``worker.py`` beside it. It asks nothing: a task brings the network,
which is rebuilt in torch, and rows as its first layer sees them.
"""

import base64
import json
import math
import os
import select
import threading
import time
import warnings
from collections.abc import Callable
from importlib.metadata import version
from typing import IO, TypedDict

warnings.simplefilter("ignore")

import captum.attr  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
from numpy.typing import NDArray  # noqa: E402
from torch import Tensor, nn  # noqa: E402

Floats = NDArray[np.float64]

CHUNK = 1 << 18
"""Numbers of one layer's outputs at once: 2 MiB, of which a path holds some twenty."""

FIRST_STEPS, MOST_STEPS = 16, 512
"""Points of a path: doubled from the first until little is missing."""


class Matrix(TypedDict):
    """As it travels."""

    shape: list[int]
    data: str


class Task(TypedDict):
    """``weights`` and ``biases`` of dense layers, ReLU between them; ``softmax`` of the last one's outputs, or their
    log-odds (``logit``), or neither. ``owners``: the player of each column of ``rows`` and ``background``. ``steps``:
    most points of a path; ``precision``: what a sum may miss, as a share of what is to be explained; ``seconds``
    after which no longer path is begun (None: no bound)."""

    method: str
    weights: list[Matrix]
    biases: list[Matrix]
    softmax: bool
    logit: bool
    rows: Matrix
    background: Matrix
    owners: list[int]
    players: int
    steps: int
    precision: float
    seconds: float | None


class Frame(TypedDict, total=False):
    """What is received: one of these."""

    task: Task
    stop: bool


class Network(nn.Module):
    """The network of a task, in double precision."""

    def __init__(self, task: Task) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for weights, bias in zip(task["weights"], task["biases"], strict=True):
            dense = nn.Linear(weights["shape"][0], weights["shape"][1], dtype=torch.float64)
            with torch.no_grad():
                dense.weight.copy_(torch.from_numpy(unpacked(weights)).T)
                dense.bias.copy_(torch.from_numpy(unpacked(bias)).reshape(-1))
            layers += [dense, nn.ReLU()]
        layers = layers[:-1]
        if task["softmax"] and not task["logit"]:
            layers.append(nn.Softmax(dim=1))
        self.layers, self.logit = nn.Sequential(*layers), task["logit"]
        self.widest = max(width for weights in task["weights"] for width in weights["shape"])
        self.outputs = task["weights"][-1]["shape"][1]

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.layers(x)
        if not self.logit:
            return scores
        own = torch.eye(self.outputs, dtype=torch.bool)
        others = scores.unsqueeze(1).masked_fill(own, -math.inf)
        return scores - torch.logsumexp(others, dim=2)


class Work:
    """One task: what it gives, and what it costs."""

    def __init__(self, task: Task) -> None:
        self.network = Network(task).eval()
        self.rows, self.background = (torch.from_numpy(unpacked(task[name]).copy()) for name in ("rows", "background"))
        owners = torch.tensor(task["owners"], dtype=torch.int64)
        self.owner = nn.functional.one_hot(owners, task["players"]).to(torch.float64)
        self.most = min(task["steps"], MOST_STEPS)
        self.until = math.inf if task["seconds"] is None else time.monotonic() + task["seconds"]
        self.precision, self.gradients = task["precision"], 0
        with torch.no_grad():
            self.prediction, self.base = self.network(self.rows), self.network(self.background).mean(0, keepdim=True)

    def by_baseline(self, attribute: Callable[[Tensor, Tensor, int], Tensor], copies: int) -> tuple[Tensor, Tensor]:
        """Mean over the background of what ``attribute`` gives a row against each of its rows, and the standard error
        of that mean: shape (rows, outputs, players) each. ``copies`` of both are held at once."""
        count = len(self.background)
        step = max(1, CHUNK // (count * self.network.widest * copies))
        means, errors = [], []
        for at in range(0, len(self.rows), step):
            rows = self.rows[at : at + step]
            beside = rows.repeat_interleave(count, 0), self.background.repeat(len(rows), 1)
            attributed = torch.stack(
                [attribute(*beside, output) @ self.owner for output in range(self.network.outputs)], 1
            )
            grouped = attributed.detach().reshape(len(rows), count, self.network.outputs, -1)
            means.append(grouped.mean(1))
            errors.append(grouped.std(1) / math.sqrt(count) if count > 1 else torch.zeros_like(means[-1]))
        return torch.cat(means), torch.cat(errors)

    def told(self, values: Tensor, errors: Tensor, steps: int, stopped: str) -> dict[str, object]:
        """``values``, ``errors`` (rows × outputs, players), ``prediction`` (rows, outputs), ``base`` (1, outputs)."""
        players = self.owner.shape[1]
        return {
            "values": packed(values.reshape(-1, players)),
            "errors": packed(errors.reshape(-1, players)),
            "prediction": packed(self.prediction),
            "base": packed(self.base),
            "steps": steps,
            "gradients": self.gradients,
            "stopped": stopped,
        }


def integrated_gradients(work: Work) -> dict[str, object]:
    """Along straight lines from every background row (Sundararajan, Taly, Yan 2017), by Gauss-Legendre quadrature."""
    engine = captum.attr.IntegratedGradients(work.network)
    bound = work.precision * float((work.prediction - work.base).abs().max())
    steps, begun = min(FIRST_STEPS, work.most), time.monotonic()
    while True:

        def attribute(rows: Tensor, background: Tensor, output: int, steps: int = steps) -> Tensor:
            most = max(len(rows), CHUNK // work.network.widest)
            attributed: Tensor = engine.attribute(
                rows, background, target=output, n_steps=steps, internal_batch_size=most
            )
            return attributed

        values, errors = work.by_baseline(attribute, 1)
        work.gradients += steps * len(work.rows) * len(work.background) * work.network.outputs
        residual = float((work.prediction - work.base - values.sum(2)).abs().max())
        now = time.monotonic()
        if residual <= bound or steps >= work.most:
            return work.told(values, errors, steps, "residual" if residual <= bound else "evaluations")
        if now + 2 * (now - begun) > work.until:  # the next one costs twice as much
            return work.told(values, errors, steps, "budget")
        steps, begun = min(2 * steps, work.most), now


def deep_lift(work: Work) -> dict[str, object]:
    """DeepLIFT's rescale rule against every background row (Shrikumar, Greenside, Kundaje 2017)."""
    engine = captum.attr.DeepLift(work.network)

    def attribute(rows: Tensor, background: Tensor, output: int) -> Tensor:
        attributed: Tensor = engine.attribute(rows, background, target=output)
        return attributed

    values, errors = work.by_baseline(attribute, 2)
    work.gradients += len(work.rows) * len(work.background) * work.network.outputs
    return work.told(values, errors, 1, "done")


def saliency(work: Work) -> dict[str, object]:
    """The largest |gradient| among a player's columns (Simonyan, Vedaldi, Zisserman 2014)."""
    engine = captum.attr.Saliency(work.network)
    attributed = torch.stack([engine.attribute(work.rows, target=output) for output in range(work.network.outputs)], 1)
    owners = work.owner.argmax(1).expand(attributed.shape)
    none = torch.zeros(*attributed.shape[:2], work.owner.shape[1], dtype=torch.float64)
    return _of_gradients(work, none.scatter_reduce(2, owners, attributed.detach(), "amax"))


def input_x_gradient(work: Work) -> dict[str, object]:
    """Gradient times value, as the first layer sees both."""
    engine = captum.attr.InputXGradient(work.network)
    attributed = torch.stack([engine.attribute(work.rows, target=output) for output in range(work.network.outputs)], 1)
    return _of_gradients(work, attributed.detach() @ work.owner)


def _of_gradients(work: Work, values: Tensor) -> dict[str, object]:
    work.gradients += len(work.rows) * work.network.outputs
    return work.told(values, torch.zeros_like(values), 1, "done")


METHODS: dict[str, Callable[[Work], dict[str, object]]] = {
    "integratedGradients": integrated_gradients,
    "deepLift": deep_lift,
    "saliency": saliency,
    "inputXGradient": input_x_gradient,
}


class Channel:
    def __init__(self, source: IO[bytes], sink: IO[bytes]) -> None:
        self._source, self._sink = source, sink

    def send(self, message: dict[str, object]) -> None:
        body = json.dumps(message, allow_nan=False).encode()
        self._sink.write(len(body).to_bytes(4, "big") + body)
        self._sink.flush()

    def receive(self) -> Frame | None:
        head = self._source.read(4)
        if len(head) < 4:
            return None
        frame: Frame = json.loads(self._source.read(int.from_bytes(head, "big")))
        return frame


def packed(matrix: Tensor) -> Matrix:
    values = np.ascontiguousarray(matrix.detach().numpy(), np.float64)
    return {"shape": list(values.shape), "data": base64.b64encode(values.tobytes()).decode()}


def unpacked(message: Matrix) -> Floats:
    flat: Floats = np.frombuffer(base64.b64decode(message["data"]), np.float64).copy()
    return flat.reshape(message["shape"])


def ends_with(source: int) -> None:
    """Ends this process when nobody holds the other end of its input any more, whatever it computes."""
    poll = select.poll()
    poll.register(source, 0)
    poll.poll()
    os._exit(0)


def main() -> None:
    source = os.dup(0)
    channel = Channel(os.fdopen(source, "rb"), os.fdopen(os.dup(1), "wb"))
    os.dup2(2, 1)  # whatever a library prints goes to the log
    threading.Thread(target=ends_with, args=(source,), daemon=True).start()
    torch.set_num_threads(1)
    channel.send({"hello": {name: version(name) for name in ("captum", "numpy", "torch")}})
    while (frame := channel.receive()) is not None:
        task = frame.get("task")
        if task is None:  # a stop that came twice
            continue
        try:
            channel.send({"done": METHODS[task["method"]](Work(task))})
        except Exception as error:  # told to whoever gave the task, who may give another
            channel.send({"failed": f"{type(error).__name__}: {error}"[:2000]})


if __name__ == "__main__":
    main()
