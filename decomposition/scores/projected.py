"""Per-example gradients kept at a fraction of their size, by a seeded sparse random projection.

Scores need no kept gradients (``decomposition.scores.streamed``): this is for work that asks
the same training gradients many questions. Every parameter adds itself, with a random sign, to one
of d/s places in each of s groups, scaled by 1/√s (Kane & Nelson 2014, arXiv 1012.1577), so that

    E⟨Πg, Πh⟩ = ⟨g, h⟩,    Var⟨Πg, Πh⟩ ≤ (‖g‖² ‖h‖² + ⟨g, h⟩²) / d.

Places and signs of a chunk of parameters come from a counter-based generator keyed by (seed,
chunk): the d × P matrix never exists, and any chunk can be made by itself.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from decomposition.checks import check_fields, seed, whole
from decomposition.curvature.jacobian_rows import per_example_gradients
from decomposition.device import chunk_bytes
from decomposition.errors import DecompositionError
from decomposition.inputs import Inputs, rows_in, take
from decomposition.memory import shrinking
from decomposition.problem import Problem

CHUNK = 2**16
"""Parameters whose places and signs are drawn at once."""
GRADIENT_NUMBERS = 2**25
"""Numbers of the gradients that are held before they are projected: 256 MB."""


@dataclass(frozen=True)
class Projection:
    """Π (d × P).

    Raises:
        DecompositionError: d does not divide by the number of groups, or a number is not positive.
    """

    size: int
    """P."""
    dimension: int
    """d."""
    seed: int = 0
    """Seed of places and signs."""
    groups: int = 4
    """s, the non-zeros of every column."""

    def __post_init__(self) -> None:
        """Check all four."""
        counts = dict.fromkeys(("size", "dimension", "groups"), whole(1, bits=48))
        check_fields(self, counts | {"seed": seed}, DecompositionError, "the {} of a projection")
        if self.dimension % self.groups:
            raise DecompositionError(
                f"the dimension {self.dimension} of a projection must divide by its "
                f"{self.groups} groups"
            )

    def __call__(self, rows: Float[Tensor, "n P"]) -> Float[Tensor, "n d"]:
        """Π g of every row."""
        if rows.ndim != 2 or rows.shape[1] != self.size:
            raise DecompositionError(
                f"rows to be projected are (n, {self.size}), got {tuple(rows.shape)}"
            )
        out = rows.new_zeros(len(rows), self.dimension)
        for columns, places, signs in self._chunks():
            part = rows[:, columns]
            for place, sign in zip(places.to(rows.device), signs.to(rows), strict=True):
                out.index_add_(1, place, part * sign)
        return out / self.groups**0.5

    def standard_error(self, g: Float[Tensor, " P"], h: Float[Tensor, " P"]) -> float:
        """Bound on the standard error of ⟨Πg, Πh⟩."""
        square = float(g @ g) * float(h @ h) + float(g @ h) ** 2
        return math.sqrt(square / self.dimension)

    def _chunks(self) -> Iterator[tuple[slice, Tensor, Tensor]]:
        width = self.dimension // self.groups
        offsets = width * np.arange(self.groups)[:, None]
        for number, start in enumerate(range(0, self.size, CHUNK)):
            count = min(CHUNK, self.size - start)
            generator = np.random.Generator(np.random.Philox(key=[self.seed, number]))
            places = generator.integers(0, width, (self.groups, CHUNK))[:, :count] + offsets
            signs = generator.integers(0, 2, (self.groups, CHUNK))[:, :count] * 2.0 - 1.0
            yield (
                slice(start, start + count),
                torch.from_numpy(places),
                torch.from_numpy(signs),
            )


def projected_gradients(
    problem: Problem, x: Inputs, y: Tensor, projection: Projection
) -> Float[Tensor, "n d"]:
    """Π ∇_θ ℓ of every example, made and projected a few examples at a time.

    Raises:
        DecompositionError: the projection is of another number of parameters.
        OutOfMemoryError: the gradient of one example does not fit.
    """

    def some(rows: slice) -> Tensor:
        return projection(per_example_gradients(problem, take(x, rows), y[rows]))

    chunk = chunk_bytes(problem.device, 8 * GRADIENT_NUMBERS) // (8 * problem.num_parameters)
    return torch.cat(list(shrinking(some, rows_in(x), chunk)))
