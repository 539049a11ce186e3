"""The functions that influence scores can be held against, and what their measure is called."""

from __future__ import annotations

from typing import Literal

from decomposition.errors import DecompositionError, ProblemError
from decomposition.losses import CrossEntropy
from decomposition.problem import Problem
from decomposition.retraining.measures import Measure, check_labelled

Target = Literal["loss", "margin", "leave_one_out", "pbrf"]

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
    if target == "margin" and not isinstance(problem.query_loss, CrossEntropy):
        raise ProblemError(
            f"target 'margin' needs classes, but the loss is {problem.query_loss.name}: use "
            "target 'loss'"
        )
    if target == "margin":
        check_labelled(problem)
    if target == "pbrf" and problem.curvature_decay:
        raise ProblemError(
            "target 'pbrf' is defined with its own λ in place of a weight decay: leave out "
            "weight_decay_in_curvature, or use target 'loss'"
        )


def measured_function(target: str) -> Measure:
    """What is measured on the queries: the margin for ``margin``, the loss for all others."""
    return "margin" if target == "margin" else "loss"
