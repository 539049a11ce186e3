"""Group /attribution: LDS of every rung, damping and query, its ceiling, and agreement.

The chosen dampings and the resampled levels that the shares are made of come along.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float, Int
from tqdm import tqdm

from decomposition.attribution.agreement import agreement
from decomposition.attribution.bootstrap import (
    Draws,
    Resamples,
    VarianceParts,
    bootstrap,
    resample,
    variance_parts,
)
from decomposition.attribution.ceiling import Ceiling, noise_ceiling
from decomposition.attribution.lds import lds, mean_truth
from decomposition.attribution.linearised import linearise
from decomposition.attribution.scorer import Scorer, effects_over
from decomposition.results.schema import CI_BOUNDS
from decomposition.settings import Settings
from decomposition.shares.crossfit import Choice, at_choice, choose, fold_lds, mask_folds, refine
from decomposition.stages.protocols import COMMON, Grid, grids

AGREEMENT_TOP = 10


@dataclass(frozen=True)
class Measured:
    """The bank's answer: what really happened to every query."""

    masks: Bool[np.ndarray, "M N"]
    truth: Float[np.ndarray, "M R Q"]
    second: Float[np.ndarray, "M2 Q"] | None


@dataclass(frozen=True)
class Level:
    """LDS of every node under one protocol, cross-fitted, with its joint resamples."""

    draws: Draws
    """(nodes,) levels."""
    parts: VarianceParts
    """(nodes, nodes) variance by source."""
    per_query: Float[np.ndarray, "nodes Q"]
    """LDS of every query at the chosen dampings."""
    dampings: dict[str, float]
    """λ at which each node's level is read (geometric mean over the folds)."""
    edge: dict[str, bool]
    """Whether a fold chose the first or last damping of the grid."""


@dataclass(frozen=True)
class Scores:
    """Everything that scoring yields."""

    nodes: tuple[str, ...]
    levels: dict[str, Level]
    """By protocol."""
    ceiling: Ceiling | None
    datasets: dict[str, xr.Dataset]
    """Group path → dataset."""
    notes: list[str]
    masks: int
    """M."""


def score(
    scorers: Mapping[str, Scorer],
    measured: Measured,
    settings: Settings,
    reference: str,
    progress: bool = False,
) -> Scores:
    """Score every rung under every protocol."""
    nodes = tuple(scorers)
    masks, truth = measured.masks, mean_truth(measured.truth)
    weights = resample(*truth.shape, count=settings.resamples, seed=(settings.seed, 1))
    folds = mask_folds(len(truth), seed=(settings.seed, 2))
    ceiling = noise_ceiling(measured.truth, measured.second, weights, seed=(settings.seed, 3))
    levels: dict[str, Level] = {}
    datasets: dict[str, xr.Dataset] = {}
    with tqdm(total=4, desc="scoring", unit="protocol", disable=not progress) as bar:
        for protocol, grid in grids(scorers, settings.multipliers(), reference).items():
            effects = np.stack(
                [effects_over(scorers[n], masks, grid.dampings[n], settings.negative) for n in nodes]
            )
            choice = choose(fold_lds(effects, truth, folds), nodes.index(reference))
            levels[protocol] = _level(effects, truth, folds, choice, grid, nodes, weights)
            path = "/attribution" if protocol == "equal" else f"/attribution/{protocol}"
            datasets[path] = _curves(effects, truth, grid, nodes, weights, settings.level)
            bar.update()
            if protocol == "equal":
                levels["tuned"] = _tuned(
                    scorers, effects, measured, truth, folds, grid, weights, settings
                )
                bar.update()
            del effects
    equal = datasets["/attribution"]
    _add_ceiling(equal, ceiling, settings.level)
    tuned = levels["tuned"]
    equal["best_damping"] = ("rung", np.array([tuned.dampings[n] for n in nodes]))
    equal["edge"] = ("rung", np.array([int(tuned.edge[n]) for n in nodes]))
    _add_agreement(equal, scorers, reference, settings)
    return Scores(nodes, levels, ceiling, datasets, _notes(levels, ceiling, reference), len(truth))


def _level(
    effects: np.ndarray,
    truth: np.ndarray,
    folds: Int[np.ndarray, " M"],
    choice: Choice,
    grid: Grid,
    nodes: tuple[str, ...],
    weights: Resamples,
) -> Level:
    linear = linearise(at_choice(effects, choice, folds), truth, folds)
    dampings = {
        node: float(np.exp(np.log(grid.dampings[node][choice.index[:, i]]).mean()))
        for i, node in enumerate(nodes)
    }
    edge = {node: bool(choice.edge[i]) for i, node in enumerate(nodes)}
    return Level(
        bootstrap(linear, weights), variance_parts(linear), linear.per_query, dampings, edge
    )


