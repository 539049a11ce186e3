"""Multilayer perceptrons, with PyTorch's initialisation at a seed of their own."""

from __future__ import annotations

import itertools

import torch
from torch import nn

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "tanh": nn.Tanh,
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "sigmoid": nn.Sigmoid,
    "softplus": nn.Softplus,
    "identity": nn.Identity,
}
"""Activation functions by name."""


def mlp(widths: tuple[int, ...], activation: type[nn.Module], seed: int) -> nn.Sequential:
    """A multilayer perceptron with PyTorch's default initialisation at ``seed``."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers: list[nn.Module] = []
        for d_in, d_out in itertools.pairwise(widths):
            layers += [nn.Linear(d_in, d_out), activation()]
        return nn.Sequential(*layers[:-1])
