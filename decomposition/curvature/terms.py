"""Layer terms: per-example derivatives with respect to layer outputs, what every rung is made of.

Notation for one example n and linear layers l, m, whose weight serves T positions (a plain layer
has T = 1, see decomposition.layers) with outputs z_l,t = [W_l | b_l] a_l,t:

    a_l,t  (width,)        layer input with 1 appended for the bias
    s_l,t  (K, d_out)      rows Rᵀ ∂f/∂z_l,t at a root R (C × K) of the outputs' curvature
    δ_l    (d_out,)        ∂ℓ/∂z_l
    D_lm   (d_in, d_out)   ∂a_l/∂z_m, non-zero only when m feeds l
    M_lm   (d_out, d_out)  ∂²ℓ/∂z_l∂z_m at fixed weights

so that the rows of the generalised Jacobian are R_nᵀ ∂f_n/∂[W | b]_l = Σ_t s_l,t ⊗ a_l,t. The last
three, which make up the Hessian, are for stacks of once-used torch.nn.Linear layers alone: one
forward-over-reverse sweep in the Z = Σ_l d_out directions of the layer outputs gives all of them
at once, for any architecture and any twice differentiable activation, because examples do not
interact. A grouped convolution has terms for each of its G groups, whose rows of [W | b] stand one
below the other; G is a leading dimension that other blocks do not have.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from decomposition.curvature.passes import backward_passes, differentiable, joined
from decomposition.device import chunk_bytes
from decomposition.errors import UnsupportedModelError
from decomposition.inputs import Inputs, double, rows_in, take, to
from decomposition.layers import (
    LinearBlock,
    layers_of,
    patches,
    perturbed_forward,
    responses,
    traced_forward,
)
from decomposition.memory import shrinking
from decomposition.problem import Problem

Result = TypeVar("Result")

BATCH_BYTES = 256 * 2**20
"""Memory that the terms of one batch of examples may take on the CPU."""
TERMS_BYTES = 64 * 2**20
"""The same where it is free to choose: more leaves the cache, fewer are more calls than work."""
SWEEP_ELEMENTS = 2**21
"""Elements of the largest activation in one vectorised sweep: larger leaves the cache."""
PASS_NUMBERS, PASS_NUMBERS_ON_CUDA = 2**18, 2**27
"""Numbers of the largest layer output in one backward pass: more leave the cache, fewer are more
calls than work."""
Root = Callable[[Tensor, Tensor], Tensor]
"""(outputs (n, C), targets) → R (n, C, K)."""


@dataclass(frozen=True)
class GaussNewtonTerms:
    """What the GGN and the Kronecker factors are made of, for a batch of n examples."""

    inputs: dict[str, Float[Tensor, "*G n T width"]]
    """a_l,t."""
    roots: dict[str, Float[Tensor, "*G n K T d"]]
    """s_l,t, with d = d_out / G."""
    columns: Float[Tensor, "n C K"]
    """R."""


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


class LayerTerms:
    """Evaluates the terms of a problem at its model's present parameters.

    Args:
        problem: whose training examples.
        dtype: precision of the Gauss–Newton terms; the Hessian's are for float64 alone.
    """

    def __init__(self, problem: Problem, dtype: torch.dtype = torch.float64) -> None:
        """Prepare a copy of the model."""
        self.problem, self._dtype = problem, dtype
        self.model: nn.Module = problem.double_model().to(dtype)
        self.blocks = tuple(b for b in problem.blocks if isinstance(b, LinearBlock))
        self.layers = layers_of(self.model, self.blocks)
        state = {**dict(self.model.named_parameters()), **dict(self.model.named_buffers())}
        self.parameters = {name: value.detach() for name, value in state.items()}

    def passes(self, x: Inputs, y: Tensor, root: Root | None = None) -> LayerPasses:
        """One forward pass, and K backward passes when they are asked for.

        Args:
            x: inputs.
            y: targets.
            root: default the square root of Λ, for the GGN.
        """
        x, y = to(x, self._dtype), to(y, self._dtype)
        return LayerPasses(self, x, y, root or self.problem.loss_function.hessian_sqrt)

    def gauss_newton(self, x: Inputs, y: Tensor, root: Root | None = None) -> GaussNewtonTerms:
        """The terms of all columns of the root at once; arguments as for ``passes``."""
        passes = self.passes(x, y, root)
        some = list(passes.roots())
        roots = {
            b.name: joined([part[b.name] for part in some], -4).transpose(-4, -3)
            for b in self.blocks
        }
        return GaussNewtonTerms(passes.inputs, roots, passes.columns)

    def hessian(self, x: Inputs, y: Tensor) -> HessianTerms:
        """Z forward-over-reverse sweeps, vectorised over directions and examples.

        Raises:
            UnsupportedModelError: the model is no stack of once-used torch.nn.Linear layers.
        """
        blocks = plain_blocks(self.problem)
        loss, n = self.problem.loss_function, rows_in(x)
        like = next(iter(self.parameters.values()))
        zero = {block.name: (like.new_zeros(n, block.d_out),) for block in blocks}

        def total_loss(perturbation: dict[str, tuple[Tensor, ...]]):
            outputs, inputs = perturbed_forward(
                self.model, self.layers, self.parameters, x, perturbation
            )
            return loss.per_example(outputs, y).sum(), {name: a for name, (a,) in inputs.items()}

        gradient = torch.func.grad(total_loss, has_aux=True)
        with differentiable(self.model):
            deltas, inputs = gradient(zero)
        widths = [block.d_out for block in blocks]

        def column(direction: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
            tangent = {
                block.name: (part.expand(n, block.d_out),)
                for block, part in zip(blocks, direction.split(widths), strict=True)
            }
            _, (d_deltas, d_inputs) = torch.func.jvp(gradient, (zero,), (tangent,))  # pyright: ignore[reportAssignmentType]
            return {name: part for name, (part,) in d_deltas.items()}, d_inputs

        directions = torch.eye(sum(widths), dtype=torch.float64, device=y.device)
        chunk = max(1, min(sum(widths), SWEEP_ELEMENTS // (n * max(widths))))
        with differentiable(self.model):
            d_deltas, d_inputs = torch.func.vmap(column, chunk_size=chunk)(directions)
        names = [block.name for block in blocks]
        stops = torch.tensor(widths).cumsum(0).tolist()
        cut = {
            name: slice(stop - width, stop)
            for name, stop, width in zip(names, stops, widths, strict=True)
        }
        position = {name: i for i, name in enumerate(self.problem.layout.order)}
        return HessianTerms(
            inputs={block.name: block.append_one(inputs[block.name]) for block in blocks},
            deltas={name: part for name, (part,) in deltas.items()},
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

    def numbers_per_example(self, columns: int) -> int:
        """Numbers that the terms of one example consist of, K being ``columns``."""
        return sum(
            count * (block.groups * block.width + (2 * columns + 2) * block.d_out)
            for block, count in self._positions.items()
        )

    def numbers_per_pass(self, columns: int) -> int:
        """Numbers that an example takes where K columns are taken one after the other."""
        return self.numbers_per_example(1) + 2 * columns * self.problem.num_outputs

    @cached_property
    def largest(self) -> int:
        """Numbers in the largest layer output of one example."""
        return max([count * block.d_out for block, count in self._positions.items()], default=1)

    @property
    def most_in_a_pass(self) -> int:
        """Numbers of the largest layer output that one backward pass should have."""
        on_cuda = self.problem.device.type == "cuda"
        return PASS_NUMBERS_ON_CUDA if on_cuda else PASS_NUMBERS

    @cached_property
    def _positions(self) -> dict[LinearBlock, int]:
        """How many positions share each layer's weight in one example."""
        x = to(take(self.problem.rows("train")[0], slice(0, 1)), self._dtype)
        traced = traced_forward(self.model, self.layers, self.parameters, x)
        return {
            block: sum(z.numel() for z in traced.responses[block.name]) // block.d_out
            for block in self.blocks
        }


