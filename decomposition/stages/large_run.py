"""A run whose matrices do not fit: planned rungs, estimated errors, agreement, LDS with a bank."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import xarray as xr

from decomposition.chain.build import Approximation, build_chain
from decomposition.damping import as_policy
from decomposition.device import full_precision, resolve_device
from decomposition.planner import Plan
from decomposition.problem import Problem
from decomposition.retraining.bank import Bank
from decomposition.retraining.supplied import SuppliedBank
from decomposition.settings import Settings
from decomposition.stages.base_model import Clock, retrained
from decomposition.stages.large import (
    MULTIPLIERS,
    attribution_group,
    damping_scale,
    forms_group,
    frobenius_errors,
    scored,
    shares_group,
)
from decomposition.stages.selection import Measured
from decomposition.targets.measurement import Measurement, measure_supplied
from decomposition.targets.names import TargetError

RETRAINED = 50_000
"""Parameters up to which models are retrained: a bank of larger ones has to be given."""


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
    """Train, build, estimate, score at a few common dampings.

    Raises:
        TargetError: a target other than the loss, whose responses need dense rungs.
        DecompositionError: as ``prepare``.
    """
    if settings.target != "loss":
        raise TargetError(
            f"target {settings.target} needs dense rungs, and this model is too large for the "
            "memory given: raise --memory, or use target loss"
        )
    problem = problem.to(resolve_device(settings.device))
    with clock.stage("train"):
        trained = problem.trained(progress=progress)
    with clock.stage("build"):
        rungs = build_chain(trained, extra, plan)
    with clock.stage("spectra"):
        errors = frobenius_errors(rungs, settings.seed)
    found: Measurement | None = None
    if settings.attribution and bank is not None:
        found = measure_supplied(trained, bank, "loss")
    elif settings.attribution and trained.parameters <= RETRAINED:
        with clock.stage("retrain"):
            found = retrained(trained, settings, folder, progress)
    with clock.stage("scores"):
        scale, lowest = damping_scale(trained, rungs, errors, settings.seed)
        taus = scored(trained, rungs, [m * scale for m in MULTIPLIERS], progress)
        measured = None if found is None else Measured(found.weights, found.truth, found.second)
        attribution, reference, levels = attribution_group(taus, measured, settings)
    groups = {
        "/attribution": attribution,
        "/shares": shares_group(errors, levels, taus.dampings, settings),
        "/large": forms_group(rungs, plan, errors),
    }
    notes = [*trained.notes, *(note for rung in rungs.values() for note in rung.notes)]
    notes += [*taus.notes, *_explained(reference, found, settings)]
    notes.append(
        f"attribution at two common dampings only, {scale:.3g} and {MULTIPLIERS[1]:g} times that: "
        "the mean non-zero eigenvalue of the GGN or, if that is more, twice the lowest eigenvalue "
        f"found of H ({lowest:.3g}), so that H + λI is positive definite"
    )
    return LargeRun(trained, groups, None if found is None else found.bank, tuple(notes))


def _explained(reference: str, found: Measurement | None, settings: Settings) -> list[str]:
    """What a reader of such a result must know."""
    asked = as_policy(settings.negative).name
    said = [
        "the matrices of this model do not fit into the memory given: errors that involve H are "
        "estimated with random probes, and their intervals are over those",
        f"agreement is with {reference}, the best rung that could be solved, not with retrained "
        "models",
    ]
    if reference == "hessian" and asked != "signed":
        said.append(f"the Hessian is inverted as it is (signed), not by policy {asked}")
    if found is None:
        return [
            *said,
            f"no LDS: models of more than {RETRAINED:,} parameters are not retrained here; give "
            "the answers of models retrained elsewhere with --bank (docs/supplied_bank.md)",
        ]
    return [*said, *found.notes]
