"""Networks: linear, multi-layer perceptron, small text transformer. They read encoded rows and give raw scores."""

from itertools import pairwise

import torch
from torch import Tensor, nn

from governed_api.lifecycle import Architecture
from governed_serving.trainer.preprocessing import FIRST_TOKEN, PADDING, Preprocessing

TEXT_WIDTH = 16
"""Embedding width of a text beside tabular features (linear, mlp)."""


class TextMean(nn.Module):
    """Mean embedding of the tokens of a text: ids int64 (batch, tokens) → float32 (batch, width); no tokens give
    zeros."""

    def __init__(self, vocabulary: int, width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary + FIRST_TOKEN, width, padding_idx=PADDING)
        nn.init.normal_(self.embedding.weight, std=0.1)
        with torch.no_grad():
            self.embedding.weight[PADDING] = 0.0  # stays so: padding_idx has no gradient

    def forward(self, ids: Tensor) -> Tensor:
        count = (ids != PADDING).to(torch.float32).sum(1, keepdim=True)
        mean: Tensor = self.embedding(ids).sum(1) / count.clamp(min=1.0)
        return mean


class Attention(nn.Module):
    """Multi-head self-attention (Vaswani et al. 2017) that looks at real tokens only."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.project = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        _, tokens, width = x.shape
        q, k, v = (
            self.project(x).reshape(-1, tokens, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4).unbind(0)
        )
        scores = q @ k.transpose(-2, -1) * (width // self.heads) ** -0.5 + bias
        mixed: Tensor = self.out((scores.softmax(-1) @ v).transpose(1, 2).reshape(-1, tokens, width))
        return mixed


class Block(nn.Module):
    """Pre-norm encoder block."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.feed = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        x = x + self.dropout(self.attention(self.norm1(x), bias))
        out: Tensor = x + self.dropout(self.feed(self.norm2(x)))
        return out


class TextEncoder(nn.Module):
    """Token and position embeddings, blocks, mean over real tokens: ids (batch, tokens) → (batch, width)."""

    def __init__(self, vocabulary: int, tokens: int, spec: Architecture) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary + FIRST_TOKEN, spec.dimension, padding_idx=PADDING)
        self.position = nn.Parameter(torch.randn(tokens, spec.dimension) * 0.02)
        self.blocks = nn.ModuleList(Block(spec.dimension, spec.heads, spec.dropout) for _ in range(spec.layers))
        self.norm = nn.LayerNorm(spec.dimension)

    def forward(self, ids: Tensor) -> Tensor:
        seen = (ids != PADDING).to(torch.float32)
        # A large finite number, not −inf: a text without tokens must not become NaN.
        bias = (seen[:, None, None, :] - 1.0) * 1e4
        x = self.embedding(ids) + self.position
        for block in self.blocks:
            x = block(x, bias)
        kept = seen.unsqueeze(-1)
        pooled: Tensor = (self.norm(x) * kept).sum(1) / kept.sum(1).clamp(min=1.0)
        return pooled


class Network(nn.Module):
    """Encoded inputs in ``Preprocessing.inputs`` order → scores (batch, outputs)."""

    def __init__(self, fitted: Preprocessing, spec: Architecture, outputs: int) -> None:
        super().__init__()
        self.tabular = fitted.width > 0
        width = fitted.width
        self.texts = nn.ModuleList()
        for text in fitted.texts:
            size = len(text.vocabulary)
            if spec.type == "textTransformer":
                self.texts.append(TextEncoder(size, text.max_tokens, spec))
                width += spec.dimension
            else:
                self.texts.append(TextMean(size, TEXT_WIDTH))
                width += TEXT_WIDTH
        self.head = _head(width, spec, outputs)

    def forward(self, *inputs: Tensor) -> Tensor:
        texts = inputs[1:] if self.tabular else inputs
        parts = [inputs[0]] if self.tabular else []
        parts += [encoder(ids) for encoder, ids in zip(self.texts, texts, strict=True)]
        scores: Tensor = self.head(torch.cat(parts, 1) if len(parts) > 1 else parts[0])
        return scores


def _head(width: int, spec: Architecture, outputs: int) -> nn.Module:
    if spec.type != "mlp":
        return nn.Linear(width, outputs)
    layers: list[nn.Module] = []
    for before, after in pairwise([width, *spec.hidden]):
        layers += [nn.Linear(before, after), nn.ReLU()]
        if spec.dropout:
            layers.append(nn.Dropout(spec.dropout))
    return nn.Sequential(*layers, nn.Linear(spec.hidden[-1], outputs))
