"""Group /attribution: LDS of every rung, damping and query, its ceiling, and agreement."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import xarray as xr

from decomposition.attribution.bootstrap import resample
from decomposition.attribution.ceiling import Ceiling, noise_ceiling
from decomposition.attribution.scorer import Scorer
from decomposition.settings import Settings
from decomposition.shares.crossfit import mask_folds
from decomposition.shares.levels import Levels, joint_levels
from decomposition.stages.agreement import add_agreement
from decomposition.stages.protocols import COMMON, PROTOCOLS, TUNED, grids
from decomposition.stages.selection import Measured, Selection, select

LOW_CEILING = 0.5


@dataclass(frozen=True)
class Scores:
    """Everything that scoring yields."""

    levels: Levels
    dampings: dict[str, dict[str, float]]
    """Protocol → node → λ."""
    ceiling: Ceiling | None
    datasets: dict[str, xr.Dataset]
    """Group path → dataset."""
    notes: list[str]


def score(
    scorers: Mapping[str, Scorer],
    measured: Measured,
    settings: Settings,
    reference: str,
    progress: bool = False,
) -> Scores:
    """Score every rung under every protocol."""
    truth = measured.mean
    weights = resample(*truth.shape, count=settings.resamples, seed=(settings.seed, 1))
    folds = mask_folds(len(truth), seed=(settings.seed, 2))
    ceiling = noise_ceiling(measured.truth, measured.second, weights, seed=(settings.seed, 3))
    protocol_grids = grids(scorers, settings.multipliers(), reference)
    selection, datasets = select(
        scorers, measured, protocol_grids, folds, weights, settings, reference, progress
    )
    chosen = np.stack([selection.chosen[protocol] for protocol in PROTOCOLS])
    levels = joint_levels([chosen], [truth], folds, weights, PROTOCOLS, selection.nodes)
    equal = datasets["/attribution"]
    if ceiling is not None:
        equal["ceiling"] = ("ci_bound", ceiling.ceiling.interval(settings.level))
        equal["reliability"] = ("ci_bound", ceiling.reliability.interval(settings.level))
        equal.attrs |= {"ceiling_source": ceiling.source, "ceiling_masks": ceiling.masks}
    equal["best_damping"] = ("rung", np.array(list(selection.dampings[TUNED].values())))
    equal["edge"] = ("rung", np.array(list(selection.edges[TUNED].values()), np.int64))
    add_agreement(equal, scorers, reference, settings.negative)
    notes = _notes(selection, ceiling, reference)
    return Scores(levels, selection.dampings, ceiling, datasets, notes)


def _notes(selection: Selection, ceiling: Ceiling | None, reference: str) -> list[str]:
    notes = [
        f"the best damping of {node} lies on an edge of the grid: widen --damping-low or "
        "--damping-high"
        for node, edge in selection.edges[TUNED].items()
        if edge
    ]
    notes += [
        f"protocol {protocol}: the optimum of {reference} lies on an edge of the grid"
        for protocol in COMMON
        if selection.edges[protocol][reference]
    ]
    if ceiling is None:
        notes.append(
            "no noise ceiling: it needs two repeats, or subsets retrained in a second order"
        )
    elif float(ceiling.ceiling.estimate) < LOW_CEILING:
        notes.append(
            f"the noise ceiling is low ({float(ceiling.ceiling.estimate):.2f}): most of what was "
            "measured is training randomness; use more repeats"
        )
    return notes
