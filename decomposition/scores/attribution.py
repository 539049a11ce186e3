"""Group /attribution and what hangs on it: LDS, noise ceiling, agreement, policies, levels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr
from jaxtyping import Int

from decomposition.base_model import BaseModel
from decomposition.scores.agreement_group import add_agreement, agreement_group
from decomposition.scores.bootstrap import Resamples, resample
from decomposition.scores.ceiling import Ceiling, noise_ceiling
from decomposition.scores.crossfit import mask_folds
from decomposition.scores.levels import Levels, joint_levels
from decomposition.scores.policies import policies_group
from decomposition.scores.protocols import COMMON, PROTOCOLS, TUNED, Grid, grids, rank_bound
from decomposition.scores.scorer import Scorer
from decomposition.scores.selection import Selection, select
from decomposition.settings import Settings
from decomposition.shares.localisation_groups import where_groups
from decomposition.shares.resolution import WidthCurve, repeats_curve

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
    protocol_grids = grids_of(base, settings, reference)
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
        best, edge = selection.dampings[TUNED], selection.edges[TUNED]
        equal["best_damping"] = ("rung", [best.get(name, np.nan) for name in base.scorers])
        equal["edge"] = ("rung", [int(edge.get(name, False)) for name in base.scorers])
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


def without_truth(
    base: BaseModel, settings: Settings, reference: str, progress: bool
) -> xr.Dataset:
    """``/attribution`` of a base model whose truth cannot be afforded: agreement alone."""
    dampings = grids_of(base, settings, reference)["equal"].settings
    for rung in base.scorers.values():
        rung.prepare(None, dampings.tolist(), dampings.tolist(), settings.negative, progress)
    return agreement_group(base.scorers, dampings, reference, settings.negative)


def grids_of(base: BaseModel, settings: Settings, reference: str) -> dict[str, Grid]:
    """The damping grid of every protocol for this base model."""
    return grids(base.scorers, settings.multipliers(), reference, rank_bound(base.problem))


def _single(weights: Resamples) -> Resamples:
    """The same resamples of masks and queries, for one base model."""
    return Resamples(weights.masks, weights.queries, np.ones((len(weights.masks), 1)))


def combine(scored: Sequence[Scored], design: Design) -> Levels:
    """Joint levels of all base models: the nodes and protocols that all of them have."""
    selections = [one.selection for one in scored]
    protocols = [p for p in PROTOCOLS if all(p in one.chosen for one in selections)]
    nodes = [n for n in selections[0].nodes if all(n in one.nodes for one in selections)]
    chosen = []
    for one in selections:
        rows = [one.nodes.index(node) for node in nodes]
        chosen.append(np.stack([one.chosen[p][rows] for p in protocols]))
    truths = [one.truth for one in scored]
    return joint_levels(chosen, truths, design.folds, design.weights, protocols, nodes)


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
    if reference not in one.selection.nodes:
        return None
    prediction = one.selection.chosen[TUNED][one.selection.nodes.index(reference)]
    return repeats_curve(prediction, base.measured.truth, level=level)


def add_ceiling(data: xr.Dataset, ceiling: Ceiling | None, level: float) -> None:
    """Ceiling and reliability, where there are any."""
    if ceiling is not None:
        data["ceiling"] = ("ci_bound", ceiling.ceiling.interval(level))
        data["reliability"] = ("ci_bound", ceiling.reliability.interval(level))
        data.attrs |= {"ceiling_source": ceiling.source, "ceiling_masks": ceiling.masks}


def unsolved(scorers: Mapping[str, Scorer], dampings: np.ndarray) -> list[str]:
    """What is missing of rungs that were not solved at every damping, and why."""
    found = []
    for name, rung in scorers.items():
        said = [rung.unsolved[d] for d in dampings.tolist() if d in rung.unsolved]
        if said:
            found.append(
                f"no scores of {name} at {len(said)} of {len(dampings)} dampings, nor an LDS: "
                + said[-1]
            )
    return found


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
        if selection.edges.get(protocol, {}).get(reference)
    ]
    found += [
        f"protocol {protocol} has no levels: at none of its settings every rung was solved"
        for protocol in COMMON
        if protocol not in selection.chosen
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
