"""Blocks: where a module's trainable parameters lie in the flat parameter vector.

The vector holds the trainable parameters in ``named_parameters()`` order, tied ones once. A
*block* is one module, weight and bias together: a ``LinearBlock`` where the module is a linear
map of its input, so that its curvature has a Kronecker form, and an ``ExactBlock`` otherwise.

In a ``LinearBlock`` the row-major weight (d_out × d_in) is followed by the bias (d_out). As a
matrix it is [W | b] of shape (d_out, width) with width = d_in + 1 if there is a bias, and the
layer input gets a 1 appended to match. A convolution is the same matrix on patches: its d_in is
in_channels times the number of kernel elements. In a grouped convolution d_in counts the channels
of one group, and the rows of [W | b] fall into as many groups, each a linear map of patches of its
own. An embedding maps one-hot rows; its parameters are those of Wᵀ (tokens × d_out), as in the
``Conv1D`` of GPT-2, y = x Wᵀ + b.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class LinearBlock:
    """A linear layer, a convolution, or an embedding as the linear map of one-hot rows."""

    name: str
    """Module path, for example ``0`` or ``encoder.fc1``."""
    start: int
    """Index of its first parameter."""
    d_in: int
    """Input features (of each group), without the appended 1."""
    d_out: int
    """Output features (of all groups)."""
    bias: bool
    """Whether there is a trainable bias."""
    groups: int = 1
    """Into how many maps, each with inputs of its own, the rows of [W | b] fall."""
    transposed: bool = False
    """Whether the weight's parameters are those of Wᵀ."""

    @property
    def width(self) -> int:
        """Columns of [W | b]."""
        return self.d_in + int(self.bias)

    @property
    def size(self) -> int:
        """Number of parameters."""
        return self.d_out * self.width

    @property
    def slice(self) -> slice:
        """Its place in the flat parameter vector."""
        return slice(self.start, self.start + self.size)

    def to_matrix(self, v: Tensor) -> Tensor:
        """(size, k) in parameter order → (d_out, width, k) as [W | b]."""
        weight = v[: self.d_out * self.d_in]
        if self.transposed:
            weight = weight.reshape(self.d_in, self.d_out, v.shape[1]).transpose(0, 1)
        else:
            weight = weight.reshape(self.d_out, self.d_in, v.shape[1])
        if not self.bias:
            return weight
        return torch.cat([weight, v[self.d_out * self.d_in :, None, :]], dim=1)

    def from_matrix(self, m: Tensor) -> Tensor:
        """(d_out, width, k) as [W | b] → (size, k) in parameter order."""
        weight = m[:, : self.d_in].transpose(0, 1) if self.transposed else m[:, : self.d_in]
        if not self.bias:
            return weight.reshape(self.size, m.shape[2])
        split = self.d_out * self.d_in
        v = m.new_empty(self.size, m.shape[2])
        v[:split].view(weight.shape).copy_(weight)
        v[split:] = m[:, self.d_in]
        return v

    def append_one(self, a: Tensor) -> Tensor:
        """Layer input (…, d_in) → (…, width), with a column of ones if there is a bias."""
        return torch.cat([a, a.new_ones(*a.shape[:-1], 1)], dim=-1) if self.bias else a


@dataclass(frozen=True)
class ExactBlock:
    """A module without a Kronecker form: its exact block stands in wherever one is asked for."""

    name: str
    """Module path."""
    start: int
    """Index of its first parameter."""
    size: int
    """Number of parameters."""
    parameters: tuple[str, ...]
    """Their paths."""
    reason: str
    """Why there is no Kronecker form: ``LayerNorm``, ``tied to head.weight``, …"""
    way_out: str = ""
    """How the module gets one, if there is a way."""

    @property
    def slice(self) -> slice:
        """Its place in the flat parameter vector."""
        return slice(self.start, self.start + self.size)

    @property
    def note(self) -> str:
        """What a reader of a result must know."""
        return (
            f"block {self.name} ({self.reason}, {self.size} parameters) has no Kronecker form: "
            "its exact block stands in for it in ekfac and kfac"
        )


Block = LinearBlock | ExactBlock