def _tuned(
    scorers: Mapping[str, Scorer],
    effects: np.ndarray,
    measured: Measured,
    truth: np.ndarray,
    folds: np.ndarray,
    grid: Grid,
    weights: Resamples,
    settings: Settings,
) -> Level:
    """Each rung at its own optimum: the grid of ``equal`` with a finer one around the optimum."""
    nodes = tuple(scorers)
    coarse = lds(effects, truth).mean
    chosen, dampings, edges = [], {}, {}
    for i, node in enumerate(nodes):
        extra: dict[float, np.ndarray] = {}

        def evaluate(settings_: np.ndarray, node: str = node, extra: dict = extra) -> np.ndarray:
            new = effects_over(scorers[node], measured.masks, settings_, settings.negative)
            extra.update(zip(settings_.tolist(), new, strict=True))
            return lds(new, truth).mean

        flat = np.isnan(coarse[i]).all() or np.ptp(coarse[i]) < 1e-9  # a baseline without λ
        if not flat:
            refine(grid.settings, coarse[i], evaluate, rounds=1)
        own = np.concatenate([grid.settings, np.array(list(extra))])
        stack = np.concatenate([effects[i], *(e[None] for e in extra.values())])
        order = np.argsort(own)
        own, stack = own[order], stack[order]
        choice = choose(fold_lds(stack[None], truth, folds))
        chosen.append(at_choice(stack[None], choice, folds)[0])
        dampings[node] = float(np.exp(np.log(own[choice.index[:, 0]]).mean()))
        edges[node] = bool(choice.edge[0]) and not flat
    linear = linearise(np.stack(chosen), truth, folds)
    return Level(
        bootstrap(linear, weights), variance_parts(linear), linear.per_query, dampings, edges
    )


def _curves(
    effects: np.ndarray,
    truth: np.ndarray,
    grid: Grid,
    nodes: tuple[str, ...],
    weights: Resamples,
    level: float,
) -> xr.Dataset:
    """LDS against the protocol's setting, rung by rung to bound the memory."""
    per_query = np.empty((*effects.shape[:2], effects.shape[3]))
    interval = np.empty((*effects.shape[:2], 3))
    for i in range(len(nodes)):
        linear = linearise(effects[i], truth)
        per_query[i] = linear.per_query
        interval[i] = bootstrap(linear, weights).interval(level)
    axis = "damping" if grid.protocol == "equal" else "setting"
    data = xr.Dataset(
        {
            "lds": (("rung", axis, "query"), per_query),
            "lds_mean": (("rung", axis, "ci_bound"), interval),
        },
        {
            "rung": list(nodes),
            axis: grid.settings,
            "query": np.arange(per_query.shape[2]),
            "ci_bound": list(CI_BOUNDS),
        },
    )
    if grid.protocol != "equal":
        values = np.stack([grid.dampings[node] for node in nodes])
        data["damping_value"] = (("rung", axis), values)
    return data


def _add_ceiling(data: xr.Dataset, ceiling: Ceiling | None, level: float) -> None:
    if ceiling is not None:
        data["ceiling"] = ("ci_bound", ceiling.ceiling.interval(level))
        data["reliability"] = ("ci_bound", ceiling.reliability.interval(level))
        data.attrs["ceiling_source"] = ceiling.source
        data.attrs["ceiling_masks"] = ceiling.masks


def _add_agreement(
    data: xr.Dataset, scorers: Mapping[str, Scorer], reference: str, settings: Settings
) -> None:
    """Spearman correlation over training examples, and top-10 Jaccard, with the reference rung."""
    nodes, dampings = list(scorers), data["damping"].values
    table = np.full((2, len(nodes), len(dampings)), np.nan)
    for j, damping in enumerate(dampings):
        exact = scorers[reference].scores(float(damping), settings.negative)
        for i, node in enumerate(nodes):
            mine = exact if node == reference else scorers[node].scores(
                float(damping), settings.negative
            )
            found = agreement(mine, exact, min(AGREEMENT_TOP, mine.shape[1]))
            table[:, i, j] = found.spearman, found.top_jaccard
    data.coords["agreement_metric"] = ["spearman", "top10_jaccard"]
    data["agreement"] = (("agreement_metric", "rung", "damping"), table)


def _notes(levels: Mapping[str, Level], ceiling: Ceiling | None, reference: str) -> list[str]:
    notes = [
        f"the best damping of {node} lies on an edge of the grid: widen --damping-low or "
        "--damping-high"
        for node, edge in levels["tuned"].edge.items()
        if edge
    ]
    notes += [
        f"protocol {protocol}: the optimum of {reference} lies on an edge of the grid"
        for protocol in COMMON
        if levels[protocol].edge[reference]
    ]
    if ceiling is None:
        notes.append(
            "no noise ceiling: it needs at least two repeats, or subsets retrained in a second order"
        )
    elif float(ceiling.ceiling.estimate) < 0.5:
        notes.append(
            f"the noise ceiling is low ({float(ceiling.ceiling.estimate):.2f}): most of what was "
            "measured is training randomness; use more repeats"
        )
    return notes
