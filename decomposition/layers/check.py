"""Is a layer the linear map that it seems? Its per-example gradients tell."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from decomposition.errors import UnsupportedModelError
from decomposition.inputs import Inputs, apply_with, rows_in, take
from decomposition.layers.hooks import traced_forward
from decomposition.layers.positions import is_transposed, patches, responses

TOLERANCE = 1e-7


def not_linear(
    model: nn.Module,
    trainable: Mapping[str, nn.Parameter],
    candidates: Mapping[str, nn.Module],
    x: Inputs,
) -> set[str]:
    """Candidates whose gradient for some example is not Σ_t δ_t a_tᵀ (and Σ_t δ_t for the bias).

    The right side comes from one forward pass of all examples, the left from one for each: rows
    that are not the examples, in the order of the examples, are found out. This is tried at
    parameters nearby, so that nothing hides behind an output layer that starts at zero. Weight and
    bias are compared together: the gradient of one may be rounding alone (the bias of an
    attention's keys).

    Raises:
        UnsupportedModelError: outputs that do not depend on a parameter.
    """
    parameters = _nearby(model, trainable, x)
    true = [_gradients(model, parameters, x, row) for row in range(rows_in(x))]
    for name in parameters:
        if all(gradient[name] is None for gradient in true):
            raise UnsupportedModelError(
                f"parameter {name} has no effect on the model's outputs: freeze it with "
                "requires_grad_(False) or remove it"
            )
    found = _by_positions(model, parameters, candidates, x) if candidates else {}
    paths = {id(module): path for path, module in model.named_modules()}
    wrong: set[str] = set()
    for name, layer in candidates.items():
        values = {f"{paths[id(layer)]}.{key}".lstrip("."): v for key, v in found[name].items()}
        own = [path for path in values if path in parameters]
        for row, gradient in enumerate(true):
            exact = [_or_zeros(gradient[path], parameters[path]) for path in own]
            if not own or not _same(_flat(exact), _flat([values[path][row] for path in own])):
                wrong.add(name)
    return wrong


def _nearby(
    model: nn.Module, trainable: Mapping[str, nn.Parameter], x: Inputs
) -> dict[str, Tensor]:
    """Every parameter up to a tenth further from zero, and zeros up to 0.1.

    No sign changes: what is under a root or a logarithm stays there. The parameters themselves
    where the outputs are not finite even so.
    """
    generator = torch.Generator().manual_seed(0)
    found = {}
    for name, p in trainable.items():
        step = 0.1 * torch.rand(p.shape, generator=generator, dtype=torch.float64).to(p)
        found[name] = torch.where(p == 0, step, p * (1 + step)).detach()
    with torch.no_grad():
        finite = bool(torch.isfinite(apply_with(model, found, x)).all())
    if not finite:
        found = {name: p.detach().clone() for name, p in trainable.items()}
    return {name: p.requires_grad_() for name, p in found.items()}


def _gradients(
    model: nn.Module, parameters: dict[str, Tensor], x: Inputs, row: int
) -> dict[str, Tensor | None]:
    """∂(Σ w f)/∂θ of one example."""
    with torch.enable_grad():
        total = _weighted(apply_with(model, parameters, take(x, [row])), row)
    if not total.requires_grad:
        raise UnsupportedModelError(
            "the model's outputs do not depend on its parameters by autograd: its forward pass "
            "runs under torch.no_grad() or detaches its result"
        )
    found = torch.autograd.grad(total, list(parameters.values()), allow_unused=True)
    return dict(zip(parameters, found, strict=True))


def _by_positions(
    model: nn.Module,
    parameters: dict[str, Tensor],
    candidates: Mapping[str, nn.Module],
    x: Inputs,
) -> dict[str, dict[str, Tensor]]:
    """Layer → Σ_t δ_t a_tᵀ and Σ_t δ_t of every example; nothing where rows are no examples."""
    n = rows_in(x)
    traced = traced_forward(model, candidates, parameters, x)
    with torch.enable_grad():
        total = _weighted(traced.outputs)
    flat = [z for calls in traced.responses.values() for z in calls]
    deltas = iter(torch.autograd.grad(total, flat, allow_unused=True))
    found: dict[str, dict[str, Tensor]] = {}
    for name, layer in candidates.items():
        products: list[Tensor] = []
        sums: list[Tensor] = []
        fits = True
        for a, z in zip(traced.inputs[name], traced.responses[name], strict=True):
            delta = _or_zeros(next(deltas), z)
            try:
                rows, d = patches(layer, a, n), responses(layer, delta, n)
                product = d.mT @ rows  # (n, *G, d_out, d_in), in the shape of the weight
                products.append(product.mT if is_transposed(layer) else product)
                sums.append(d.sum(-2))
            except (RuntimeError, IndexError):  # no rows of examples
                fits = False
        both = {"weight": products, "bias": sums}
        found[name] = {key: torch.stack(v).sum(0) for key, v in both.items()} if fits else {}
    return found


def _or_zeros(gradient: Tensor | None, like: Tensor) -> Tensor:
    return torch.zeros_like(like) if gradient is None else gradient


def _flat(parts: list[Tensor]) -> Tensor:
    return torch.cat([part.flatten() for part in parts])


def _weighted(f: Tensor, first: int = 0) -> Tensor:
    """Σ_n Σ_c w_nc f_nc with weights that no symmetry of a model or of its inputs cancels."""
    rows = torch.arange(first, first + len(f), dtype=f.dtype, device=f.device)
    outputs = torch.arange(f.shape[1], dtype=f.dtype, device=f.device)
    return ((1.5 + torch.sin(1.0 + 3.0 * rows[:, None] + outputs)) * f).sum()


def _same(a: Tensor, b: Tensor) -> bool:
    scale = float(torch.maximum(a.abs().max(), b.abs().max())) + 1e-30
    return bool(torch.allclose(a, b, rtol=0, atol=TOLERANCE * scale))
