"""Layer terms of any model, position by position: what Kronecker factors are made of.

Notation for one example n and a linear block l with T positions (see decomposition.layers):

    a_l,t   (width,)   input of the linear map at position t, with 1 appended for the bias
    s_l,t   (K, d_out) rows Rᵀ ∂f/∂z_l,t at a root R (C × K) of the outputs' curvature

so that the rows of the generalised Jacobian are R_nᵀ ∂f_n/∂[W | b]_l = Σ_t s_l,t ⊗ a_l,t. A
grouped convolution has such terms for each of its G groups, whose rows of [W | b] stand one below
the other; G is a leading dimension that other blocks do not have.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from decomposition.curvature.preactivation import BATCH_BYTES, as_double, differentiable
from decomposition.device import chunk_bytes
from decomposition.inputs import Inputs, double, rows_in, take
from decomposition.layers import (
    LinearBlock,
    layers_of,
    output_shapes,
    patches,
    perturbed_forward,
    responses,
)
from decomposition.memory import shrinking
from decomposition.problem import Problem

Result = TypeVar("Result")
TERMS_BYTES = 64 * 2**20
"""Memory of the terms of one batch where it is free to choose: more leaves the cache, fewer are
more calls than work."""
Root = Callable[[Tensor, Tensor], Tensor]
"""(outputs (n, C), targets) → R (n, C, K)."""


@dataclass(frozen=True)
class PositionTerms:
    """Terms of the linear blocks for a batch of n examples."""

    inputs: dict[str, Float[Tensor, "*G n T width"]]
    """a_l,t."""
    roots: dict[str, Float[Tensor, "*G n K T d"]]
    """s_l,t, with d = d_out / G."""
    columns: Float[Tensor, "n C K"]
    """R."""


class Positions:
    """Evaluates the terms of a problem at its model's present parameters, in float64."""

    def __init__(self, problem: Problem) -> None:
        """Prepare a float64 copy of the model."""
        self.model = problem.double_model()
        self.blocks = tuple(b for b in problem.blocks if isinstance(b, LinearBlock))
        self.layers = layers_of(self.model, self.blocks)
        state = {**dict(self.model.named_parameters()), **dict(self.model.named_buffers())}
        self.parameters = {name: value.detach() for name, value in state.items()}

    def terms(self, x: Inputs, y: Tensor, root: Root) -> PositionTerms:
        """One forward pass, and K backward passes at once: one for each column of the root."""
        n = rows_in(x)
        shapes = output_shapes(self.model, self.layers, self.parameters, x)
        like = next(iter(self.parameters.values()))
        zeros = {
            name: tuple(like.new_zeros(shape) for shape in calls) for name, calls in shapes.items()
        }

        def forward(perturbation: dict[str, tuple[Tensor, ...]]):
            return perturbed_forward(self.model, self.layers, self.parameters, x, perturbation)

        with differentiable(self.model):
            outputs, vjp, inputs = torch.func.vjp(forward, zeros, has_aux=True)  # pyright: ignore[reportAssignmentType]
            columns = root(outputs, y)
            (pulled,) = torch.func.vmap(vjp)(columns.permute(2, 0, 1))
        found_inputs, found_roots = {}, {}
        for block in self.blocks:
            layer, name = self.layers[block.name], block.name
            a = _joined([patches(layer, call, n) for call in inputs[name]])
            s = _joined([responses(layer, call, n, lead=1) for call in pulled[name]])
            found_inputs[name] = block.append_one(a.movedim(0, -3))
            found_roots[name] = s.movedim((1, 0), (-4, -3))
        return PositionTerms(found_inputs, found_roots, columns)

    def numbers_per_example(self, x: Inputs, columns: int) -> int:
        """Numbers that the terms of one example consist of, K being ``columns``."""
        shapes = output_shapes(self.model, self.layers, self.parameters, take(x, slice(0, 1)))
        total = 0
        for block in self.blocks:
            positions = sum(shape.numel() for shape in shapes[block.name]) // block.d_out
            inputs = block.groups * block.width
            total += positions * (inputs + (2 * columns + 2) * block.d_out)
        return total


def _joined(calls: list[Tensor]) -> Tensor:
    """The positions of all calls; one call is not copied."""
    return calls[0] if len(calls) == 1 else torch.cat(calls, -2)


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
