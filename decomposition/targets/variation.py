"""Whether what was measured varies with the mask: a truth that does not has nothing to rank.

Shapes: M masks, R repeats, Q queries, C outputs.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool

from decomposition.problem import Problem
from decomposition.recipe import UnknownStart
from decomposition.retraining import distinct
from decomposition.retraining.cells import CellTrainer, Chunk
from decomposition.retraining.initial import (
    check_retrainable,
    present_parameters,
    shared_start,
)
from decomposition.retraining.plan import BankPlan
from decomposition.retraining.trainer import BatchedTrainer
from decomposition.targets.functions import ONE_AT_A_TIME, TargetError

ULPS = 8
"""Values that differ by no more units in the last place are equal up to the rounding of a sum."""
TRIED = 4
"""Models that are retrained before the others where the base model has not moved."""
OTHERWISE = (
    "Settings(attribution=False) (--no-attribution) leaves the retrained models out, and a bank of "
    "models retrained elsewhere can be given (docs/supplied_bank.md)"
)


def unmoved(values: np.ndarray) -> Bool[np.ndarray, " Q"]:
    """Queries whose values (M, R, Q) or (M, R, Q, C) vary over masks by rounding alone."""
    with np.errstate(invalid="ignore"):  # infinities are named where they are read
        spread = values.max(0) - values.min(0)
    scale = np.maximum(np.abs(values.max(0)), np.abs(values.min(0)))
    still = spread <= ULPS * np.finfo(values.dtype).eps * scale
    return still.all(0) if still.ndim == 2 else still.all((0, 2))


def check_before(problem: Problem, plan: BankPlan, target: str) -> None:
    """What can be known before any training: that it takes a step, and that masks differ.

    Raises:
        TargetError: no model would take a step, or too few masks are distinct.
        ProblemError: as ``check_retrainable``, ``steps_per_epoch`` and ``BankPlan.subsets``.
    """
    recipe = problem.recipe
    retrained = target != "pbrf"
    if retrained:
        check_retrainable(problem, plan.randomness)
        recipe.steps_per_epoch(plan.kept(problem.num_examples))
    if recipe.last_epoch == 0 and retrained:
        name = "epochs" if recipe.epochs == 0 else "checkpoint"
        raise TargetError(
            f"Recipe.{name} = 0: no retrained model takes a step, so that what is measured of it "
            f"cannot depend on its subset of the examples. Train for an epoch at least; {OTHERWISE}"
        )
    masks = plan.subsets(problem.num_examples)
    found = distinct.count(masks)
    if found < distinct.LEAST:
        one = target in ONE_AT_A_TIME
        more = "leave_one_out_examples" if one else "masks, or an alpha nearer to 0.5"
        raise TargetError(
            f"{distinct.too_few(found, len(masks))}. There are {problem.num_examples} training "
            f"examples: use more of them, or more {more}"
        )


def check_moves(problem: Problem, plan: BankPlan) -> None:
    """That training moves the outputs: tried on a few models, where it did not move the base model.

    Raises:
        TargetError: neither the base model nor they moved, on any query, by more than rounding.
    """
    if not isinstance(problem.initial, UnknownStart):
        trainer = BatchedTrainer(problem)
        stack = trainer.stack(2)
        stack.load(0, {name: value[None] for name, value in shared_start(problem).items()})
        stack.load(1, present_parameters(problem.model))
        if not unmoved(trainer.query_outputs(stack).cpu().numpy()[:, None]).all():
            return
    last, tried = problem.recipe.last_epoch, Chunk(0, min(TRIED, plan.masks), 0)
    found = CellTrainer(problem, plan).outputs(tried, {0, last}, lambda: None)
    before_after = np.stack([found[0], found[last]])
    if unmoved(before_after).all():
        recipe = problem.recipe
        raise TargetError(
            f"{last} epochs with lr = {recipe.lr} move no model's outputs on the queries by more "
            f"than the rounding of {recipe.dtype} (tried on the base model and {tried.models} "
            "retrained ones), so that what is measured cannot depend on the mask: "
            f"{stronger(problem)}; {OTHERWISE}"
        )


def stronger(problem: Problem) -> str:
    """What makes training move more than rounding."""
    resolved = ", or Recipe(dtype='float64')" if problem.recipe.dtype == "float32" else ""
    return f"raise Recipe.lr or Recipe.epochs{resolved}"


def start_notes(problem: Problem) -> tuple[str, ...]:
    """A note where retraining starts at the trained parameters themselves."""
    if isinstance(problem.initial, UnknownStart):
        return ()
    start, present = shared_start(problem), present_parameters(problem.model)
    if not all(bool((start[name] == value[0]).all()) for name, value in present.items()):
        return ()
    return (
        "Problem.initial holds the trained parameters themselves: models are retrained from there, "
        "not from where training started. model.state_dict() shares its tensors with the model and "
        "follows it: keep copy.deepcopy(model.state_dict()) before training",
    )


def constant_words(measured: str, still: Bool[np.ndarray, " Q"], models: str) -> str:
    """That the queries marked have one truth, to put into an error or a note."""
    rows = np.flatnonzero(still)
    if still.all():
        which = f"all {len(still)} queries" if len(still) > 1 else "the only query"
        return f"the measured {measured} of {which} is the same for all {models}"
    shown = ", ".join(map(str, rows[:5])) + (", …" if len(rows) > 5 else "")
    which = f"query {shown}" if len(rows) == 1 else f"{len(rows)} of {len(still)} queries ({shown})"
    return f"the measured {measured} of {which} is the same for all {models}"
