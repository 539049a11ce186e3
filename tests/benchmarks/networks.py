"""Networks on random data, of which costs are measured."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from decomposition import Problem
from decomposition.problems.networks import mlp as stack


def problem(model: nn.Module, x: Tensor, classes: int, queries: int = 4) -> Problem:
    """Random labels; the last rows of ``x`` are the queries."""
    y = torch.randint(0, classes, (len(x),))
    n = len(x) - queries
    return Problem(model.double(), nn.CrossEntropyLoss(), (x[:n], y[:n]), (x[n:], y[n:]))


def mlp(examples: int = 5000) -> Problem:
    """784-128-10, P = 101,770: the size of MNIST's small standard network."""
    model = nn.Sequential(nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 10))
    return problem(model, torch.randn(examples + 4, 784, dtype=torch.float64), 10)


def cnn(examples: int = 1000) -> Problem:
    """Two convolutions on 8×8 images."""
    model = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1),
        nn.Tanh(),
        nn.Conv2d(8, 16, 3, stride=2, padding=1),
        nn.Tanh(),
        nn.Flatten(),
        nn.Linear(256, 10),
    )
    return problem(model, torch.randn(examples + 4, 1, 8, 8, dtype=torch.float64), 10)


class Block(nn.Module):
    """Self-attention and two dense layers, each on normalised inputs and added to them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList([nn.LayerNorm(width), nn.LayerNorm(width)])
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        h = self.norms[0](x)
        scores = self.query(h) @ self.key(h).mT / h.shape[-1] ** 0.5
        x = x + self.out(scores.softmax(-1) @ self.value(h))
        return x + self.down(torch.tanh(self.up(self.norms[1](x))))


class Transformer(nn.Module):
    def __init__(self, tokens: int, length: int, width: int, blocks: int) -> None:
        super().__init__()
        self.token, self.place = nn.Embedding(tokens, width), nn.Embedding(length, width)
        self.blocks = nn.Sequential(*(Block(width) for _ in range(blocks)))
        self.head = nn.Linear(width, tokens)

    def forward(self, x: Tensor) -> Tensor:
        h = self.token(x) + self.place(torch.arange(x.shape[1]))
        return self.head(self.blocks(h).mean(1))


def transformer(examples: int = 1000) -> Problem:
    """Two blocks of width 24 on 16 tokens."""
    tokens = torch.randint(0, 20, (examples + 4, 16))
    return problem(Transformer(20, 16, 24, 2), tokens, 20)


def wide(width: int, examples: int, queries: int = 1) -> Problem:
    """64-w-w-2: P grows with the square of the width."""
    x = torch.randn(examples + queries, 64, dtype=torch.float64)
    return problem(stack((64, width, width, 2), nn.GELU, 0), x, 2, queries)


NETWORKS = {"MLP": mlp, "CNN": cnn, "transformer": transformer}
