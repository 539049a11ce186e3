"""Many copies of one module, evaluated and differentiated together.

Shapes: M models, B examples of a batch, C outputs, P parameters; d_in and d_out features of a
linear layer. All parameters of a stack lie in one flat buffer, ``theta``: whatever acts on single
parameters (an optimiser) is one operation on the whole buffer.

Copies run together in one of three ways (``Way``); ``choose_way`` in ``trial`` finds the fastest
that is right: the module as it is on stacked inputs (``direct``, right for element-wise activations
and residual sums), its linear layers inside ``torch.func.vmap`` (``vmapped``), or the whole module
under ``vmap`` over its parameters (``function``). The module is in evaluation mode: the function
that is trained is the one whose curvature is studied.

Time of a training step in float32 on one core of an AMD EPYC, per model, batches of 32, loop over
models → ``function``: ``digits_cnn`` 1.65 → 0.28 ms in stacks of 200, ``chars`` 6.0 → 1.6 ms in
stacks of 50, a CNN of 32 and 64 channels on 8×8 images (P = 21,386) 1.67 → 1.41 ms in stacks of 40.
Unfolded patches with a batched product took longer than the grouped convolution, by a third to
three times. Where the activations leave the cache (28×28 images) the loop is faster: see
``default_chunk_size``; a stack of one model runs the module as it is.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import vmap

from decomposition.errors import UnsupportedModelError
from decomposition.inputs import Inputs, apply, apply_with, call, each

Way = Literal["direct", "vmapped", "function"]


def trainable_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Parameters with ``requires_grad``, in ``named_parameters()`` order, tied ones once."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


class Stack(ABC):
    """M copies of a module; ``load`` fills in their parameters."""

    models: int
    decay: float
    """Factor of ``sums`` before a gradient is added: the momentum of SGD."""
    module: nn.Module
    theta: Float[Tensor, " n"]
    """All parameters of all copies."""
    sums: Float[Tensor, " n"]
    """What ``backward`` leaves, in the order of ``theta``."""

    @abstractmethod
    def parameters(self) -> Iterator[tuple[str, Tensor]]:
        """Names as in the module, and stacked parameters (M, …) as views into ``theta``."""

    @abstractmethod
    def gradients(self) -> Iterator[tuple[str, Tensor]]:
        """The same views into ``sums``."""

    def load(self, start: int, states: Mapping[str, Tensor]) -> None:
        """Set the parameters of copies ``start`` … from (k, …) stacks of them."""
        for name, parameter in self.parameters():
            parameter[start : start + len(states[name])] = states[name]

    @abstractmethod
    def __call__(self, x: Inputs) -> Float[Tensor, "M B C"]:
        """Outputs of every copy on its own batch, the parts of ``x`` being (M, B, …)."""

    @abstractmethod
    def backward(self, outputs: Tensor, gradient: Tensor, again: bool = False) -> None:
        """``sums ← decay·sums + ∂⟨outputs, gradient⟩/∂θ``; without the decay if ``again``."""


def make_stack(
    model: nn.Module, models: int, dtype: torch.dtype, way: Way, decay: float = 0.0
) -> Stack:
    """An empty stack of ``models`` copies."""
    if way == "function":
        return FunctionStack(model, models, dtype, decay)
    return LinearStack(model, models, dtype, way == "direct", decay)


class LinearStack(Stack):
    """M copies of a module whose parameters all sit in linear layers, each used once.

    The buffer holds, layer by layer, the M weights of a layer and then its M biases, so that each
    layer's batched product finds its operands contiguous.
    """

    def __init__(
        self, model: nn.Module, models: int, dtype: torch.dtype, direct: bool, decay: float = 0.0
    ) -> None:
        """Allocate the stack with uninitialised parameters; ``load`` fills them in."""
        self.models, self.dtype, self.direct, self.decay = models, dtype, direct, decay
        self.module = copy.deepcopy(model).to(dtype).eval()
        self._layers: dict[str, StackedLinear] = {}
        for name, layer in self.module.named_modules():
            if isinstance(layer, nn.Linear):
                self._layers[name] = StackedLinear(layer, models, decay)
        sizes = [
            layer.models * layer.d_out * (layer.d_in + int(layer.has_bias))
            for layer in self._layers.values()
        ]
        place = next(model.parameters()).device
        self.theta = torch.zeros(sum(sizes), dtype=dtype, device=place)
        self.sums = torch.zeros_like(self.theta)
        for name, theta, sums in zip(
            self._layers, self.theta.split(sizes), self.sums.split(sizes), strict=True
        ):
            layer = self._layers[name]
            layer.place(theta, sums)
            forward = layer.directly if direct else layer.inside_vmap
            self.module.get_submodule(name).forward = forward

    def parameters(self) -> Iterator[tuple[str, Tensor]]:
        """See Stack."""
        for name, layer in self._layers.items():
            prefix = f"{name}." if name else ""
            yield f"{prefix}weight", layer.weight
            if layer.bias is not None:
                yield f"{prefix}bias", layer.bias[..., 0]

    def gradients(self) -> Iterator[tuple[str, Tensor]]:
        """See Stack."""
        for name, layer in self._layers.items():
            prefix = f"{name}." if name else ""
            yield f"{prefix}weight", layer.weight_sum
            if layer.bias_sum is not None:
                yield f"{prefix}bias", layer.bias_sum[..., 0]

    def __call__(self, x: Inputs) -> Float[Tensor, "M B C"]:
        """See Stack."""
        if self.direct:
            return call(self.module, x).flatten(2)
        return vmap(lambda x: apply(self.module, x))(x)

    def backward(self, outputs: Tensor, gradient: Tensor, again: bool = False) -> None:
        """See Stack."""
        for layer in self._layers.values():
            layer.decay = 1.0 if again else self.decay
        outputs.backward(gradient)


class FunctionStack(Stack):
    """M copies of a module whose trainable parameters may sit anywhere.

    A tied parameter is there once, frozen parameters and buffers are those of the module. ``vmap``
    turns M convolutions into one grouped convolution and M products into one batched product.
    """

    def __init__(self, model: nn.Module, models: int, dtype: torch.dtype, decay: float) -> None:
        """Allocate the stack with zero parameters; ``load`` fills them in."""
        self.models, self.dtype, self.decay = models, dtype, decay
        self.module = copy.deepcopy(model).to(dtype).eval()
        shapes = {name: value.shape for name, value in trainable_parameters(model).items()}
        sizes = [models * shape.numel() for shape in shapes.values()]
        place = next(model.parameters()).device
        self.theta = torch.zeros(sum(sizes), dtype=dtype, device=place)
        self.sums = torch.zeros_like(self.theta)
        self._leaves: dict[str, Tensor] = {}
        for (name, shape), theta, sums in zip(
            shapes.items(), self.theta.split(sizes), self.sums.split(sizes), strict=True
        ):
            whole = shape if models == 1 else (models, *shape)
            leaf = theta.detach().view(whole).requires_grad_()
            leaf.grad = sums.view(whole)  # autograd adds to it in place
            self._leaves[name] = leaf

    def parameters(self) -> Iterator[tuple[str, Tensor]]:
        """See Stack."""
        for name, leaf in self._leaves.items():
            yield name, self._stacked(leaf.detach())

    def gradients(self) -> Iterator[tuple[str, Tensor]]:
        """See Stack."""
        for name, leaf in self._leaves.items():
            assert leaf.grad is not None
            yield name, self._stacked(leaf.grad)

    def _stacked(self, value: Tensor) -> Tensor:
        return value[None] if self.models == 1 else value

    def __call__(self, x: Inputs) -> Float[Tensor, "M B C"]:
        """See Stack."""
        with torch.enable_grad():  # queries take the path that was trained
            if self.models == 1:
                return apply_with(self.module, self._leaves, each(x, lambda part: part[0]))[None]
            return vmap(lambda theta, x: apply_with(self.module, theta, x))(self._leaves, x)

    def backward(self, outputs: Tensor, gradient: Tensor, again: bool = False) -> None:
        """See Stack."""
        if again:
            pass
        elif self.decay:
            self.sums.mul_(self.decay)
        else:
            self.sums.zero_()
        outputs.backward(gradient)


def all_linear(model: nn.Module) -> bool:
    """Whether every parameter is trained, and the weight or bias of one linear layer alone."""
    held = [
        (module, key, parameter)
        for module in model.modules()
        for key, parameter in module._parameters.items()
        if parameter is not None
    ]
    return len({id(parameter) for *_, parameter in held}) == len(held) and all(
        isinstance(module, nn.Linear) and key in ("weight", "bias") and parameter.requires_grad
        for module, key, parameter in held
    )


class StackedLinear:
    """W x + b for M copies; the backward pass writes ``sum ← decay·sum + ∂ℓ/∂W`` in place.

    Outputs are stored feature-major, as (M, d_out, B), and handed on as their (M, B, d_out)
    transposes: the batched products keep their speed for narrow layers, and a softmax over the
    last layer runs over strided classes, which is many times faster than over ten adjacent ones.
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
