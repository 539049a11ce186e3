"""A run whose matrices do not fit: planned rungs, estimated errors, agreement, LDS with a bank."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import xarray as xr

from decomposition.chain.build import Approximation, build_chain
from decomposition.device import full_precision, resolve_device
from decomposition.planner import Plan
from decomposition.problem import Problem
from decomposition.retraining.bank import Bank
from decomposition.retraining.supplied import SuppliedBank
from decomposition.settings import Settings
from decomposition.stages.base_model import Clock, check_truth
from decomposition.stages.large import forms_group, frobenius_errors, shares_groups
from decomposition.stages.large_levels import add_lds, attribution_group
from decomposition.stages.large_scores import damping_grid, grid_scores
from decomposition.stages.large_spectra import large_spectra, spectra_groups
from decomposition.stages.large_truth import large_truth
from decomposition.stages.selection import Measured
from decomposition.stages.vanishing import check_curvature
from decomposition.targets.names import check_problem


@dataclass(frozen=True)
class LargeRun:
    """What came of it."""

    problem: Problem
    """Trained."""
    groups: dict[str, xr.Dataset]
    bank: Bank | None
    notes: tuple[str, ...]


@full_precision()
def large_run(
    problem: Problem,
    plan: Plan,
    folder: Path | None,
    extra: Mapping[str, Approximation] | None,
    settings: Settings,
    clock: Clock,
    progress: bool,
    bank: SuppliedBank | None = None,
) -> LargeRun:
    """Train, build, estimate, score over the damping grid.

    Raises:
        DecompositionError: as ``prepare``.
    """
    check_problem(problem, settings.target)
    check_truth(problem, settings, bank)
    problem = problem.to(resolve_device(settings.device))
    with clock.stage("train"):
        trained = problem.trained(progress=progress)
    with clock.stage("build"):
        rungs = build_chain(trained, extra, plan)
        check_curvature(problem, trained, rungs)
    with clock.stage("spectra"):
        errors = frobenius_errors(rungs, settings.seed)
        spectra = large_spectra(rungs, trained.examples, settings.seed, progress=progress)
    with clock.stage("respond" if settings.target == "pbrf" else "retrain"):
        truth = large_truth(trained, rungs, settings, folder, progress, bank)
    found = truth.found
    with clock.stage("scores"):
        dampings = damping_grid(trained, rungs, settings)
        scores = grid_scores(trained, rungs, dampings, settings, progress)
        attribution = attribution_group(scores)
        levels = None
        if found is not None:
            measured = Measured(found.weights, found.truth, found.second)
            levels = add_lds(attribution, scores, measured, settings)
            attribution.attrs |= found.attributes
    groups = {
        "/attribution": attribution,
        **shares_groups(errors, levels, settings),
        "/large": forms_group(rungs, plan, errors),
        **spectra_groups(spectra, errors, trained.examples * trained.outputs),
    }
    notes = [*trained.notes, *(note for rung in rungs.values() for note in rung.notes)]
    notes += [*scores.notes, *_explained(attribution.attrs["agreement_with"]), *truth.notes]
    return LargeRun(trained, groups, None if found is None else found.bank, tuple(notes))


def _explained(reference: str) -> list[str]:
    """What a reader of such a result must know."""
    return [
        "the matrices of this model do not fit into the memory given: errors that involve H are "
        "estimated with random probes, and their intervals are over those",
        f"agreement is with {reference}, the best rung that could be solved, not with retrained "
        "models",
    ]
