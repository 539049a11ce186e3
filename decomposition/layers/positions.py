"""A layer's inputs and outputs as rows of a linear map, one for every position.

A linear layer maps each of T positions (of a sequence, an image, several calls) by the same
[W | b]; a convolution maps patches, an embedding one-hot rows of tokens. With a (n, T, d_in) and
z (n, T, d_out): z = a Wᵀ + b. A grouped convolution is one such map for each of its G groups, with
a (n, G, T, d_in) and z (n, G, T, d_out / G).
"""

from __future__ import annotations

from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from decomposition.inputs import is_of_transformers
from decomposition.layers.blocks import LinearBlock

Convolution = nn.Conv1d | nn.Conv2d


def has_kronecker_form(layer: nn.Module) -> bool:
    """Whether the module's type is that of a linear map of its inputs."""
    return isinstance(layer, nn.Linear | Convolution | nn.Embedding) or _is_gpt2_map(layer)


def is_transposed(layer: nn.Module) -> bool:
    """Whether such a layer's weight has its inputs in the rows."""
    return isinstance(layer, nn.Embedding) or _is_gpt2_map(layer)


def _is_gpt2_map(layer: nn.Module) -> bool:
    return is_of_transformers(type(layer), "Conv1D")


def patches(layer: nn.Module, a: Tensor, examples: int) -> Float[Tensor, "n *G T d_in"]:
    """What the weight multiplies, example by example; G where there are groups.

    Rows beyond the examples are positions too: (n·T, d_in) → (n, T, d_in), and images of n·t
    frames. An embedding's padding is a row of zeros: autograd gives that token no gradient.
    """
    if isinstance(layer, nn.Embedding):
        tokens = a.reshape(examples, -1)
        rows = nn.functional.one_hot(tokens, layer.num_embeddings).to(layer.weight)
        if layer.padding_idx is not None:
            rows[..., layer.padding_idx] = 0
        return rows
    if not isinstance(layer, Convolution):
        return a.reshape(examples, -1, a.shape[-1])
    mode = layer.padding_mode
    around = list(layer._reversed_padding_repeated_twice)
    a = nn.functional.pad(a, around, "constant" if mode == "zeros" else mode)
    kernel, stride, dilation = (
        (1,) * (2 - len(size)) + tuple(size)
        for size in (layer.kernel_size, layer.stride, layer.dilation)
    )
    if isinstance(layer, nn.Conv1d):
        a = a[:, :, None]
    rows = nn.functional.unfold(a, kernel, dilation, 0, stride).transpose(1, 2)
    return _by_group(layer, rows.reshape(examples, -1, rows.shape[2]))


def responses(layer: nn.Module, z: Tensor, examples: int, lead: int = 0) -> Tensor:
    """Layer outputs (…, n, *G, T, d_out), positions in rows; ``lead`` dimensions before n."""
    if not isinstance(layer, Convolution):
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
    if is_transposed(layer):
        d_in, d_out = weight.shape
        return LinearBlock(name, start, d_in, d_out, bias, transposed=True)
    groups = int(getattr(layer, "groups", 1))
    return LinearBlock(name, start, weight[0].numel(), len(weight), bias, groups)


def linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    """A layer with copies of these parameters, frozen if they are."""
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias is not None, device="meta")
    for name, value in (("weight", weight), ("bias", bias)):
        if value is not None:
            copied = value.detach().clone(memory_format=torch.contiguous_format)
            setattr(layer, name, nn.Parameter(copied, value.requires_grad))
    return layer
