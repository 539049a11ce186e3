"""Multilayer perceptrons, with PyTorch's initialisation at a seed of their own."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import torch
from torch import nn

from decomposition.errors import ProblemError
from decomposition.resources import free_memory, size_text

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


MOST_BLOCKS = 1000
BYTES = 32
"""That a parameter takes at the least: itself, a gradient and a momentum, and a copy in double
precision."""


def fitting(name: str, make: Callable[[], nn.Module]) -> nn.Module:
    """What ``make`` makes, if it fits into memory: it is measured on the device ``meta`` first.

    Raises:
        ProblemError: it has more parameters than memory can hold.
    """
    try:
        with torch.device("meta"):
            size = sum(parameter.numel() for parameter in make().parameters())
    except RuntimeError:  # a layer of more bytes than an address can count
        size = 2**60
    free = free_memory()
    if BYTES * size > free:
        raise ProblemError(
            f"{name}: a network of this size has {size:,} parameters, whose training takes "
            f"{size_text(BYTES * size)} of memory where {size_text(free)} are free: ask for "
            f"smaller hidden layers or fewer blocks, {free // BYTES:,} parameters in all"
        )
    return make()


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


def check_blocks(name: str, blocks: int) -> None:
    """Raise ProblemError if there are more blocks than MOST_BLOCKS."""
    if blocks > MOST_BLOCKS:
        raise ProblemError(f"{name}: blocks must be 1 to {MOST_BLOCKS:,}, got {blocks:,}")
