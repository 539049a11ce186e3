"""Group /attribution of a run without dense matrices: agreement of the rungs, LDS and its levels.

Two protocols: ``equal``, every rung at the damping that is best for the first rung of the chain
that was solved, and ``tuned``, every rung at the best damping of the grid that it was solved at.
Both are chosen on masks that do not score them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr
from jaxtyping import Float

from decomposition.attribution.agreement import agreement
from decomposition.attribution.bootstrap import Resamples, bootstrap, resample
from decomposition.attribution.ceiling import Ceiling, noise_ceiling
from decomposition.attribution.lds import predicted_effects
from decomposition.attribution.linearised import linearise
from decomposition.results.schema import BASELINES, CI_BOUNDS
from decomposition.settings import Settings
from decomposition.shares.crossfit import Choice, at_choice, choose, fold_lds, mask_folds
from decomposition.shares.levels import Levels, joint_levels
from decomposition.stages.large_scores import GridScores
from decomposition.stages.protocols import TUNED
from decomposition.stages.scores import add_ceiling
from decomposition.stages.selection import Measured

TOP = 10
METRICS = ("spearman", f"top{TOP}_jaccard")
PROTOCOLS = ("equal", TUNED)


@dataclass(frozen=True)
class LargeLevels:
    """LDS of every rung that was solved, and where it is read."""

    levels: Levels
    dampings: dict[str, dict[str, float]]
    """Protocol → node → λ, the geometric mean over the folds."""
    ceiling: Ceiling | None


def attribution_group(found: GridScores) -> xr.Dataset:
    """Agreement of all scores with those of the first rung that was solved, damping by damping.

    Its name is the attribute ``agreement_with``.
    """
    rungs = list(found.tau)
    solved = {name: found.solved(name) for name in rungs}
    reference = next(name for name in rungs if solved[name].any())
    values = np.full((len(METRICS), len(rungs), len(found.dampings)), np.nan)
    for i, name in enumerate(rungs):
        for j in np.flatnonzero(solved[name] & solved[reference]):
            tau, truth = found.tau[name][j], found.tau[reference][j]
            one = agreement(tau, truth, min(TOP, tau.shape[1]))
            values[:, i, j] = one.spearman, one.top_jaccard
    data = xr.Dataset(
        {"agreement": (("agreement_metric", "rung", "damping"), values)},
        {"agreement_metric": list(METRICS), "rung": rungs, "damping": found.dampings},
    )
    data.attrs["agreement_with"] = reference
    return data


def add_lds(
    data: xr.Dataset, found: GridScores, measured: Measured, settings: Settings
) -> LargeLevels:
    """LDS over the grid, put into ``data``, and the levels at the chosen dampings."""
    nodes = [name for name in found.tau if found.solved(name).any()]
    solved = np.stack([found.solved(name) for name in nodes])  # (nodes, D)
    truth = measured.mean
    masks, queries = truth.shape
    weights = resample(masks, queries, 1, settings.resamples, seed=(settings.seed, 1))
    folds = mask_folds(masks, seed=(settings.seed, 2))
    effects = np.stack([_effects(measured.masks, found.tau[name]) for name in nodes])
    levels = np.where(solved, fold_lds(effects, truth, folds), np.nan)
    common = np.where(solved.all(0), levels, np.nan)
    choices = {"equal": choose(common, 0, nodes[0]), TUNED: choose(levels)}
    chosen = np.stack([at_choice(effects, choices[name], folds) for name in PROTOCOLS])
    _add_curves(data, nodes, effects, solved, truth, weights, settings)
    data["best_damping"] = ("rung", np.full(data.sizes["rung"], np.nan))
    data["edge"] = ("rung", np.zeros(data.sizes["rung"], np.int64))
    dampings = {name: _dampings(choices[name], nodes, found.dampings) for name in PROTOCOLS}
    for i, node in enumerate(nodes):
        data["best_damping"].loc[{"rung": node}] = dampings[TUNED][node]
        ends = np.flatnonzero(solved[i])[[0, -1]]
        on_edge = node not in BASELINES and np.isin(choices[TUNED].index[:, i], ends).any()
        data["edge"].loc[{"rung": node}] = int(on_edge)
    ceiling = noise_ceiling(measured.truth, measured.second, weights, seed=(settings.seed, 3))
    add_ceiling(data, ceiling, settings.level)
    joint = joint_levels([chosen], [truth], folds, weights, PROTOCOLS, nodes)
    return LargeLevels(joint, dampings, ceiling)


def _effects(masks: np.ndarray, tau: Float[np.ndarray, "D Q N"]) -> Float[np.ndarray, "D M Q"]:
    """Zero where nothing was solved: what says so is ``solved``."""
    return np.stack([predicted_effects(masks, np.nan_to_num(one)) for one in tau]).astype("f4")


def _dampings(choice: Choice, nodes: Sequence[str], grid: np.ndarray) -> dict[str, float]:
    means = np.exp(np.log(grid[choice.index]).mean(0))
    return dict(zip(nodes, means.tolist(), strict=True))


def _add_curves(
    data: xr.Dataset,
    nodes: Sequence[str],
    effects: Float[np.ndarray, "nodes D M Q"],
    solved: np.ndarray,
    truth: Float[np.ndarray, "M Q"],
    weights: Resamples,
    settings: Settings,
) -> None:
    """``lds_mean`` with intervals and ``lds`` of every query, NaN where nothing was solved."""
    shape = (data.sizes["rung"], data.sizes["damping"])
    mean = np.full((*shape, len(CI_BOUNDS)), np.nan)
    each = np.full((*shape, truth.shape[1]), np.nan)
    rows = [list(data["rung"].values).index(node) for node in nodes]
    for row, node, effect, where in zip(rows, nodes, effects, solved, strict=True):
        shown = effect[:1] if node in BASELINES else effect[where]  # λ changes no rank of those
        linear = linearise(shown, truth)
        mean[row, where] = bootstrap(linear, weights).interval(settings.level)
        each[row, where] = linear.per_query
    data["lds_mean"] = (("rung", "damping", "ci_bound"), mean)
    data["lds"] = (("rung", "damping", "query"), each)
    data.coords["ci_bound"], data.coords["query"] = list(CI_BOUNDS), np.arange(truth.shape[1])
