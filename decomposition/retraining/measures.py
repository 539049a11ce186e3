"""From outputs on the queries to the number whose change is attributed."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from decomposition.errors import ProblemError
from decomposition.losses import CrossEntropy
from decomposition.problem import Problem

Measure = Literal["loss", "margin"]
BLOCK = 1 << 20


def measure(
    problem: Problem, outputs: Float[np.ndarray, "*cells Q C"], function: Measure = "loss"
) -> Float[np.ndarray, "*cells Q"]:
    """``loss``: ℓ(f_q, y_q). ``margin``: f_y − log Σ_{c≠y} exp f_c, the log-odds of the label.

    The loss of a query with positions is the mean over them. Its margin is not defined: every
    position has one of its own.

    Source of the margin: Park et al., TRAK: Attributing Model Behavior at Scale (ICML 2023).

    Raises:
        ProblemError: an unknown function, or the margin of a problem without classes, with
            positions, or of a query without a label.
    """
    if function not in get_args(Measure):
        raise ProblemError(
            f"function must be one of {', '.join(get_args(Measure))}, got {function!r}"
        )
    if function == "margin" and not isinstance(problem.query_loss, CrossEntropy):
        raise ProblemError(
            f"the margin needs classes, but the loss is {problem.query_loss.name}: use "
            "function='loss'"
        )
    if function == "margin":
        check_labelled(problem)
    *cells, queries, width = outputs.shape
    flat = torch.from_numpy(outputs).reshape(-1, queries, width)
    y = problem.query[1].cpu()
    y = y.double() if y.is_floating_point() else y
    blocks = flat.split(max(1, BLOCK // (queries * width)))
    values = torch.cat([_measure(problem, block.double(), y, function) for block in blocks])
    return values.reshape(*cells, queries).numpy()


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


def _measure(problem: Problem, f: Tensor, y: Tensor, function: Measure) -> Tensor:
    models, queries, width = f.shape
    if function == "margin":
        label = y.expand(models, queries)[..., None]
        rest = f.scatter(-1, label, -torch.inf).logsumexp(-1)
        return f.gather(-1, label)[..., 0] - rest
    targets = y.expand(models, *y.shape).flatten(0, 1)
    values = problem.query_loss.per_example(f.reshape(-1, width), targets)
    return values.view(models, queries)
