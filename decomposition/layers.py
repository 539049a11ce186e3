"""The linear layers of a model: where their parameters lie, and how to perturb their outputs.

A *block* is one ``nn.Linear``, weight and bias together. In the flat parameter vector
(``parameters_to_vector`` order) it is the row-major weight (d_out × d_in) followed by the
bias (d_out). As a matrix it is [W | b] of shape (d_out, width) with width = d_in + 1 if
there is a bias, and the layer input gets a 1 appended to match.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from decomposition.errors import UnsupportedModelError

SUPPORTED = (
    "supported are models whose parameters all sit in torch.nn.Linear layers, each used exactly "
    "once per forward pass on inputs of shape (examples, features)"
)


@dataclass(frozen=True)
class LinearBlock:
    """One linear layer's place in the flat parameter vector."""

    name: str
    """Module path, for example ``0`` or ``encoder.fc1``."""
    start: int
    """Index of its first parameter."""
    d_in: int
    """Input features, without the appended 1."""
    d_out: int
    """Output features."""
    bias: bool
    """Whether there is a bias."""

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
        weight = v[: self.d_out * self.d_in].reshape(self.d_out, self.d_in, v.shape[1])
        if not self.bias:
            return weight
        return torch.cat([weight, v[self.d_out * self.d_in :, None, :]], dim=1)

    def from_matrix(self, m: Tensor) -> Tensor:
        """(d_out, width, k) as [W | b] → (size, k) in parameter order."""
        weight = m[:, : self.d_in].reshape(self.d_out * self.d_in, m.shape[2])
        if not self.bias:
            return weight
        return torch.cat([weight, m[:, self.d_in]], dim=0)

    def append_one(self, a: Tensor) -> Tensor:
        """Layer input (N, d_in) → (N, width), with a column of ones if there is a bias."""
        return torch.cat([a, a.new_ones(len(a), 1)], dim=1) if self.bias else a


def linear_blocks(model: nn.Module) -> tuple[LinearBlock, ...]:
    """Blocks of a model in parameter order.

    Raises:
        UnsupportedModelError: a parameter outside nn.Linear, a tied or frozen parameter,
            or a module that makes the training loss random or couples examples.
    """
    _reject_modules(model)
    blocks: list[LinearBlock] = []
    start = 0
    seen: dict[int, str] = {}
    for name, module in model.named_modules():
        for key, parameter in module.named_parameters(recurse=False):
            path = f"{name}.{key}" if name else key
            _check_parameter(parameter, path, module, seen)
        if isinstance(module, nn.Linear):
            _check_layout(module, name)
            block = LinearBlock(
                name or "linear", start, module.in_features, module.out_features,
                module.bias is not None,
            )  # fmt: skip
            blocks.append(block)
            start += block.size
    if not blocks:
        raise UnsupportedModelError(f"the model has no parameters; {SUPPORTED}")
    return tuple(blocks)


def _check_parameter(
    parameter: nn.Parameter, path: str, module: nn.Module, seen: dict[int, str]
) -> None:
    if isinstance(parameter, nn.parameter.UninitializedParameter):
        raise UnsupportedModelError(f"parameter {path} is lazy: run one forward pass first")
    if not isinstance(module, nn.Linear):
        raise UnsupportedModelError(
            f"parameter {path} belongs to {type(module).__name__}; {SUPPORTED}"
        )
    if parameter is not module._parameters.get("weight") and parameter is not module.bias:
        raise UnsupportedModelError(
            f"parameter {path} is neither the weight nor the bias of its layer (a parametrised or "
            f"pruned layer?); {SUPPORTED}"
        )
    if id(parameter) in seen:
        raise UnsupportedModelError(
            f"parameter {path} is tied to {seen[id(parameter)]}; {SUPPORTED}"
        )
    if not parameter.requires_grad:
        raise UnsupportedModelError(
            f"parameter {path} is frozen (requires_grad=False): curvature of a part of the "
            "parameters is not implemented; call requires_grad_(True)"
        )
    seen[id(parameter)] = path


def _check_layout(layer: nn.Linear, name: str) -> None:
    """Weight, then bias: the order that LinearBlock takes for granted."""
    held = [key for key, parameter in layer._parameters.items() if parameter is not None]
    if held not in (["weight"], ["weight", "bias"]):
        raise UnsupportedModelError(
            f"layer {name or 'linear'} ({type(layer).__name__}) holds the parameters "
            f"{', '.join(held) or 'none'}, not weight and then bias; {SUPPORTED}"
        )


def _reject_modules(model: nn.Module) -> None:
    for name, module in model.named_modules():
        if isinstance(module, nn.modules.dropout._DropoutNd) and module.p > 0:
            raise UnsupportedModelError(
                f"module {name or 'model'} is {type(module).__name__}(p={module.p}): its training "
                "loss is random and has no Hessian; set p=0"
            )
        if isinstance(module, nn.modules.batchnorm._NormBase):
            raise UnsupportedModelError(
                f"module {name or 'model'} is {type(module).__name__}, which couples the examples "
                f"of a batch or keeps running statistics; {SUPPORTED}"
            )


@contextmanager
def output_hooks(
    model: nn.Module, hook: Callable[[str, Tensor, Tensor], Tensor | None]
) -> Iterator[None]:
    """Call ``hook(name, input, output)`` at every linear layer; its result replaces the output."""
    handles = []
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):

            def forward_hook(
                _module: nn.Module,
                inputs: tuple[Tensor, ...],
                output: Tensor,
                name: str = name or "linear",
            ) -> Tensor | None:
                return hook(name, inputs[0], output)

            handles.append(module.register_forward_hook(forward_hook))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def call_order(model: nn.Module, x: Tensor) -> tuple[str, ...]:
    """Names of the linear layers in the order in which one forward pass uses them.

    Raises:
        UnsupportedModelError: a layer is used not at all or more than once, or sees an input
            that is not (examples, features).
    """
    calls: list[str] = []

    def record(name: str, a: Tensor, z: Tensor) -> None:
        if a.ndim != 2:
            raise UnsupportedModelError(
                f"layer {name} sees an input of shape {tuple(a.shape)}; {SUPPORTED}"
            )
        if len(a) != len(x):
            raise UnsupportedModelError(
                f"layer {name} sees {len(a)} rows for {len(x)} examples; {SUPPORTED}"
            )
        calls.append(name)

    with output_hooks(model, record), torch.no_grad():
        model(x)
    for block in linear_blocks(model):
        count = calls.count(block.name)
        if count != 1:
            raise UnsupportedModelError(
                f"layer {block.name} is used {count} times in one forward pass; {SUPPORTED}"
            )
    return tuple(calls)


def perturbed_forward(
    model: nn.Module,
    parameters: Mapping[str, Tensor],
    x: Tensor,
    perturbation: Mapping[str, Tensor],
) -> tuple[Tensor, dict[str, Tensor]]:
    """Outputs (N, C) and layer inputs, ``perturbation[name]`` (N, d_out) added to layer outputs."""
    inputs: dict[str, Tensor] = {}

    def hook(name: str, a: Tensor, z: Tensor) -> Tensor:
        inputs[name] = a.clone()  # a later in-place operation must not change what we saw
        return z + perturbation[name]

    with output_hooks(model, hook):
        outputs = torch.func.functional_call(model, dict(parameters), (x,))
    return outputs, inputs
