"""curvlinops 3.0.1: its inverse K-FAC and EK-FAC, applied to gradients of ours.

It has curvatures and no scores. By default factors come from one sampled label an example, with
biases apart, and K-FAC's inverse is undamped; EK-FAC takes exact damping alone.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from adapters.method import Method, Scorer, data_of, mean_loss, model_of
from decomposition import Problem, influence_scores
from decomposition.curvature import SolveCurvature


def scorer(problem: Problem, seed: int, kind: str) -> Scorer:
    """Factors once, an inverse for every damping."""
    import curvlinops

    model, (train, _) = model_of(problem), data_of(problem)
    parameters = list(model.parameters())
    operator = getattr(curvlinops, kind)(
        model, nn.CrossEntropyLoss(), parameters, [train.tensors], seed=seed
    )
    operator @ torch.zeros(problem.num_parameters)

    def scores(damping: float | None) -> Tensor:
        exact = damping != 0 or kind == "EKFACLinearOperator"
        inverse = curvlinops.KFACInverseLinearOperator(
            operator, damping or 0.0, use_exact_damping=exact
        )
        solve = lambda v, _: (inverse @ v.float()).double()  # noqa: E731
        return influence_scores(problem, SolveCurvature(problem.num_parameters, solve), 1.0)

    return scores


def methods() -> list[Method]:
    """K-FAC and EK-FAC."""
    kinds = {"kfac": "KFACLinearOperator", "ekfac": "EKFACLinearOperator"}
    return [
        Method(
            "curvlinops",
            name,
            partial(scorer, kind=kind),
            (0.0,),
            mean_loss,
            samples=True,
            ours=name,
        )
        for name, kind in kinds.items()
    ]
