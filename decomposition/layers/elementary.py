"""Functions that PyTorch does not differentiate in every way alike, in operations that it does."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode


class ElementaryOperations(TorchFunctionMode):
    """Within it PReLU, weight normalisation and the padding of Embedding are elementary operations.

    PyTorch 2.13's derivative of ``prelu``, vectorised over examples and over columns within each,
    fails, or is wrong where there are as many columns as examples. The token at ``padding_idx``
    has no gradient, but in forward mode it has a tangent: here it is a constant in either. The
    second derivative of the fused ``_weight_norm`` lacks a part under ``torch.func``.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Change these two functions; every other runs as it is."""
        if func in (torch.prelu, torch.Tensor.prelu):
            func = _prelu
        elif func is nn.functional.embedding:
            func = _embedding
        elif func is torch._weight_norm:  # pyright: ignore[reportPrivateImportUsage]
            func = _weight_norm
        return func(*args, **(kwargs or {}))


def _prelu(input: Tensor, weight: Tensor) -> Tensor:
    """x where x > 0, w x elsewhere, with w of the channel."""
    by_channel = weight.view(-1, *(1,) * max(input.ndim - 2, 0))
    return torch.where(input > 0, input, by_channel * input)


def _embedding(
    input: Tensor, weight: Tensor, padding_idx: int | None = None, *options: Any, **named: Any
) -> Tensor:
    """Rows of the weight, of which that at ``padding_idx`` is a constant."""
    if padding_idx is not None:
        rows = torch.arange(len(weight), device=weight.device) == padding_idx % len(weight)
        weight = torch.where(rows[:, None], weight.detach(), weight)
    return nn.functional.embedding(input, weight, None, *options, **named)


def _weight_norm(v: Tensor, g: Tensor, dim: int = 0) -> Tensor:
    """g v / ‖v‖, a norm for every index of ``dim``; −1: one norm of all."""
    axes = [axis for axis in range(v.ndim) if axis != dim]
    return v * (g / v.square().sum(axes, keepdim=True).sqrt())
