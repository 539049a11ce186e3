"""Group /attribution and what hangs on it: LDS, noise ceiling, agreement, policies, levels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr
from jaxtyping import Int

from decomposition.attribution.bootstrap import Resamples, resample
from decomposition.attribution.ceiling import Ceiling, noise_ceiling
from decomposition.settings import Settings
from decomposition.shares.crossfit import mask_folds
from decomposition.shares.levels import Levels, joint_levels
from decomposition.shares.resolution import WidthCurve, repeats_curve
from decomposition.stages.agreement import add_agreement
from decomposition.stages.base_model import BaseModel
from decomposition.stages.policies import policies_group
from decomposition.stages.protocols import COMMON, PROTOCOLS, TUNED, Grid, grids
from decomposition.stages.selection import Selection, select
from decomposition.stages.where import where_groups

LOW_CEILING = 0.5


@dataclass(frozen=True)
class Design:
    """What all base models of a run share: folds, resamples, and the anchor of the grids."""

    folds: Int[np.ndarray, " M"]
    weights: Resamples
    settings: Settings
    reference: str

    @staticmethod
    def of(base: BaseModel, settings: Settings, reference: str) -> Design:
        """The design for banks like this one."""
        assert base.measured is not None
        masks, queries = base.measured.mean.shape
        weights = resample(
            masks, queries, settings.base_seeds, settings.resamples, seed=(settings.seed, 1)
        )
        return Design(mask_folds(masks, seed=(settings.seed, 2)), weights, settings, reference)


@dataclass(frozen=True)
class Scored:
    """One base model's part in the levels, and its tables."""

    selection: Selection
    truth: np.ndarray
    """(M, Q)."""
    datasets: dict[str, xr.Dataset]
    """Group path → dataset."""


def score(base: BaseModel, design: Design, detailed: bool, progress: bool) -> Scored:
    """Choose dampings and score; ``detailed`` adds curves, agreement, policies, places."""
    assert base.measured is not None
    settings, reference = design.settings, design.reference
    protocol_grids: dict[str, Grid] = grids(base.scorers, settings.multipliers(), reference)
    selection, datasets = select(
        base.scorers,
        base.measured,
        protocol_grids,
        design.folds,
        _single(design.weights),
        settings,
        reference,
        progress,
        with_curves=detailed,
    )
    if detailed:
        equal = datasets["/attribution"]
        equal["best_damping"] = ("rung", np.array(list(selection.dampings[TUNED].values())))
        equal["edge"] = ("rung", np.array(list(selection.edges[TUNED].values()), np.int64))
        add_agreement(equal, base.scorers, reference, settings.negative)
        policies = policies_group(
            base.scorers,
            base.measured,
            protocol_grids["equal"].settings,
            design.folds,
            _single(design.weights),
            settings.level,
        )
        if policies is not None:
            datasets["/policies"] = policies
        datasets |= where_groups(
            base.scorers,
            base.measured,
            selection,
            {block.name: block.slice for block in base.problem.blocks},
            design.folds,
            _single(design.weights),
            settings,
        )
    return Scored(selection, base.measured.mean, datasets)


def _single(weights: Resamples) -> Resamples:
    """The same resamples of masks and queries, for one base model."""
    return Resamples(weights.masks, weights.queries, np.ones((len(weights.masks), 1)))


def combine(scored: Sequence[Scored], design: Design) -> Levels:
    """Joint levels of all base models."""
    chosen = [np.stack([one.selection.chosen[p] for p in PROTOCOLS]) for one in scored]
    truths = [one.truth for one in scored]
    nodes = scored[0].selection.nodes
    return joint_levels(chosen, truths, design.folds, design.weights, PROTOCOLS, nodes)


def ceiling_of(base: BaseModel, design: Design) -> Ceiling | None:
    """Noise ceiling of a base model's bank."""
    assert base.measured is not None
    return noise_ceiling(
        base.measured.truth,
        base.measured.second,
        _single(design.weights),
        seed=(design.settings.seed, 3),
    )


def repeats_curve_of(
    base: BaseModel, one: Scored, reference: str, level: float
) -> WidthCurve | None:
    """Relative interval width of the reference rung's LDS against repeats; None with one repeat."""
    assert base.measured is not None
    if base.measured.truth.shape[1] < 2:
        return None
    prediction = one.selection.chosen[TUNED][one.selection.nodes.index(reference)]
    return repeats_curve(prediction, base.measured.truth, level=level)


def add_ceiling(data: xr.Dataset, ceiling: Ceiling | None, level: float) -> None:
    """Ceiling and reliability, where there are any."""
    if ceiling is not None:
        data["ceiling"] = ("ci_bound", ceiling.ceiling.interval(level))
        data["reliability"] = ("ci_bound", ceiling.reliability.interval(level))
        data.attrs |= {"ceiling_source": ceiling.source, "ceiling_masks": ceiling.masks}


def notes(selection: Selection, ceiling: Ceiling | None, reference: str) -> list[str]:
    """What a reader must know before believing the scores."""
    found = [
        f"the best damping of {node} lies on an edge of the grid: widen --damping-low or "
        "--damping-high"
        for node, edge in selection.edges[TUNED].items()
        if edge
    ]
    found += [
        f"protocol {protocol}: the optimum of {reference} lies on an edge of the grid"
        for protocol in COMMON
        if selection.edges[protocol][reference]
    ]
    constant = (np.ptp(selection.chosen[TUNED], axis=1) == 0).all(1)
    found += [
        f"{node} predicts the same for all masks, on every query: it has no LDS"
        for node in np.array(selection.nodes)[constant]
    ]
    if ceiling is None:
        found.append(
            "no noise ceiling: it needs two repeats, or subsets retrained in a second order"
        )
    elif float(ceiling.ceiling.estimate) < LOW_CEILING:
        found.append(
            f"the noise ceiling is low ({float(ceiling.ceiling.estimate):.2f}): most of what was "
            "measured is training randomness; use more repeats"
        )
    return found
