"""Small modules beyond a stack of linear layers, for the table of general problems."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn


class Applied(nn.Module):
    """Named children, and a forward pass given as a function of the module and its inputs."""

    def __init__(self, function: Callable[..., object], **children: nn.Module) -> None:
        super().__init__()
        self.function = function
        for name, child in children.items():
            setattr(self, name, child)

    def forward(self, *inputs: Tensor, **named: Tensor) -> object:
        return self.function(self, *inputs, **named)


class Attention(nn.Module):
    """One head of self-attention with a residual connection and a layer norm, pooled."""

    def __init__(self, width: int, outputs: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.query = nn.Linear(width, width, bias=False)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)
        self.head = nn.Linear(width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(x)
        weights = torch.softmax(self.query(h) @ self.key(h).mT / h.shape[-1] ** 0.5, -1)
        h = x + self.out(weights @ self.value(h))
        return self.head(torch.tanh(h).mean(1))


class TiedTokens(nn.Module):
    """Embedding and output layer with one weight, and a linear layer over positions between."""

    def __init__(self, tokens: int, width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(tokens, width)
        self.inner = nn.Linear(width, width)
        self.out = nn.Linear(width, tokens)
        self.out.weight = self.embedding.weight

    def forward(self, tokens: Tensor) -> Tensor:
        return self.out(torch.tanh(self.inner(self.embedding(tokens))).mean(1))


class Scaled(nn.Module):
    """Parameters of its own beside a linear layer called ``model``, as its own block may be."""

    def __init__(self, d_in: int, outputs: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.linspace(0.5, 1.5, d_in))
        self.model = nn.Linear(d_in, outputs)
        self.shift = nn.Parameter(torch.zeros(outputs))
        self.temperature = nn.Parameter(torch.tensor(0.8))  # without dimensions

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.tanh(self.model(torch.tanh(x * self.scale)))
        return self.temperature * hidden + self.shift.sin()
