"""Is there curvature and a gradient at the trained model? A saturated or diverged one has none."""

from __future__ import annotations

from collections.abc import Mapping

from decomposition.curvature import Curvature
from decomposition.errors import ProblemError
from decomposition.evaluation import mean_loss
from decomposition.problem import Problem
from decomposition.scores.gradients import Gradients, loss_gradients

LEAST = 1e-30
"""Mean eigenvalue of the GGN below which its inverse leaves single precision."""
SEEN = 1e-15
"""Norm of a gradient that training in double precision would still notice."""


def check_curvature(
    start: Problem,
    trained: Problem,
    rungs: Mapping[str, Curvature],
    gradients: Gradients | None = None,
) -> None:
    """Nothing, if the GGN is more than zero: damping is measured in its mean eigenvalue.

    EK-FAC has its trace, whatever the form of the other rungs.

    Raises:
        ProblemError: it vanishes; the message says how many examples still have a gradient, and
            whether training diverged.
    """
    mean = rungs["ekfac"].trace() / trained.num_parameters
    if mean > LEAST:
        return
    norms = (gradients or loss_gradients(trained)).train.norm(dim=0)
    alive = int((norms > SEEN).sum())
    recipe, after = start.recipe, mean_loss(trained, "train")
    said = (
        f"the curvature of the trained model vanishes: the mean eigenvalue of its GGN is "
        f"{mean:.3g}, and {alive} of {trained.num_examples} training examples have a gradient "
        f"above {SEEN:g}"
    )
    before = mean_loss(start, "train")
    if start.initial is None and after > before:
        raise ProblemError(
            f"training of the base model diverged: the mean training loss went from {before:.3g} "
            f"to {after:.3g} with lr = {recipe.lr:g} and weight_decay = "
            f"{recipe.weight_decay:g}; {said}; lower Recipe.lr, or Recipe.weight_decay"
        )
    raise ProblemError(
        f"{said}: its outputs are saturated, or its weights have decayed to zero (weight_decay = "
        f"{recipe.weight_decay:g}); take an earlier checkpoint (Recipe.checkpoint, fewer epochs), "
        "or train with label smoothing (CrossEntropyLoss(label_smoothing=0.1)) or less weight decay"
    )