class LayerPasses:
    """One forward pass of n examples, and the backward passes that pull a root's columns back."""

    def __init__(self, of: LayerTerms, x: Inputs, y: Tensor, root: Root) -> None:
        """The forward pass, and the root at its outputs."""
        self._of, self._n = of, rows_in(x)
        with differentiable(of.model):
            self._traced = traced_forward(of.model, of.layers, of.parameters, x)
            outputs = self._traced.outputs.detach()
            self.columns: Float[Tensor, "n C K"] = root(outputs, y).to(outputs.dtype)

    @cached_property
    def inputs(self) -> dict[str, Float[Tensor, "*G n T width"]]:
        """a_l,t."""
        found = {}
        for block in self._of.blocks:
            layer, calls = self._of.layers[block.name], self._traced.inputs[block.name]
            a = joined([patches(layer, call, self._n) for call in calls], -2)
            found[block.name] = block.append_one(a.movedim(0, -3))
        return found

    def roots(self) -> Iterator[dict[str, Float[Tensor, "*G k n T d"]]]:
        """s_l,t of some of the K columns after the others, as many as keep the processor busy."""
        step = max(1, self._of.most_in_a_pass // (self._n * self._of.largest))
        calls = [z for block in self._of.blocks for z in self._traced.responses[block.name]]
        for first in range(0, self.columns.shape[2] if calls else 0, step):
            u = self.columns[:, :, first : first + step].permute(2, 0, 1).contiguous()
            with differentiable(self._of.model):
                pulled = iter(backward_passes([self._traced.outputs], calls, [u]))
            found = {}
            for block in self._of.blocks:
                layer = self._of.layers[block.name]
                parts = [next(pulled) for _ in self._traced.responses[block.name]]
                s = joined([responses(layer, part, self._n, lead=1) for part in parts], -2)
                found[block.name] = s.movedim((0, 1), (-4, -3))
            yield found


def plain_blocks(problem: Problem) -> tuple[LinearBlock, ...]:
    """The blocks of a problem whose model is made of once-used linear layers alone."""
    if not problem.plain:
        raise UnsupportedModelError(
            f"{type(problem.model).__name__} is no stack of torch.nn.Linear layers, each used once "
            "on inputs (examples, features): these terms exist for such models only"
        )
    return tuple(block for block in problem.blocks if isinstance(block, LinearBlock))


def on_batches(
    problem: Problem,
    numbers: int,
    work: Callable[[Inputs, Tensor, int], Result],
    most: int | None = None,
) -> Iterator[Result]:
    """``work(x, y, first)`` of batches of the training examples, in float64, that fit.

    Args:
        problem: whose examples.
        numbers: that one example needs.
        work: what is made of a batch, whose first example is ``first``.
        most: bytes of a batch on the CPU, where fewer are faster.

    Raises:
        OutOfMemoryError: a single example does not fit.
    """
    fitting = chunk_bytes(problem.device, min(BATCH_BYTES, most or BATCH_BYTES))
    x, y = problem.rows("train")

    def one(rows: slice) -> Result:
        return work(double(take(x, rows)), as_double(y[rows]), rows.start)

    return shrinking(one, problem.num_examples, fitting // (8 * max(1, numbers)))


def on_hessian_batches(
    problem: Problem, work: Callable[[Inputs, Tensor, int], Result], columns: int = 0
) -> Iterator[Result]:
    """The same of a plain problem, whose Hessian terms and their products between layers fit.

    Args:
        problem: whose examples.
        work: what is made of a batch, whose first example is ``first``.
        columns: K of the Gauss–Newton terms where it may exceed the model's outputs.
    """
    blocks = plain_blocks(problem)
    outputs = sum(b.d_out for b in blocks)
    return on_batches(problem, outputs * (outputs + columns + sum(b.width for b in blocks)), work)


def as_double(y: Tensor) -> Tensor:
    """Regression targets in float64; class labels as they are."""
    return y.double() if y.is_floating_point() else y
