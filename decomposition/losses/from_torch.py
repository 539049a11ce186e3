"""From torch's loss modules to ours."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from decomposition.errors import ProblemError
from decomposition.losses.base import Loss
from decomposition.losses.binary_cross_entropy import BinaryCrossEntropy
from decomposition.losses.cross_entropy import CrossEntropy
from decomposition.losses.mean_squared_error import MeanSquaredError

OURS: dict[type[nn.Module], Callable[..., Loss]] = {
    nn.CrossEntropyLoss: lambda loss: CrossEntropy(
        loss.weight, loss.ignore_index, loss.label_smoothing
    ),
    nn.BCEWithLogitsLoss: lambda loss: BinaryCrossEntropy(loss.weight, loss.pos_weight),
    nn.MSELoss: lambda loss: MeanSquaredError(),
}
"""Torch's loss → ours with the same options."""

OF_LOGITS: dict[type[nn.Module], str] = {
    nn.BCELoss: "takes probabilities, whose logarithms lose their digits: let the model return "
    "logits (drop its last sigmoid) and use torch.nn.BCEWithLogitsLoss()",
    nn.NLLLoss: "takes log-probabilities: let the model return logits (drop its last log-softmax) "
    "and use torch.nn.CrossEntropyLoss()",
}
"""Losses of which another form is supported, and the way to it."""


def as_loss(loss: Loss | nn.Module) -> Loss:
    """Accept our own Loss, or torch's cross-entropies and squared error with their options.

    Raises:
        ProblemError: another loss, a reduction other than the mean, or an option out of range.
    """
    if isinstance(loss, Loss):
        return loss
    kind = type(loss)
    if kind in OURS:
        reduction = getattr(loss, "reduction", "mean")
        if reduction != "mean":
            raise ProblemError(
                f"{kind.__name__}(reduction={reduction!r}) is not supported: the objective is the "
                "mean over examples, so use reduction='mean' and put a constant factor into the "
                "learning rate and the damping"
            )
        return OURS[kind](loss)
    if kind in OF_LOGITS:
        raise ProblemError(f"{kind.__name__} is not supported: it {OF_LOGITS[kind]}")
    if isinstance(loss, type):
        raise ProblemError(
            f"loss is the class {loss.__name__}: pass an instance, {loss.__name__}()"
        )
    if callable(loss) and not isinstance(loss, nn.Module):
        raise ProblemError(
            "loss is a function: wrap it in decomposition.losses.CustomLoss(function), with "
            "function(f, y) the losses (n,) of n examples"
        )
    raise ProblemError(
        f"loss {kind.__name__} is not supported: use torch.nn.CrossEntropyLoss(), "
        "torch.nn.BCEWithLogitsLoss(), torch.nn.MSELoss(), or "
        "decomposition.losses.CustomLoss(function), with function(f, y) the losses (n,) of n "
        "examples"
    )
