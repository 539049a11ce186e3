"""Many copies of one module, evaluated and differentiated together.

Shapes: M models, B examples of a batch, C outputs, P parameters. All parameters lie in one flat
buffer, layer by layer, the M weights of a layer and then its M biases: whatever acts on single
parameters (an optimiser) is one operation on the whole buffer, and each layer's batched product
finds its operands contiguous.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import vmap

from decomposition.inputs import Inputs, apply, call
from decomposition.retraining.stacked_linear import StackedLinear


class StackedModel:
    """M copies of a module whose parameters all sit in linear layers, each used once.

    ``direct`` runs the module as it is on (M, B, …) inputs, which is right for element-wise
    activations and residual sums; otherwise it runs inside ``torch.func.vmap``, which is right
    always and slower. ``choose_way`` finds out. The module is in evaluation mode: the function
    that is trained is the one whose curvature is studied.
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
        """Names as in the module, and stacked parameters as views into ``theta``."""
        for name, layer in self._layers.items():
            prefix = f"{name}." if name else ""
            yield f"{prefix}weight", layer.weight
            if layer.bias is not None:
                yield f"{prefix}bias", layer.bias[..., 0]

    def gradients(self) -> Iterator[tuple[str, Tensor]]:
        """The same views into ``sums``."""
        for name, layer in self._layers.items():
            prefix = f"{name}." if name else ""
            yield f"{prefix}weight", layer.weight_sum
            if layer.bias_sum is not None:
                yield f"{prefix}bias", layer.bias_sum[..., 0]

    def load(self, start: int, states: Mapping[str, Tensor]) -> None:
        """Set the parameters of copies ``start`` … from (k, …) stacks of them."""
        for name, parameter in self.parameters():
            parameter[start : start + len(states[name])] = states[name]

    def __call__(self, x: Inputs) -> Float[Tensor, "M B C"]:
        """Outputs of every copy on its own batch, the parts of ``x`` being (M, B, …)."""
        if self.direct:
            return call(self.module, x).flatten(2)
        return vmap(lambda x: apply(self.module, x))(x)

    def backward(self, outputs: Tensor, gradient: Tensor, again: bool = False) -> None:
        """``sums ← decay·sums + ∂⟨outputs, gradient⟩/∂θ``; without the decay if ``again``."""
        for layer in self._layers.values():
            layer.decay = 1.0 if again else self.decay
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
