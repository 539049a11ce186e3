"""What scores are held against: which truth can be afforded, and what is said.

Retrained models (targets loss, margin, leave_one_out), proximal Bregman responses, or a bank made
elsewhere. Of large models, retraining and responses are predicted from a few timed steps first;
beyond ``Settings.retrain_hours`` nothing is measured, and the note says what it would have taken.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from decomposition.curvature import Curvature
from decomposition.errors import UnsupportedModelError
from decomposition.problem import Problem
from decomposition.resources import duration
from decomposition.retraining.cost import retraining_cost
from decomposition.retraining.plan import BankPlan
from decomposition.retraining.supplied import BankFileError, SuppliedBank
from decomposition.settings import Settings
from decomposition.targets.functions import ONE_AT_A_TIME, TargetError, measured_function
from decomposition.targets.leave_one_out import LeaveOneOutPlan, removed_examples
from decomposition.targets.measurement import (
    Measurement,
    measure_leave_one_out,
    measure_proximal_responses,
    measure_subsets,
    measure_supplied,
    proximal_damping,
)
from decomposition.targets.pbrf import proximal_seconds, responses_left
from decomposition.targets.variation import check_before, check_moves, start_notes

OTHER = "or give the answers of models retrained elsewhere with --bank (docs/supplied_bank.md)"


@dataclass(frozen=True)
class Truth:
    """What was measured, if anything."""

    found: Measurement | None
    notes: tuple[str, ...] = ()
    """What a reader must know: which truth it is, or why there is none."""


def measured_truth(
    problem: Problem,
    rungs: Mapping[str, Curvature],
    settings: Settings,
    folder: Path | None = None,
    progress: bool = True,
    bank: SuppliedBank | None = None,
    affordable: bool = True,
) -> Truth:
    """Measure the settings' target, if it can be afforded.

    Args:
        problem: trained.
        rungs: the GGN makes the steps of proximal responses, in its own eigenbasis where it has
            one, else in that of EK-FAC.
        settings: target, sizes, ``retrain_hours``.
        folder: where banks and responses are kept; what is there costs nothing.
        progress: show progress bars.
        bank: the truth, in place of retraining.
        affordable: whether the cost is known to be small, and nothing is timed beforehand.

    Raises:
        DecompositionError: as ``retrain_bank``, ``measure_proximal_responses``, ``measure``.
    """
    if not settings.attribution:
        return Truth(None)
    if bank is not None:
        return _said(measure_supplied(problem, bank, measured_function(settings.target)))
    if settings.target == "pbrf":
        return _responses(problem, rungs, settings, folder, progress, affordable)
    if not affordable:
        plan = bank_plan(problem, settings)
        try:
            cost = retraining_cost(problem, plan, None if folder is None else folder / "bank")
        except UnsupportedModelError as error:
            return Truth(None, (f"no LDS: the model cannot be retrained here ({error}); {OTHER}",))
        if cost.hours > settings.retrain_hours:
            what = f"retraining {cost.models:,} models ({cost.steps:,} steps each)"
            return _too_dear(what, cost.seconds, settings, _fewer(settings), OTHER)
    return _said(_retrained(problem, settings, folder, progress))


def _retrained(
    problem: Problem, settings: Settings, folder: Path | None, progress: bool
) -> Measurement:
    """The target of models retrained here; their bank is kept in ``folder``."""
    check_moves(problem, bank_plan(problem, settings))
    store = None if folder is None else folder / "bank"
    if settings.target == "leave_one_out":
        count = settings.leave_one_out_examples
        found = measure_leave_one_out(problem, settings.plan, count, store, progress)
    else:
        function = measured_function(settings.target)
        found = measure_subsets(problem, settings.plan, function, store, progress)
    return replace(found, notes=(*found.notes, *start_notes(problem)))


def check_truth(problem: Problem, settings: Settings, bank: SuppliedBank | None) -> None:
    """Before any work, that models which are to be retrained, or a bank, can give a truth.

    Raises:
        DecompositionError: as ``check_before`` and ``measure_supplied``.
    """
    if bank is not None:
        measure_supplied(problem, bank, measured_function(settings.target))
    elif settings.attribution:
        check_before(problem, bank_plan(problem, settings), settings.target)


def bank_plan(problem: Problem, settings: Settings) -> BankPlan:
    """The masks of a target, with the models that are retrained on them."""
    if settings.target not in ONE_AT_A_TIME:
        return settings.plan
    return LeaveOneOutPlan.of(settings.plan, settings.leave_one_out_examples, problem.num_examples)


def _responses(
    problem: Problem,
    rungs: Mapping[str, Curvature],
    settings: Settings,
    folder: Path | None,
    progress: bool,
    affordable: bool,
) -> Truth:
    ggn = rungs["ggn"]
    metric = ggn if ggn.eigenbasis is not None else rungs["ekfac"]
    store = None if folder is None else folder / "pbrf"
    count, multiple = settings.leave_one_out_examples, settings.pbrf_damping
    if not affordable:
        damping = proximal_damping(problem, metric, multiple)
        removed = removed_examples(settings.seed, count, problem.num_examples)
        left = responses_left(problem, damping, removed, folder=store)
        seconds = proximal_seconds(problem, metric, damping, left, ggn)
        if seconds > 3600.0 * settings.retrain_hours:
            larger = "a larger --pbrf-damping, which takes fewer steps"
            what = f"{left:,} proximal Bregman responses"
            return _too_dear(what, seconds, settings, _fewer(settings), larger)
    found = measure_proximal_responses(
        problem,
        metric,
        multiple,
        settings.plan,
        count,
        store,
        progress,
        None if metric is ggn else ggn,
    )
    left_out = int(found.attributes["pbrf_unconverged"])
    if left_out and settings.base_seeds > 1:
        raise TargetError(
            f"{left_out} proximal responses of a base model did not converge, and base models are "
            "compared on the same examples: raise pbrf_damping or use one base seed"
        )
    return _said(found)


def _said(found: Measurement) -> Truth:
    return Truth(found, found.notes)


def _fewer(settings: Settings) -> str:
    return "--masks" if settings.target in ("loss", "margin") else "--leave-one-out-examples"


def _too_dear(what: str, seconds: float, settings: Settings, fewer: str, other: str) -> Truth:
    return Truth(
        None,
        (
            f"no LDS: {what} for target {settings.target} would take about {duration(seconds)} "
            f"here, by what a few timed steps predict, and --retrain-hours is "
            f"{settings.retrain_hours:g}: raise it, lower {fewer}, {other}",
        ),
    )


def settings_of(bank: SuppliedBank, settings: Settings) -> Settings:
    """``settings`` with the bank's masks, repeats and alpha.

    Raises:
        BankFileError: the settings ask for what a supplied bank does not hold.
    """
    if settings.target in ONE_AT_A_TIME:
        raise BankFileError(
            f"target {settings.target} is measured here, not read from a bank: use target loss or "
            "margin, or leave the bank out"
        )
    if not settings.attribution:
        raise BankFileError("a bank is of no use without attribution: leave one of them out")
    if settings.base_seeds > 1:
        raise BankFileError(
            f"a supplied bank belongs to one base model, got base_seeds = {settings.base_seeds}"
        )
    plan = bank.plan
    return replace(
        settings,
        masks=plan.masks,
        repeats=plan.repeats,
        alpha=plan.alpha,
        second_order_masks=plan.second_order_masks,
    )
