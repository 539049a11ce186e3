"""Per-example derivatives with respect to layer outputs: the raw material of every rung.

Notation for one example n and layers l, m (layer outputs z_l = [W_l | b_l] a_l):

    a_l        (width,)        layer input with 1 appended for the bias
    δ_l        (d_out,)        ∂ℓ/∂z_l, so that the gradient is ∇_{W_l} ℓ = δ_l a_lᵀ
    J_l        (C, d_out)      ∂f/∂z_l
    D_lm       (d_in, d_out)   ∂a_l/∂z_m, non-zero only when m feeds l
    M_lm       (d_out, d_out)  ∂²ℓ/∂z_l∂z_m at fixed weights

One forward-over-reverse sweep in the Z = Σ_l d_out directions of the layer outputs gives all of
them at once, for any architecture and any twice differentiable activation: every example is
perturbed in the same direction at the same time, because examples do not interact.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from decomposition.device import chunk_bytes
from decomposition.errors import UnsupportedModelError
from decomposition.layers import (
    LinearBlock,
    layers_of,
    perturbed_forward,
)
from decomposition.memory import out_of_memory, shrinking
from decomposition.problem import Problem

Result = TypeVar("Result")

BATCH_BYTES = 256 * 2**20
"""Memory that the terms of one batch of examples may take on the CPU."""
SWEEP_ELEMENTS = 2**21
"""Elements of the largest activation in one vectorised sweep: larger leaves the cache."""


@dataclass(frozen=True)
class GaussNewtonTerms:
    """What the GGN and the Kronecker factors are made of, for a batch of n examples."""

    inputs: dict[str, Float[Tensor, "n width"]]
    """a_l with the 1 appended."""
    roots: dict[str, Float[Tensor, "n K d_out"]]
    """s_l = Rᵀ J_l, whose rows s_c satisfy J_lᵀ (R Rᵀ) J_m = Σ_c s_l,c s_m,cᵀ; for the GGN R is
    the square root of Λ and K = C."""


@dataclass(frozen=True)
class HessianTerms:
    """What the Hessian is made of, for a batch of n examples."""

    inputs: dict[str, Float[Tensor, "n width"]]
    """a_l with the 1 appended."""
    deltas: dict[str, Float[Tensor, "n d_out"]]
    """δ_l."""
    input_jacobians: dict[tuple[str, str], Float[Tensor, "n d_in d_out"]]
    """D_lm for the pairs in which m feeds l."""
    hessians: dict[tuple[str, str], Float[Tensor, "n d_out d_out"]]
    """M_lm for the pairs with l not after m in parameter order."""


class Preactivation:
    """Evaluates the terms of a problem at its model's present parameters, in float64."""

    def __init__(self, problem: Problem) -> None:
        """Prepare a float64 copy of the model."""
        self.loss = problem.loss_function
        self.blocks = plain_blocks(problem)
        self.model: nn.Module = problem.double_model()
        self.parameters = {k: v.detach() for k, v in self.model.state_dict().items()}
        self.order = problem.layout.order
        self.layers = layers_of(self.model, problem.blocks)

    def gradient_terms(
        self, x: Tensor, y: Tensor
    ) -> tuple[dict[str, Tensor], dict[str, Tensor], Tensor]:
        """Layer inputs a_l, output gradients δ_l and outputs f: one forward, one backward pass."""
        with differentiable(self.model):
            deltas, (outputs, inputs) = self._gradient(x, y)(self._zeros(len(x)))
        return self._with_ones(inputs), deltas, outputs

    def gauss_newton_terms(
        self, x: Tensor, y: Tensor, root: Callable[[Tensor, Tensor], Tensor] | None = None
    ) -> GaussNewtonTerms:
        """K backward passes, one for each column of a root R (n, C, K) at the outputs.

        Args:
            x: inputs, float64.
            y: targets.
            root: (outputs, targets) → R; default the square root of Λ, for the GGN.
        """
        root = root or self.loss.hessian_sqrt

        def forward(perturbation: dict[str, Tensor]):
            return self._forward(x, perturbation)

        with differentiable(self.model):
            outputs, vjp, inputs = torch.func.vjp(forward, self._zeros(len(x)), has_aux=True)  # pyright: ignore[reportAssignmentType]
            columns = root(outputs, y).permute(2, 0, 1)  # (K, n, C)
            (roots,) = torch.func.vmap(vjp)(columns)
        return GaussNewtonTerms(
            self._with_ones(inputs), {name: r.transpose(0, 1) for name, r in roots.items()}
        )

    def hessian_terms(self, x: Tensor, y: Tensor) -> HessianTerms:
        """Z forward-over-reverse sweeps, vectorised over directions and examples."""
        gradient = self._gradient(x, y)
        zero = self._zeros(len(x))
        with differentiable(self.model):
            deltas, (_, inputs) = gradient(zero)
        widths = [block.d_out for block in self.blocks]

        def column(direction: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
            tangent = {
                block.name: part.expand(len(x), block.d_out)
                for block, part in zip(self.blocks, direction.split(widths), strict=True)
            }
            _, (d_deltas, (_, d_inputs)) = torch.func.jvp(gradient, (zero,), (tangent,))  # pyright: ignore[reportAssignmentType]
            return d_deltas, d_inputs

        directions = torch.eye(sum(widths), dtype=torch.float64, device=x.device)
        chunk = max(1, min(sum(widths), SWEEP_ELEMENTS // (len(x) * max(widths))))
        with differentiable(self.model):
            d_deltas, d_inputs = torch.func.vmap(column, chunk_size=chunk)(directions)
        rows = dict(
            zip((b.name for b in self.blocks), torch.arange(sum(widths)).split(widths), strict=True)
        )
        cut = {name: slice(int(r[0]), int(r[-1]) + 1) for name, r in rows.items()}
        position = {name: i for i, name in enumerate(self.order)}
        names = [block.name for block in self.blocks]
        return HessianTerms(
            inputs=self._with_ones(inputs),
            deltas=deltas,
            input_jacobians={
                (l, m): d_inputs[l][cut[m]].permute(1, 2, 0)
                for l in names
                for m in names
                if position[m] < position[l] and bool(d_inputs[l][cut[m]].any())
            },
            hessians={
                (l, m): d_deltas[l][cut[m]].permute(1, 2, 0)
                for i, l in enumerate(names)
                for m in names[i:]
            },
        )

    def _gradient(self, x: Tensor, y: Tensor):
        def total_loss(perturbation: dict[str, Tensor]):
            outputs, inputs = self._forward(x, perturbation)
            return self.loss.per_example(outputs, y).sum(), (outputs, inputs)

        return torch.func.grad(total_loss, has_aux=True)

    def _forward(self, x: Tensor, perturbation: dict[str, Tensor]):
        """Outputs (n, C) and layer inputs (n, d_in), every layer being called once."""
        once = {name: (part,) for name, part in perturbation.items()}
        outputs, inputs = perturbed_forward(self.model, self.layers, self.parameters, x, once)
        return outputs, {name: calls[0] for name, calls in inputs.items()}

    def _zeros(self, n: int) -> dict[str, Tensor]:
        like = next(iter(self.parameters.values()))
        return {b.name: like.new_zeros(n, b.d_out) for b in self.blocks}

    def _with_ones(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        return {block.name: block.append_one(inputs[block.name]) for block in self.blocks}


def plain_blocks(problem: Problem) -> tuple[LinearBlock, ...]:
    """The blocks of a problem whose model is made of once-used linear layers alone."""
    if not problem.plain:
        raise UnsupportedModelError(
            f"{type(problem.model).__name__} is no stack of torch.nn.Linear layers, each used once "
            "on inputs (examples, features): these terms exist for such models only"
        )
    return tuple(block for block in problem.blocks if isinstance(block, LinearBlock))


@contextmanager
def differentiable(model: nn.Module) -> Iterator[None]:
    """Say what a failure inside torch.func means: some operation of the model is not for it."""
    try:
        yield
    except (RuntimeError, NotImplementedError) as error:
        if out_of_memory(error):
            raise
        raise UnsupportedModelError(
            f"{type(model).__name__} cannot be differentiated twice under torch.func (data-"
            f"dependent control flow, .item(), or an operation without a derivative?): "
            f"{(str(error).splitlines() or [type(error).__name__])[0]}"
        ) from error


def on_plain_batches(
    problem: Problem, work: Callable[[Tensor, Tensor, int], Result], columns: int = 0
) -> Iterator[Result]:
    """``work(x, y, first)`` of batches of the training examples, in float64, whose terms fit.

    Args:
        problem: whose examples.
        work: what is made of a batch, whose first example is ``first``.
        columns: K of the Gauss–Newton terms where it may exceed the model's outputs.

    Raises:
        OutOfMemoryError: the terms of a single example do not fit.
    """
    blocks = plain_blocks(problem)
    outputs = sum(b.d_out for b in blocks)
    per_example = outputs * (outputs + columns + sum(b.width for b in blocks))
    size = chunk_bytes(problem.device, BATCH_BYTES) // (8 * per_example)
    x, y = problem.rows("train")
    assert isinstance(x, Tensor)

    def one(rows: slice) -> Result:
        return work(x[rows].double(), as_double(y[rows]), rows.start)

    return shrinking(one, len(x), size)


def batches(problem: Problem, columns: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
    """The batches themselves."""
    return on_plain_batches(problem, lambda x, y, first: (x, y), columns)


def as_double(y: Tensor) -> Tensor:
    """Regression targets in float64; class labels as they are."""
    return y.double() if y.is_floating_point() else y


def plain_gradients(problem: Problem, x: Tensor, y: Tensor) -> Float[Tensor, "N P"]:
    """∇_θ ℓ_n for every example: δ_l ⊗ a_l per layer."""
    preactivation, blocks = Preactivation(problem), plain_blocks(problem)
    gradients = torch.empty(len(x), problem.num_parameters, dtype=torch.float64, device=x.device)

    def fill(rows: slice) -> None:
        inputs, deltas, _ = preactivation.gradient_terms(x[rows].double(), as_double(y[rows]))
        for block in blocks:
            write_outer(block, deltas[block.name], inputs[block.name], gradients[rows])

    chunk = chunk_bytes(x.device, BATCH_BYTES) // (8 * problem.num_parameters)
    for _ in shrinking(fill, len(x), chunk):  # a batch filled in part is filled again
        pass
    return gradients


def write_outer(block: LinearBlock, delta: Tensor, a: Tensor, out: Tensor) -> None:
    """out[:, block] = δ_n ⊗ a_n in parameter order (weight row-major, then bias)."""
    weight = slice(block.start, block.start + block.d_out * block.d_in)
    outer = delta[:, :, None] * a[:, None, : block.d_in]
    out[:, weight] = outer.reshape(len(delta), -1)
    if block.bias:
        out[:, weight.stop : block.start + block.size] = delta
