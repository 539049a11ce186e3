"""Weights of examples: the loss of an example is w ℓ, and its weight travels with its target."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from decomposition.errors import ProblemError
from decomposition.losses.base import Loss

EXACT_WHOLE = 2**24
"""Whole numbers up to this size survive float32, the precision that rows may be cast to."""


class Weighted(Loss):
    """w ℓ(f, y) for rows [y | w] of targets and weights, with Λ = w ∇²_f ℓ and S = √w S_ℓ.

    Rows are one floating-point tensor (n, K + 1) whatever the targets' shape (K numbers of each)
    and type, so that what selects, casts or moves targets does the same to weights, and what
    forgets them meets rows of the wrong width.

    Args:
        loss: ℓ.
        like: targets whose shape and type all targets have.
    """

    def __init__(self, loss: Loss, like: Tensor) -> None:
        """Nothing is computed."""
        self.loss, self.shape, self.dtype = loss, like.shape[1:], like.dtype
        self.name, self.notes, self.positions = f"{loss.name} times weight", loss.notes, False
        self.nonnegative = loss.nonnegative

    def rows(self, y: Tensor, weights: Float[Tensor, " n"]) -> Float[Tensor, "n K1"]:
        """[y | w] in float64.

        Raises:
            ProblemError: targets of another shape or type, or whole numbers that rows do not hold.
        """
        if y.shape[1:] != self.shape or y.dtype != self.dtype:
            raise ProblemError(
                "with weights, all targets must be of one shape and type: those of training are "
                f"{self.dtype} {tuple(self.shape)} for an example, others {y.dtype} "
                f"{tuple(y.shape[1:])}"
            )
        if not y.dtype.is_floating_point and len(y) and y.long().abs().max() > EXACT_WHOLE:
            raise ProblemError(
                f"with weights, whole numbers as targets go up to {EXACT_WHOLE:,}: give larger "
                "ones as floats"
            )
        return torch.cat([y.flatten(1) if y.ndim > 1 else y[:, None], weights[:, None]], 1).double()

    def split(self, rows: Float[Tensor, "*n K1"]) -> tuple[Tensor, Float[Tensor, "*n"]]:
        """Targets (*n, …) and weights (*n,).

        Raises:
            ProblemError: these are targets without weights.
        """
        if rows.ndim < 2 or rows.shape[-1] != self.shape.numel() + 1:
            raise ProblemError(
                "the problem has weights of examples, and its loss takes targets with them: use "
                'problem.rows("train") and problem.rows("query"), or problem.query_loss for the '
                "loss without weights"
            )
        y = rows[..., :-1].reshape(*rows.shape[:-1], *self.shape)
        return (y if self.dtype.is_floating_point else y.round().to(self.dtype)), rows[..., -1]

    def per_example(self, f: Float[Tensor, "N C"], y: Tensor) -> Float[Tensor, " N"]:
        """w ℓ(f, y)."""
        targets, weights = self.split(y)
        return weights * self.loss.per_example(f, targets)

    def hessian(self, f: Float[Tensor, "N C"], y: Tensor) -> Float[Tensor, "N C C"]:
        """w ∇²_f ℓ."""
        targets, weights = self.split(y)
        return weights[:, None, None] * self.loss.hessian(f, targets)

    def hessian_sqrt(self, f: Float[Tensor, "N C"], y: Tensor) -> Float[Tensor, "N C C"]:
        """√w S_ℓ."""
        targets, weights = self.split(y)
        return weights.sqrt()[:, None, None] * self.loss.hessian_sqrt(f, targets)

    def check(self, f: Float[Tensor, "N C *T"], y: Tensor, where: str) -> Tensor:
        """Refused: a problem makes this loss itself."""
        raise ProblemError("give the loss without weights, and Problem(weights=…)")
