"""The models that the door bench runs, and what it sends them."""

import random
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from governed_api.callers import CallerRole
from governed_api.json_types import Json

sys.path.insert(0, str(Path(__file__).parents[2]))
from support.damage import flipped
from support.text_models import embedder

__all__ = ["GOVERNED", "TARGETS", "Target", "credentials", "shown_key"]

GOVERNED = str(Path(sys.executable).with_name("governed"))
SAMPLES = Path(__file__).parents[3] / "crds" / "samples"


@dataclass(frozen=True)
class Target:
    """A model. ``good`` goes to ``path`` of the server; ``key`` is what its callers show, "" where nobody asks."""

    model: str
    manifest: Path
    good: dict[str, Json]
    path: str
    key: str = ""
    explained: bool = False

    @property
    def secret(self) -> str:
        """The part of the key that must stand nowhere."""
        return self.key.split("_", 2)[-1]

    @property
    def paths(self) -> Mapping[str, list[str]]:
        """Of each port, those that are asked; the server's own first."""
        model = f"/v2/models/{self.model}"
        return {
            "server": [
                self.path, f"{model}/infer", f"{model}/explain", f"/v1/models/{self.model}:predict",
                "/v1/chat/completions", "/v1/embeddings", model, "/v2/models", "/metrics", "/",
            ],
            "gRPC": ["/"],
            "explainer": [f"{model}/explain", f"{model}/explanations", "/metrics"],
            "auditor": [
                "/v1/labels", "/v1/reviews", "/v1/acknowledgements", "/v1/verdict", "/v1/reviews/x", "/metrics",
            ],
            "archive": [
                "/v1/ledger/entries", "/v1/ledger/find", "/v1/blobs/00", "/v1/keysets/x/y", "/v1/ledger/checkpoint",
            ],
        }  # fmt: skip


def _tensors(**columns: str | float) -> dict[str, Json]:
    return {
        "id": "a",
        "inputs": [
            {"name": n, "shape": [1, 1], "datatype": "BYTES" if isinstance(v, str) else "FP32", "data": [v]}
            for n, v in columns.items()
        ],
    }


def _plain(_: Path) -> Target:
    good = _tensors(department="A", sex="female")
    return Target("admissions", SAMPLES / "admissions.yaml", good, "/v2/models/admissions/infer", explained=True)


def _keys(_: Path) -> Target:
    return Target(
        "tickets", SAMPLES / "consumers.yaml", _tensors(urgency="high", length=120.0), "/v2/models/tickets/infer", "?"
    )


def _texts(scratch: Path) -> Target:
    """Embeddings of a small transformer, whose callers show keys."""
    manifest = scratch / "model.yaml"
    subprocess.run([GOVERNED, "init", embedder(scratch / "vectors"), "-o", manifest], check=True, capture_output=True)
    said = yaml.safe_load(manifest.read_text())
    said["spec"]["access"] = {"authentication": "Required"}
    manifest.write_text(yaml.safe_dump(said))
    good: dict[str, Json] = {"model": "vectors", "input": ["the food was good", "a film"]}
    return Target("vectors", manifest, good, "/v1/embeddings", "?")


TARGETS = {"plain": _plain, "keys": _keys, "texts": _texts}
"""Made in a scratch folder; one with a key has none yet."""


def shown_key(target: Target, workdir: Path, key_file: Path) -> str:
    """A key for all roles, of a run that has begun."""
    subprocess.run(
        [GOVERNED, "consumer", "create", "bench", "--models", target.model, "--roles", ",".join(CallerRole),
         "--workdir", workdir, "--key-file", key_file],
        check=True, capture_output=True,
    )  # fmt: skip
    return key_file.read_text().strip()


def credentials(rng: random.Random, key: str) -> list[tuple[bytes, bytes]]:
    """What a request shows: as a rule the key, else something near it."""
    shown, slip = key.encode(), rng.choice([b"\xff", "é".encode(), b"\t", b"=", b"A" * 600, b", Bearer x"])
    bearer = (b"authorization", b"Bearer " + shown)
    return rng.choice(
        [
            [bearer], [bearer], [bearer], [bearer], [(b"x-api-key", shown)], [(b"api-key", shown)],
            [], [bearer, bearer], [bearer, (b"x-api-key", shown)], [(b"authorization", b"Bearer " + shown + slip)],
            [(b"authorization", b"Basic " + shown)], [(b"authorization", flipped(shown))],
            [(b"x-api-key", slip + shown)], [(b"cookie", b"key=" + shown)], [(b"authorization-bin", shown)],
        ]
    )  # fmt: skip
