"""Products with H and G of a problem, for models whose matrices are too large to form."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from decomposition.curvature.products import Product, ggn_product, hessian_product
from decomposition.device import CPU
from decomposition.errors import DecompositionError
from decomposition.problem import Problem


@dataclass(frozen=True)
class Operator:
    """A symmetric P × P matrix known by its products alone."""

    size: int
    """P."""
    matvec: Callable[[Float[Tensor, "P k"]], Float[Tensor, "P k"]]
    """v (P, k) → C v."""
    device: torch.device = CPU
    """Where v lies."""


def ggn_operator(problem: Problem, block: str | None = None) -> Product:
    """Products with G, or with a block of it.

    Raises:
        DecompositionError: no block of that name.
    """
    return ggn_product(problem, part=_place(problem, block))


def hessian_operator(problem: Problem, block: str | None = None) -> Product:
    """Products with H, or with a block of it.

    Raises:
        DecompositionError: no block of that name.
    """
    return hessian_product(problem, part=_place(problem, block))


def _place(problem: Problem, block: str | None) -> slice | None:
    if block is None:
        return None
    for one in problem.blocks:
        if one.name == block:
            return one.slice
    names = ", ".join(b.name for b in problem.blocks)
    raise DecompositionError(f"no block {block!r}: the blocks are {names}")
