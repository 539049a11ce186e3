"""A layer's inputs and outputs as rows of a linear map, one for every position.

A linear layer maps each of T positions (of a sequence, an image, several calls) by the same
[W | b]; a convolution maps patches, an embedding one-hot rows of tokens. With a (n, T, d_in) and
z (n, T, d_out): z = a Wᵀ + b. A grouped convolution is one such map for each of its G groups, with
a (n, G, T, d_in) and z (n, G, T, d_out / G).
"""

from __future__ import annotations

from typing import cast

from jaxtyping import Float
from torch import Tensor, nn

from decomposition.layers.blocks import LinearBlock

Convolution = nn.Conv1d | nn.Conv2d
KRONECKER = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Embedding)
"""Module types with a Kronecker form."""


def patches(layer: nn.Module, a: Tensor, examples: int) -> Float[Tensor, "n *G T d_in"]:
    """What the weight multiplies, example by example; G where there are groups.

    Rows beyond the examples are positions too: (n·T, d_in) → (n, T, d_in), and images of n·t
    frames. An embedding's padding is a row of zeros: autograd gives that token no gradient.
    """
    if isinstance(layer, nn.Linear):
        return a.reshape(examples, -1, layer.in_features)
    if isinstance(layer, nn.Embedding):
        tokens = a.reshape(examples, -1)
        rows = nn.functional.one_hot(tokens, layer.num_embeddings).to(layer.weight)
        if layer.padding_idx is not None:
            rows[..., layer.padding_idx] = 0
        return rows
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
    return _by_group(layer, rows.reshape(examples, -1, rows.shape[2]))


def responses(layer: nn.Module, z: Tensor, examples: int, lead: int = 0) -> Tensor:
    """Layer outputs (…, n, *G, T, d_out), positions in rows; ``lead`` dimensions before n."""
    if isinstance(layer, nn.Linear | nn.Embedding):
        return z.reshape(*z.shape[:lead], examples, -1, z.shape[-1])
    rows = z.flatten(lead + 2).transpose(-1, -2)
    return _by_group(layer, rows.reshape(*z.shape[:lead], examples, -1, rows.shape[-1]))


def _by_group(layer: nn.Module, rows: Tensor) -> Tensor:
    """(…, T, G·d) → (…, G, T, d) of a grouped convolution; channels of a group are neighbours."""
    groups = cast(Convolution, layer).groups
    return rows if groups == 1 else rows.unflatten(-1, (groups, -1)).transpose(-3, -2)


def linear_block(layer: nn.Module, name: str, start: int, bias: bool) -> LinearBlock:
    """The block of a layer."""
    weight = cast(Tensor, layer.weight)
    if isinstance(layer, nn.Embedding):
        return LinearBlock(name, start, *weight.shape, bias=False, transposed=True)
    groups = int(getattr(layer, "groups", 1))
    return LinearBlock(name, start, weight[0].numel(), len(weight), bias, groups)
