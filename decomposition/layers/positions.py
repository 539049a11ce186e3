"""A layer's inputs and outputs as rows of a linear map, one for every position.

A linear layer maps each of T positions (of a sequence, an image, several calls) by the same
[W | b]; a convolution maps patches. With a (n, T, d_in) and z (n, T, d_out): z = a Wᵀ + b.
"""

from __future__ import annotations

from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

Convolution = nn.Conv1d | nn.Conv2d
KRONECKER = (nn.Linear, nn.Conv1d, nn.Conv2d)
"""Module types with a Kronecker form."""


def patches(layer: nn.Module, a: Tensor, examples: int) -> Float[Tensor, "n T d_in"]:
    """What the weight multiplies, example by example.

    Rows beyond the examples are positions too: (n·T, d_in) → (n, T, d_in), and images of n·t
    frames.
    """
    if isinstance(layer, nn.Linear):
        return a.reshape(examples, -1, layer.in_features)
    convolution = cast(Convolution, layer)
    mode = convolution.padding_mode
    around = list(convolution._reversed_padding_repeated_twice)
    a = nn.functional.pad(a, around, "constant" if mode == "zeros" else mode)
    kernel, stride, dilation = (
        (1,) * (2 - len(size)) + tuple(size)
        for size in (convolution.kernel_size, convolution.stride, convolution.dilation)
    )
    if isinstance(layer, nn.Conv1d):
        a = a[:, :, None]
    rows = nn.functional.unfold(a, kernel, dilation, 0, stride).transpose(1, 2)
    return rows.reshape(examples, -1, rows.shape[2])


def responses(layer: nn.Module, z: Tensor, examples: int, lead: int = 0) -> Tensor:
    """Layer outputs (…, n, T, d_out), positions in rows; ``lead`` dimensions stand before n."""
    if isinstance(layer, nn.Linear):
        return z.reshape(*z.shape[:lead], examples, -1, layer.out_features)
    rows = z.flatten(lead + 2).transpose(-1, -2)
    return rows.reshape(*z.shape[:lead], examples, -1, rows.shape[-1])


def block_shape(layer: nn.Module) -> tuple[int, int]:
    """(d_in, d_out) of the matrix W."""
    if isinstance(layer, nn.Linear):
        return layer.in_features, layer.out_features
    weight = cast(Tensor, layer.weight)
    return int(torch.tensor(weight.shape[1:]).prod()), weight.shape[0]
