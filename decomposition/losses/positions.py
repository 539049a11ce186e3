"""Outputs with positions: rows of C·T numbers, and the matrices of single positions in them.

Shapes: n examples, C classes or channels, T = d1·…·dk positions. A model returns (n, C, d1, …, dk)
as torch's losses take them; losses get these as rows f (n, C·T), class by class and in it position
by position, and read T off the targets y (n, d1, …, dk). With targets (n,) there is one position.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from decomposition.errors import ProblemError
from decomposition.losses.base import Loss


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
