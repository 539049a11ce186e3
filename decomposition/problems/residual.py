"""A residual convolutional network without normalisation layers.

Batch normalisation in training mode couples the examples of a batch, so that no loss per example
exists. Residual branches scaled down by 1/√B keep B blocks trainable without it (Zhang, Dauphin,
Ma 2019, *Fixup initialization*, arXiv 1901.09321; De, Smith 2020, arXiv 2002.10444).
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn


class ResidualBlock(nn.Module):
    """h + scale · conv(φ(conv(φ(h)))), both convolutions 3×3 with as many channels as h."""

    def __init__(self, channels: int, activation: type[nn.Module], scale: float) -> None:
        """A block of 2 · (9 · channels² + channels) parameters."""
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        self.activation = activation()
        self.scale = scale

    def forward(self, h: Float[Tensor, "n c s s"]) -> Float[Tensor, "n c s s"]:
        """The shape stays."""
        branch = self.second(self.activation(self.first(self.activation(h))))
        return h + self.scale * branch


class ResidualNetwork(nn.Module):
    """Two stages at half and a quarter of the image's side; most parameters are in the second.

    A stem of width/4 channels, a convolution of stride 2 to width/2, one residual block there,
    another of stride 2 to ``width``, ``blocks`` residual blocks, and a linear layer on all
    channels and positions.
    """

    def __init__(
        self,
        width: int,
        blocks: int,
        outputs: int,
        activation: type[nn.Module],
        seed: int,
        side: int = 8,
    ) -> None:
        """PyTorch's default initialisation at ``seed``; ``width`` and ``side`` divide by 4."""
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            scale = (1 + blocks) ** -0.5
            self.stem = nn.Conv2d(1, width // 4, 3, padding=1)
            self.halve = nn.Conv2d(width // 4, width // 2, 3, stride=2, padding=1)
            self.early = ResidualBlock(width // 2, activation, scale)
            self.quarter = nn.Conv2d(width // 2, width, 3, stride=2, padding=1)
            self.late = nn.Sequential(
                *(ResidualBlock(width, activation, scale) for _ in range(blocks))
            )
            self.activation = activation()
            self.head = nn.Linear(width * (side // 4) ** 2, outputs)

    def forward(self, images: Float[Tensor, "n 1 side side"]) -> Float[Tensor, "n C"]:
        """Class scores."""
        h = self.early(self.halve(self.activation(self.stem(images))))
        h = self.late(self.quarter(self.activation(h)))
        return self.head(self.activation(h).flatten(1))
