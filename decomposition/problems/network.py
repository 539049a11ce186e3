"""Multilayer perceptrons, with PyTorch's initialisation at a seed of their own."""

from __future__ import annotations

import itertools

import torch
from torch import nn

from decomposition.errors import ProblemError

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


def one_width(name: str, widths: tuple[int, ...], multiple: int) -> int:
    """The width of a network whose layers are all as wide.

    Raises:
        ProblemError: there is not one width, or it is no multiple of ``multiple``.
    """
    if len(widths) != 1:
        given = "-".join(map(str, widths)) or "none"
        raise ProblemError(f"{name} takes one width as hidden, such as hidden=16, got {given}")
    if widths[0] % multiple:
        raise ProblemError(f"{name}: hidden must be a multiple of {multiple}, got {widths[0]}")
    return widths[0]
