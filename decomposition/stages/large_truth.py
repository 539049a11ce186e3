"""What the scores of a large run are held against: which truth can be afforded, and what is said.

Retrained models (targets loss, margin, leave_one_out), proximal Bregman responses, or a bank made
elsewhere. Retraining and responses are predicted from a few timed steps first; beyond
``Settings.retrain_hours`` nothing is measured, and the note says what it would have taken.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from decomposition.curvature import Curvature
from decomposition.errors import UnsupportedModelError
from decomposition.planner import duration
from decomposition.problem import Problem
from decomposition.retraining.cost import retraining_cost
from decomposition.retraining.supplied import SuppliedBank
from decomposition.settings import Settings
from decomposition.stages.base_model import bank_plan, retrained
from decomposition.targets.chunks import responses_left
from decomposition.targets.cost import proximal_seconds
from decomposition.targets.leave_one_out import removed_examples
from decomposition.targets.measurement import (
    Measurement,
    measure_proximal_responses,
    measure_supplied,
    proximal_damping,
)
from decomposition.targets.names import measured_function

OTHER = "or give the answers of models retrained elsewhere with --bank (docs/supplied_bank.md)"


@dataclass(frozen=True)
class Truth:
    """What was measured, if anything."""

    found: Measurement | None
    notes: tuple[str, ...] = ()
    """What a reader must know: which truth it is, or why there is none."""


def large_truth(
    problem: Problem,
    rungs: Mapping[str, Curvature],
    settings: Settings,
    folder: Path | None = None,
    progress: bool = True,
    bank: SuppliedBank | None = None,
) -> Truth:
    """Measure the settings' target, if it can be afforded.

    Args:
        problem: trained.
        rungs: those of ``planned_chain``: the GGN makes the steps of proximal responses, EK-FAC
            their coordinates.
        settings: target, sizes, ``retrain_hours``.
        folder: where banks and responses are kept; what is there costs nothing.
        progress: show progress bars.
        bank: the truth, in place of retraining.

    Raises:
        DecompositionError: as ``retrain_bank``, ``measure_proximal_responses``, ``measure``.
    """
    if not settings.attribution:
        return Truth(None)
    if bank is not None:
        return _said(measure_supplied(problem, bank, measured_function(settings.target)))
    if settings.target == "pbrf":
        return _responses(problem, rungs, settings, folder, progress)
    plan = bank_plan(problem, settings)
    try:
        cost = retraining_cost(problem, plan, None if folder is None else folder / "bank")
    except UnsupportedModelError as error:
        return Truth(None, (f"no LDS: the model cannot be retrained here ({error}); {OTHER}",))
    if cost.hours > settings.retrain_hours:
        what = f"retraining {cost.models:,} models ({cost.steps:,} steps each)"
        return _too_dear(what, cost.seconds, settings, _fewer(settings), OTHER)
    return _said(retrained(problem, settings, folder, progress))


def _responses(
    problem: Problem,
    rungs: Mapping[str, Curvature],
    settings: Settings,
    folder: Path | None,
    progress: bool,
) -> Truth:
    metric, ggn = rungs["ekfac"], rungs["ggn"]
    store = None if folder is None else folder / "pbrf"
    count, multiple = settings.leave_one_out_examples, settings.pbrf_damping
    damping = proximal_damping(problem, metric, multiple)
    removed = removed_examples(settings.seed, count, problem.examples)
    left = responses_left(problem, damping, removed, folder=store)
    seconds = proximal_seconds(problem, metric, damping, left, ggn)
    if seconds > 3600.0 * settings.retrain_hours:
        larger = "a larger --pbrf-damping, which takes fewer steps"
        what = f"{left:,} proximal Bregman responses"
        return _too_dear(what, seconds, settings, _fewer(settings), larger)
    return _said(
        measure_proximal_responses(
            problem, metric, multiple, settings.plan, count, store, progress, ggn
        )
    )


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
