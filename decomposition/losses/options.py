"""Options of losses: weights that are weights, and names that say every option."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from decomposition.errors import ProblemError

SHOWN = 10
"""Weights that a name spells out; of more it gives the range."""


def as_weights(
    values: object, option: str, may_vanish: bool = False, shaped: bool = False
) -> Float[Tensor, "C ..."] | None:
    """Non-negative weights of classes or outputs in float64: a vector, or of any shape if
    ``shaped``; a number is a vector of length 1.

    Raises:
        ProblemError: not a vector, an entry negative or not finite, or all of them zero unless
            they ``may_vanish``.
    """
    if values is None:
        return None
    weights = torch.as_tensor(values).detach().to("cpu", torch.float64, copy=True)
    if weights.ndim == 0:
        weights = weights[None]
    if (weights.ndim != 1 and not shaped) or weights.numel() == 0:
        raise ProblemError(
            f"{option} must be one number for every output of the model, got shape "
            f"{tuple(weights.shape)}: weights of single examples go into "
            "Problem(weights=…), or repeat an example"
        )
    bad = torch.nonzero(~(torch.isfinite(weights) & (weights >= 0)))
    if len(bad):
        at = bad[0].tolist()
        where = ", ".join(map(str, at))
        raise ProblemError(
            f"{option}[{where}] is {float(weights[tuple(at)])}: weights are finite and >= 0"
        )
    if not may_vanish and not weights.any():
        raise ProblemError(f"{option} is zero throughout: the loss is zero whatever the model")
    return weights


def check_length(weights: Tensor | None, option: str, outputs: int) -> None:
    """Raise ProblemError unless there is a weight for every output."""
    if weights is None or len(weights) == outputs:
        return
    raise ProblemError(
        f"{option} has {len(weights)} entries, but the model has {outputs} outputs: give one "
        "number for every output"
    )


def check_broadcast(weights: Tensor | None, option: str, shape: Sequence[int]) -> None:
    """Raise ProblemError unless the weights are broadcast to the outputs of one example, (C, …)."""
    if weights is None or weights.numel() == 1 == weights.ndim:
        return
    if len(shape) == weights.ndim == 1:
        check_length(weights, option, shape[0])
        return
    pairs = zip(reversed(weights.shape), reversed(shape), strict=False)
    if weights.ndim > len(shape) or any(have not in (1, wanted) for have, wanted in pairs):
        channels = tuple(shape[:1]) + (1,) * (len(shape) - 1)
        raise ProblemError(
            f"{option} has the shape {tuple(weights.shape)}, which torch does not broadcast to an "
            f"example's outputs {tuple(shape)}: one number for every channel has the shape "
            f"{channels}; weights of single examples go into Problem(weights=…), or repeat an "
            "example"
        )


def described(name: str, options: Mapping[str, object]) -> str:
    """``name(option=value, …)``; options that are None are left out."""
    said = [f"{key}={_value(value)}" for key, value in options.items() if value is not None]
    return f"{name}({', '.join(said)})" if said else name


def _value(value: object) -> str:
    if not isinstance(value, Tensor):
        return str(value)
    shape = f" of shape {tuple(value.shape)}" if value.ndim > 1 else ""
    if value.numel() > SHOWN:
        between = f"from {float(value.min()):g} to {float(value.max()):g}"
        return f"{value.numel()} values {between}{shape}"
    return f"[{', '.join(f'{x:g}' for x in value.flatten().tolist())}]{shape}"
