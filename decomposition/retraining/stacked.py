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
from torch.func import functional_call, vmap

from decomposition.errors import UnsupportedModelError
from decomposition.retraining.stacked_linear import StackedLinear

TRIAL_MODELS, TRIAL_ROWS = 2, 3
TRIAL_TOLERANCE = 1e-9


class StackedModel:
    """M copies of a module whose parameters all sit in linear layers.

    ``direct`` runs the module as it is on (M, B, …) inputs, which is right for element-wise
    activations and residual sums; otherwise it runs inside ``torch.func.vmap``, which is right
    always and slower. ``runs_directly`` finds out. The module is in evaluation mode: the function
    that is trained is the one whose curvature is studied.
    """

    def __init__(
        self, model: nn.Module, models: int, dtype: torch.dtype, direct: bool, decay: float = 0.0
    ) -> None:
        """Allocate the stack with uninitialised parameters; ``load`` fills them in."""
        self.models, self.dtype, self.direct = models, dtype, direct
        self.module = copy.deepcopy(model).to(dtype).eval()
        self._layers: dict[str, StackedLinear] = {}
        for name, layer in self.module.named_modules():
            if isinstance(layer, nn.Linear):
                self._layers[name] = StackedLinear(layer, models, decay)
        sizes = [
            layer.models * layer.d_out * (layer.d_in + int(layer.has_bias))
            for layer in self._layers.values()
        ]
        self.theta = torch.zeros(sum(sizes), dtype=dtype)
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

    def load(self, start: int, states: Mapping[str, Tensor]) -> None:
        """Set the parameters of copies ``start`` … from (k, …) stacks of them."""
        for name, parameter in self.parameters():
            parameter[start : start + len(states[name])] = states[name]

    def __call__(self, x: Float[Tensor, "M B ..."]) -> Float[Tensor, "M B C"]:
        """Outputs of every copy on its own batch."""
        return self.module(x) if self.direct else vmap(self.module)(x)


def runs_directly(model: nn.Module, rows: Float[Tensor, "N ..."]) -> bool:
    """Whether a stack of ``model`` may skip ``vmap``, tried on a few ``rows`` in float64.

    Raises:
        UnsupportedModelError: neither way reproduces the module copy by copy.
    """
    reference = copy.deepcopy(model).double().eval()
    scale = torch.linspace(0.8, 1.2, TRIAL_MODELS, dtype=torch.float64)
    states = {
        name: torch.stack([factor * value for factor in scale])
        for name, value in reference.named_parameters()
    }
    picks = torch.arange(TRIAL_MODELS * TRIAL_ROWS) % len(rows)
    x = rows[picks].double().view(TRIAL_MODELS, TRIAL_ROWS, *rows.shape[1:])
    with torch.no_grad():
        expected = torch.stack(
            [
                functional_call(reference, {k: v[j] for k, v in states.items()}, (x[j],))
                for j in range(TRIAL_MODELS)
            ]
        )
        for direct in (True, False):
            stack = StackedModel(model, TRIAL_MODELS, torch.float64, direct)
            stack.load(0, states)
            try:
                outputs = stack(x)
            except Exception as error:
                reason = f"{type(error).__name__}: {error}"
                continue
            reason = "its outputs differ"
            if outputs.shape == expected.shape and torch.allclose(
                outputs, expected, rtol=0, atol=TRIAL_TOLERANCE * float(expected.abs().max() + 1)
            ):
                return direct
    raise UnsupportedModelError(
        f"{type(model).__name__} cannot be trained many at once ({reason}): its linear layers must "
        "be plain torch.nn.Linear, and its forward pass must run under torch.func.vmap"
    )
