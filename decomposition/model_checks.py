"""Is a model a function of one example at a time whose linear layers are what they seem?

All checks run in float64 on a few rows of a copy, so that the user's model is never touched.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor, nn

from decomposition.errors import DecompositionError, ProblemError, UnsupportedModelError
from decomposition.layers import SUPPORTED, LinearBlock, call_order, perturbed_forward

ROWS = 4
TOLERANCE = 1e-9


def double_copy(model: nn.Module) -> nn.Module:
    """A float64 copy in evaluation mode.

    Raises:
        UnsupportedModelError: the model cannot be copied.
    """
    try:
        return copy.deepcopy(model).double().eval()
    except Exception as error:
        raise UnsupportedModelError(
            f"{type(model).__name__} cannot be copied with copy.deepcopy: {_first_line(error)}"
        ) from error


def check_parameters(model: nn.Module) -> None:
    """Raise ProblemError if a parameter is not finite."""
    for name, parameter in model.named_parameters():
        if not torch.isfinite(parameter).all():
            raise ProblemError(
                f"parameter {name} holds NaN or infinity: training has diverged (lower Recipe.lr) "
                "or the checkpoint is damaged"
            )


def finite_outputs(model: nn.Module, x: Tensor, where: str) -> Float[Tensor, "N C"]:
    """f(x) of a ``double_copy``, checked: one finite row of outputs for every example.

    Raises:
        ProblemError: the model does not fit the inputs, or its outputs are not such rows.
    """
    x = x.double()
    with torch.no_grad(), quiet_generator():
        try:
            few = model(x[:2])
        except DecompositionError:
            raise
        except Exception as error:
            raise ProblemError(
                f"the model cannot be applied in float64 to {where} inputs of shape "
                f"{tuple(x.shape)}: {_first_line(error)}"
            ) from error
        fits = isinstance(few, Tensor) and few.ndim == 2 and len(few) == len(x[:2])
        if not fits or not few.is_floating_point() or few.shape[1] == 0:
            got = f"{few.dtype} {tuple(few.shape)}" if isinstance(few, Tensor) else type(few)
            raise ProblemError(
                f"the model must return floating-point outputs of shape (N, C), got {got}"
            )
        f = model(x)
    if not torch.isfinite(f).all():
        row = int(torch.nonzero(~torch.isfinite(f))[0, 0])
        raise ProblemError(f"the model's output is not finite at {where} row {row}")
    return f


def check_model(model: nn.Module, blocks: tuple[LinearBlock, ...], x: Tensor) -> None:
    """Check a ``double_copy`` on a few rows: layers used once, and rightly; no chance, no coupling.

    Raises:
        UnsupportedModelError: the message says which.
    """
    x = x.double()
    with quiet_generator():
        call_order(model, x[:2])
        _check_independent_examples(model, x)
        _check_training_mode(model, x)
        _check_gradients(model, blocks, x[:ROWS])


@contextmanager
def quiet_generator() -> Iterator[None]:
    """Leave torch's global generator as it was: a random model may draw from it."""
    with torch.random.fork_rng(devices=[]):
        yield


def _check_independent_examples(model: nn.Module, x: Tensor) -> None:
    with torch.no_grad():
        together, again = model(x), model(x)
        alone = torch.cat([model(row[None]) for row in x])
    if not _same(together, again):
        raise UnsupportedModelError(
            "two forward passes on the same inputs differ: the model is random, and its training "
            "loss has no Hessian"
        )
    if together.shape != alone.shape or not _same(together, alone):
        raise UnsupportedModelError(
            "an example's output changes with the rest of its batch: the mean over examples that "
            "defines the curvature does not exist for this model"
        )


def _check_training_mode(model: nn.Module, x: Tensor) -> None:
    with torch.no_grad():
        evaluation = model(x)
        model.train()
        try:
            training, again = model(x), model(x)
        finally:
            model.eval()
    if not (_same(training, again) and _same(training, evaluation)):
        raise UnsupportedModelError(
            "the model's outputs in training mode differ from those in evaluation mode (dropout, "
            "noise or batch statistics): its training loss is not the one whose curvature is "
            "studied; switch them off"
        )


def _check_gradients(model: nn.Module, blocks: tuple[LinearBlock, ...], x: Tensor) -> None:
    """∂(Σ w·f)/∂[W | b] = Σ_n δ_n a_nᵀ in every layer, or the layer is not what it seems."""
    parameters = {name: p.detach().requires_grad_() for name, p in model.named_parameters()}
    zeros = {b.name: x.new_zeros(len(x), b.d_out, requires_grad=True) for b in blocks}
    with torch.enable_grad():
        f, inputs = perturbed_forward(model, parameters, x, zeros)
        total = (f * torch.linspace(1.0, 2.0, f.numel(), dtype=f.dtype).view_as(f)).sum()
    if not total.requires_grad:
        raise UnsupportedModelError(
            "the model's outputs do not depend on its parameters by autograd: its forward pass "
            "runs under torch.no_grad() or detaches its result"
        )
    wanted = [*parameters.values(), *zeros.values()]
    found = torch.autograd.grad(total, wanted, allow_unused=True)
    gradients = dict(zip((*parameters, *zeros), found, strict=True))
    names = {id(p): name for name, p in model.named_parameters()}
    for block in blocks:
        layer = model if block.name not in dict(model.named_modules()) else None
        layer = layer or model.get_submodule(block.name)
        assert isinstance(layer, nn.Linear)
        delta = _or_zero(gradients[block.name], zeros[block.name])
        a = inputs[block.name]
        for key, parameter, expected in (
            ("weight", layer.weight, delta.T @ a),
            ("bias", layer.bias, delta.sum(0)),
        ):
            if parameter is None:
                continue
            gradient = _or_zero(gradients[names[id(parameter)]], parameter)
            if not _same(gradient, expected.detach(), 1e-7):
                raise UnsupportedModelError(
                    f"the gradient of layer {block.name}'s {key} is not that of a linear layer "
                    f"used once: {key} is also used outside the layer, or the layer's forward "
                    f"pass is not x Wᵀ + b; {SUPPORTED}"
                )


def _or_zero(gradient: Tensor | None, like: Tensor) -> Tensor:
    return torch.zeros_like(like) if gradient is None else gradient


def _same(a: Tensor, b: Tensor, tolerance: float = TOLERANCE) -> bool:
    scale = float(torch.maximum(a.abs().max(), b.abs().max())) + 1e-30
    return bool(torch.allclose(a, b, rtol=0, atol=tolerance * scale))


def _first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
