"""The functions that influence scores are held against: what is measured on the queries, and how.

Shapes: Q queries, C outputs.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from decomposition.errors import DecompositionError, ProblemError
from decomposition.losses import CrossEntropy
from decomposition.problem import Problem

Target = Literal["loss", "margin", "leave_one_out", "pbrf"]
Measure = Literal["loss", "margin"]
BLOCK = 1 << 20
"""Outputs that are converted to double precision at a time."""

MEASURES: dict[str, str] = {
    "loss": "LDS: Spearman over subsets between prediction and loss",
    "margin": "LDS: Spearman over subsets between prediction and margin",
    "leave_one_out": "Spearman over examples between score and leave-one-out response of the loss",
    "pbrf": "Spearman over examples between score and proximal Bregman response of the loss",
}
"""Target → what its levels are."""

ONE_AT_A_TIME = ("leave_one_out", "pbrf")
"""Targets in which single examples are removed: their ``mask`` dimension counts examples."""


class TargetError(DecompositionError, ValueError):
    """A target is unknown, does not fit the problem, or could not be computed."""


def check_problem(problem: Problem, target: str) -> None:
    """Raise ProblemError if the problem has no such target."""
    if target == "margin":
        _check_margin(problem, "target 'margin'", "target 'loss'")
    if target == "pbrf" and problem.curvature_decay:
        raise ProblemError(
            "target 'pbrf' is defined with its own λ in place of a weight decay: leave out "
            "weight_decay_in_curvature, or use target 'loss'"
        )


def measured_function(target: str) -> Measure:
    """What is measured on the queries: the margin for ``margin``, the loss for all others."""
    return "margin" if target == "margin" else "loss"


def measure(
    problem: Problem, outputs: Float[np.ndarray, "*cells Q C"], function: Measure = "loss"
) -> Float[np.ndarray, "*cells Q"]:
    """``loss``: ℓ(f_q, y_q). ``margin``: f_y − log Σ_{c≠y} exp f_c, the log-odds of the label.

    The loss of a query with positions is the mean over them. Its margin is not defined: every
    position has one of its own.

    Raises:
        ProblemError: an unknown function, or the margin of a problem without classes, with
            positions, or of a query without a label.
    """
    if function not in get_args(Measure):
        raise ProblemError(
            f"function must be one of {', '.join(get_args(Measure))}, got {function!r}"
        )
    if function == "margin":
        _check_margin(problem, "the margin", "function='loss'")
    *cells, queries, width = outputs.shape
    flat = torch.from_numpy(outputs).reshape(-1, queries, width)
    y = problem.query[1].cpu()
    y = y.double() if y.is_floating_point() else y
    blocks = flat.split(max(1, BLOCK // (queries * width)))
    measured = Margin() if function == "margin" else problem.query_loss

    def values(f: Tensor) -> Tensor:
        targets = y.expand(len(f), *y.shape).flatten(0, 1)
        return measured.per_example(f.reshape(-1, width), targets).view(len(f), queries)

    found = torch.cat([values(block.double()) for block in blocks])
    return found.reshape(*cells, queries).numpy()


def _check_margin(problem: Problem, named: str, instead: str) -> None:
    if not isinstance(problem.query_loss, CrossEntropy):
        raise ProblemError(
            f"{named} needs classes, but the loss is {problem.query_loss.name}: use {instead}"
        )
    check_labelled(problem)


def check_labelled(problem: Problem) -> None:
    """Raise ProblemError unless every query has one label, and not one that is ignored.

    A query with a label at each of its positions has one margin there for each: their mean would
    be no function of its loss.
    """
    loss = problem.query_loss
    if isinstance(loss, CrossEntropy):
        if len(problem.output_shape) > 1:
            raise ProblemError(
                "a query has one margin for each of its positions (outputs "
                f"{problem.output_shape}): use the loss, or a model that predicts at one position"
            )
        ignored = torch.nonzero(problem.query[1] == loss.ignore_index).flatten()
        if len(ignored):
            raise ProblemError(
                f"query {int(ignored[0])} has the ignored label {loss.ignore_index}, and no margin "
                "without a label: drop it from the queries"
            )


class Margin(CrossEntropy):
    """The margin as a loss, so that it has gradients as one has: m = f_y − log Σ_{c≠y} exp f_c.

    The log-odds of the label: large where the loss is small.

    With p_y the probability of the label, ∇m = −∇ℓ / (1 − p_y) and m = −log(exp ℓ − 1): on one
    model the margin is a decreasing function of the loss. It is differentiated directly, because
    1 − p_y has no digits left where the label is certain.

    The margin is about the label and the model's probabilities alone: class weights and label
    smoothing play no part in it, and these two identities are those of ℓ = −log p_y without them.
    An ignored query has no margin, and neither have independent outputs (binary cross-entropy):
    both are refused by ``check_problem``.

    Source: Park et al., TRAK: Attributing Model Behavior at Scale (ICML 2023).
    """

    @property
    def name(self) -> str:
        """``margin``."""
        return "margin"

    def check(self, f: Tensor, y: Tensor, where: str) -> Tensor:
        """Labels as they are: the loss of the problem has checked them, with its own options."""
        return y

    def per_example(self, f: Tensor, y: Tensor) -> Tensor:
        """f_y − log Σ_{c≠y} exp f_c."""
        label = y[:, None]
        rest = f.scatter(-1, label, -torch.inf).logsumexp(-1)
        return f.gather(-1, label)[:, 0] - rest

    def hessian(self, f: Tensor, y: Tensor) -> Tensor:
        """Not defined here: the margin is measured, never trained on, and is not convex."""
        raise TargetError("the margin has no curvature here: train on a loss")

    hessian_sqrt = hessian
