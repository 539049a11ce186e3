"""One linear layer of many model copies: stacked parameters, gradients accumulated in place.

Shapes: M models, B examples of a batch, d_in and d_out features. Outputs are stored
feature-major, as (M, d_out, B), and handed on as their (M, B, d_out) transposes: the batched
products keep their speed for narrow layers, and a softmax over the last layer runs over strided
classes, which is many times faster than over ten adjacent ones.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from decomposition.errors import UnsupportedModelError


class StackedLinear:
    """W x + b for M copies; the backward pass writes ``sum ← decay·sum + ∂ℓ/∂W`` in place.

    No parameter gradient is returned. The decay costs nothing because the product itself
    applies it; with decay = momentum, ``sum`` is the velocity of SGD.
    """

    def __init__(self, layer: nn.Linear, models: int, decay: float) -> None:
        """Take the shape of ``layer``; ``place`` gives the memory."""
        self.models, self.decay = models, decay
        self.d_out, self.d_in = layer.out_features, layer.in_features
        self.has_bias = layer.bias is not None
        device = layer.weight.device
        self.anchor = torch.zeros((), requires_grad=True, device=device)  # outputs need a gradient

    def place(self, theta: Float[Tensor, " n"], sums: Float[Tensor, " n"]) -> None:
        """Use these pieces, of ``models`` × the layer's parameters, of the two flat buffers."""
        self.weight, self.bias = self._views(theta)
        self.weight_sum, self.bias_sum = self._views(sums)

    def _views(self, flat: Tensor) -> tuple[Tensor, Tensor | None]:
        weights = self.models * self.d_out * self.d_in
        weight = flat[:weights].view(self.models, self.d_out, self.d_in)
        return weight, flat[weights:].view(self.models, self.d_out, 1) if self.has_bias else None

    def directly(self, x: Float[Tensor, "M B d_in"]) -> Float[Tensor, "M B d_out"]:
        """Outputs of all copies on stacked inputs."""
        return _Product.apply(x, self.anchor, self).mT

    def inside_vmap(self, x: Float[Tensor, "B d_in"]) -> Float[Tensor, "B d_out"]:
        """The same, called from inside ``vmap`` over the models."""
        return _ProductInsideVmap.apply(x, self.anchor, self).mT


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, anchor: Tensor, layer: StackedLinear) -> Tensor:
        ctx.save_for_backward(x)
        ctx.layer = layer
        if layer.bias is None:
            return torch.bmm(layer.weight, x.mT)
        return torch.baddbmm(layer.bias, layer.weight, x.mT)

    @staticmethod
    def backward(ctx: Any, dz: Tensor) -> Any:
        (x,), layer = ctx.saved_tensors, ctx.layer
        layer.weight_sum.baddbmm_(dz, x, beta=layer.decay)
        if layer.bias_sum is not None:
            layer.bias_sum.mul_(layer.decay).add_(dz.sum(2, keepdim=True))
        dx = torch.bmm(layer.weight.mT, dz).mT if ctx.needs_input_grad[0] else None
        return dx, None, None


class _ProductInsideVmap(torch.autograd.Function):
    @staticmethod
    def forward(x: Tensor, anchor: Tensor, layer: StackedLinear) -> Tensor:
        raise UnsupportedModelError("the input of a linear layer does not depend on the example")

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        pass

    @staticmethod
    def vmap(info: Any, in_dims: Any, x: Tensor, anchor: Tensor, layer: StackedLinear) -> Any:
        return _Product.apply(x.movedim(in_dims[0], 0), anchor, layer), 0
