"""What every loss offers, and outputs with positions: rows of C·T numbers of an example.

Shapes: n examples, C classes or channels, T = d1·…·dk positions. A model returns (n, C, d1, …, dk)
as torch's losses take them; losses get these as rows f (n, C·T), class by class and in it position
by position, and read T off the targets y (n, d1, …, dk). With targets (n,) there is one position.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from jaxtyping import Float
from torch import Tensor

from decomposition.errors import ProblemError


class Loss(ABC):
    """A loss that is convex in the outputs, with its output Hessian.

    ``per_example`` is also called under ``torch.func`` (vmap, grad, jvp) and in float32. Outputs
    come as rows f (N, C); of a loss with ``positions`` these are the outputs (N, C, d1, …) of the
    model flattened to (N, C·T), and C below stands for C·T. ``check`` alone sees them as they are.
    """

    name: str
    """Name for messages and results, with every option that is not the default."""
    notes: tuple[str, ...] = ()
    """What a reader of results must know."""
    nonnegative: bool = True
    """Whether no loss can be below zero."""
    positions: bool = False
    """Whether outputs (N, C, d1, …) are taken, whose T positions are read off the targets: the
    loss of an example is then the mean over its positions."""

    @abstractmethod
    def per_example(self, f: Float[Tensor, "N C"], y: Tensor) -> Float[Tensor, " N"]:
        """ℓ(f_n, y_n) for every example."""

    @abstractmethod
    def hessian(self, f: Float[Tensor, "N C"], y: Tensor) -> Float[Tensor, "N C C"]:
        """Λ_n = ∇²_f ℓ(f_n, y_n)."""

    @abstractmethod
    def hessian_sqrt(self, f: Float[Tensor, "N C"], y: Tensor) -> Float[Tensor, "N C C"]:
        """S_n with S_n S_nᵀ = Λ_n; column c is the c-th direction of the GGN sum."""

    @abstractmethod
    def check(self, f: Float[Tensor, "N C *T"], y: Tensor, where: str) -> Tensor:
        """Return the targets in the form used here, or raise ProblemError naming the entry.

        ``f`` are the outputs as the model returns them.
        """


def by_position(f: Float[Tensor, "n CT"], y: Tensor) -> tuple[Float[Tensor, "nT C"], Tensor]:
    """Outputs (n·T, C) and targets (n·T,): every position of every example is a row."""
    if y.ndim == 1:
        return f, y
    return f.unflatten(-1, (-1, y.shape[1:].numel())).mT.flatten(0, 1), y.flatten()


def side_by_side(rows: Float[Tensor, "nT C"], y: Tensor) -> Float[Tensor, "n CT"]:
    """Back from rows of single positions to rows of examples."""
    return rows if y.ndim == 1 else rows.unflatten(0, (len(y), -1)).mT.flatten(1)


def block_diagonal(blocks: Float[Tensor, "nT C K"], y: Tensor) -> Float[Tensor, "n CT KT"]:
    """One matrix for each position → one for each example, that couples no two positions."""
    if y.ndim == 1:
        return blocks
    of_example = blocks.unflatten(0, (len(y), -1)).movedim(1, -1)
    return torch.diag_embed(of_example).transpose(2, 3).flatten(3).flatten(1, 2)


def check_positions(loss: Loss, f: Float[Tensor, "n C *T"]) -> None:
    """Nothing, if the loss takes the outputs that a model returns.

    Raises:
        ProblemError: they have positions, and the loss is for rows (n, C).
    """
    if f.ndim > 2 and not loss.positions:
        shape = tuple(f.shape[1:])
        raise ProblemError(
            f"the loss {loss.name} is one of outputs (N, C), but the model returns "
            f"{tuple(f.shape)}: let it return outputs.flatten(1), and compute the loss from "
            f"f.unflatten(1, {shape})"
        )


def place(index: list[int], what: str = "position") -> str:
    """Where in an array of targets, for messages: ``row 3, position 2``."""
    row, *rest = index
    return f"row {row}" + (f", {what} {', '.join(map(str, rest))}" if rest else "")
