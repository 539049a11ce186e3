"""Options of losses: weights that are weights, and names that say every option."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from decomposition.errors import ProblemError

SHOWN = 10
"""Weights that a name spells out; of more it gives the range."""


def as_weights(values: object, option: str, may_vanish: bool = False) -> Float[Tensor, " C"] | None:
    """Non-negative weights of classes or outputs as a float64 vector; a number is one of length 1.

    Raises:
        ProblemError: not a vector, an entry negative or not finite, or all of them zero unless
            they ``may_vanish``.
    """
    if values is None:
        return None
    weights = torch.as_tensor(values).detach().to("cpu", torch.float64, copy=True)
    if weights.ndim == 0:
        weights = weights[None]
    if weights.ndim != 1 or len(weights) == 0:
        raise ProblemError(
            f"{option} must be one number for every output of the model, got shape "
            f"{tuple(weights.shape)}: weights of single examples are not supported, "
            "repeat an example instead"
        )
    bad = torch.nonzero(~(torch.isfinite(weights) & (weights >= 0)))
    if len(bad):
        at = int(bad[0])
        raise ProblemError(f"{option}[{at}] is {float(weights[at])}: weights are finite and >= 0")
    if not may_vanish and not weights.any():
        raise ProblemError(f"{option} is zero throughout: the loss is zero whatever the model")
    return weights


def check_length(weights: Tensor | None, option: str, outputs: int, one_for_all: bool) -> None:
    """Raise ProblemError unless there is a weight for every output (or one for all of them)."""
    if weights is None or len(weights) == outputs or (one_for_all and len(weights) == 1):
        return
    raise ProblemError(
        f"{option} has {len(weights)} entries, but the model has {outputs} outputs: give one "
        "number for every output"
    )


def described(name: str, options: Mapping[str, object]) -> str:
    """``name(option=value, …)``; options that are None are left out."""
    said = [f"{key}={_value(value)}" for key, value in options.items() if value is not None]
    return f"{name}({', '.join(said)})" if said else name


def _value(value: object) -> str:
    if not isinstance(value, Tensor):
        return str(value)
    if len(value) > SHOWN:
        return f"{len(value)} values from {float(value.min()):g} to {float(value.max()):g}"
    return f"[{', '.join(f'{x:g}' for x in value.tolist())}]"
