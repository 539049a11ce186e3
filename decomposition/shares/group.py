"""Group /shares: what each step costs, under every damping protocol and in every order."""

from __future__ import annotations

import json
from collections.abc import Iterator

import numpy as np
import xarray as xr

from decomposition.chain import CHAIN, LATTICE, STEPS
from decomposition.names import BASELINES, CI_BOUNDS, CROSS_TERM
from decomposition.scores.bootstrap import Draws
from decomposition.scores.ceiling import corrected
from decomposition.scores.levels import Levels, read_draws
from decomposition.scores.protocols import PROTOCOLS
from decomposition.settings import Settings
from decomposition.shares.errors import ERROR_METRICS, error_shares, errors_at_damping
from decomposition.shares.lattice import CURVATURE, order_groups
from decomposition.shares.mismatch import mismatch_group
from decomposition.shares.prediction import prediction_group
from decomposition.shares.resolution import resolution_group
from decomposition.shares.steps import StepShares, step_shares
from decomposition.shares.verdict import verdict

METRICS = (*ERROR_METRICS, "lds")


def share_groups(tree: xr.DataTree, settings: Settings) -> dict[str, xr.Dataset]:
    """Shares and verdicts of one cell, from what was measured about it: group path → dataset.

    Args:
        tree: of ``pipeline.compute_cell``, with ``/spectral_error`` and, if there was a truth,
            ``/levels`` of every rung of the chain.
        settings: of the cell: coverage and resamples of the intervals.
    """
    errors = tree["spectral_error"].to_dataset()
    residuals = tree["residuals"].to_dataset() if "residuals" in tree.children else None
    data = tree["levels"].to_dataset() if "levels" in tree.children else None
    levels = None if data is None else Levels.read(data)
    if levels is None or not set(CHAIN) <= set(levels.nodes):  # solved nowhere: no steps
        return _shares(errors, residuals, None, settings)
    assert data is not None
    groups = _shares(errors, residuals, levels, settings)
    _add_levels(groups["/shares"], levels, data, settings)
    at_damping = tree["levels/at_damping"].to_dataset()
    groups["/shares/at_damping"] = _at_damping(at_damping, settings.level)
    if "equal" in levels.protocols:  # rungs of the chain may share no λ at which all are solved
        groups["/shares/mismatch"] = mismatch_group(levels, settings.level)
    repeats = data.get("relative_width")
    groups["/shares/resolution"] = resolution_group(levels, settings.level, repeats)
    if set(CURVATURE.taken) <= set(levels.nodes):
        groups |= order_groups(levels, METRICS, (*STEPS, CROSS_TERM), settings.level)
    if "damped_value" in errors and "lds_mean" in tree["attribution"]:
        groups["/prediction"] = prediction_group(
            errors,
            tree["attribution"].to_dataset(),
            groups["/shares"]["level"].sel(protocol="tuned"),
            settings.level,
            settings.seed,
        )
    beside = _beside(levels, settings.level)
    if beside is not None:
        groups["/beside"] = beside
    if len(levels.per_base) > 1:
        of_base = data["of_base_model"].rename("level")
        groups["/base_models"] = of_base.reset_coords(drop=True).to_dataset()
    return groups


def _shares(
    errors: xr.Dataset, residuals: xr.Dataset | None, levels: Levels | None, settings: Settings
) -> dict[str, xr.Dataset]:
    """``/shares``: drops and shares of every step by every metric; ``/shares/errors``, if any."""
    steps = (*STEPS, CROSS_TERM)
    protocols = PROTOCOLS if levels is None else levels.protocols
    shape = (len(METRICS), len(protocols), len(steps))
    drop, share = np.full((*shape, 3), np.nan), np.full((*shape, 3), np.nan)
    total = np.full((*shape[:2], 3), np.nan)
    defined, degrades = np.zeros(shape[:2], np.int64), np.full(shape, np.nan)

    def put(metric: str, protocol: str, result: StepShares) -> None:
        i, j = METRICS.index(metric), list(protocols).index(protocol)
        rows = [steps.index(step) for step in result.steps]
        drop[i, j, rows], share[i, j, rows] = result.drop, result.share
        total[i, j], defined[i, j] = result.total, int(result.defined)
        degrades[i, j, rows] = result.probability_degrades

    for protocol in protocols:
        for metric, found in error_shares(errors, residuals, protocol, settings):
            put(metric, protocol, found)
        if levels is not None:
            draws = levels.of(protocol, CHAIN)
            put("lds", protocol, step_shares(draws, CHAIN, level=settings.level))
    table = ("metric", "protocol", "step", "ci_bound")
    data = xr.Dataset(
        {
            "drop": (table, drop),
            "share": (table, share),
            "total": (("metric", "protocol", "ci_bound"), total),
            "defined": (("metric", "protocol"), defined),
            "probability_degrades": (("metric", "protocol", "step"), degrades),
        },
        {
            "metric": list(METRICS),
            "protocol": list(protocols),
            "step": list(steps),
            "ci_bound": list(CI_BOUNDS),
        },
    )
    if residuals is None:
        return {"/shares": data}
    axes = {"metric": list(METRICS), "step": list(steps)}  # a child shares its parent's
    at = errors_at_damping(residuals, settings).reindex(axes, fill_value={"defined": 0})
    return {"/shares": data, "/shares/errors": at}


def _add_levels(data: xr.Dataset, levels: Levels, measured: xr.Dataset, settings: Settings) -> None:
    """The waterfall: levels, their dampings, the premise gap, and the verdict in words."""
    data.coords["rung"] = list(levels.nodes)
    data["level"] = (("protocol", "rung", "ci_bound"), levels.draws.interval(settings.level))
    data["level_damping"] = (("protocol", "rung"), measured["damping"].values)
    if "ceiling" in measured:
        ceiling = read_draws(measured, "ceiling")
        data["corrected"] = (
            ("protocol", "rung", "ci_bound"),
            corrected(levels.draws, ceiling).interval(settings.level),
        )
        gaps = [ceiling.minus(levels.of(p, ["hessian"])[0]) for p in levels.protocols]
        data["premise"] = (
            ("protocol", "ci_bound"),
            np.stack([gap.interval(settings.level) for gap in gaps]),
        )
    verdicts = {}
    for protocol in levels.protocols:
        found = verdict(
            levels.of(protocol, CHAIN),
            levels.parts(protocol, CHAIN),
            levels.masks,
            CHAIN,
            level=settings.level,
        )
        defined = bool(data["defined"].sel(metric="lds", protocol=protocol))
        verdicts[protocol] = {
            "candidate": found.candidate,
            "resolved": found.resolved and defined,
            "probability": found.probability,
            "more_masks": found.more_masks,
            "text": found.text if defined else "not resolved: the total loss is within noise",
        }
    data.attrs["verdict"] = json.dumps(verdicts)


def _at_damping(data: xr.Dataset, level: float) -> xr.Dataset:
    """``/shares/at_damping``: the chain at one λ for all rungs, and what every step costs there."""
    levels, steps = read_draws(data), (*STEPS, CROSS_TERM)
    nodes = list(map(str, data["rung"].values))
    chain = [nodes.index(rung) for rung in CHAIN]
    found = [step_shares(one, CHAIN, level=level) for one in _each(levels[:, chain])]
    missing = np.full((len(found), 1, 3), np.nan)  # of the cross term, which ranks have not
    table = ("multiplier", "step", "ci_bound")
    return xr.Dataset(
        {
            "level": (("multiplier", "rung", "ci_bound"), levels.interval(level)),
            "drop": (table, np.hstack([np.stack([one.drop for one in found]), missing])),
            "share": (table, np.hstack([np.stack([one.share for one in found]), missing])),
            "total": (("multiplier", "ci_bound"), np.stack([one.total for one in found])),
            "defined": ("multiplier", [int(one.defined) for one in found]),
            "damping_value": data["damping_value"],
        },
        {
            "multiplier": data["multiplier"].values,
            "rung": nodes,
            "step": list(steps),
            "ci_bound": list(CI_BOUNDS),
        },
    )


def _each(levels: Draws) -> Iterator[Draws]:
    """Along the first axis."""
    return (levels[i] for i in range(len(levels.estimate)))


def _beside(levels: Levels, level: float) -> xr.Dataset | None:
    """``/beside``: LDS of every approximation and of scores made elsewhere, minus that of
    every rung.

    Resamples are paired, so that an interval is that of the difference. ``probability`` is the
    share of resamples in which the difference is positive, ties counting half; NaN where a level
    is missing.

    Args:
        levels: of all nodes.
        level: coverage of the intervals.
    """
    others = [node for node in levels.nodes if node not in (*LATTICE, *BASELINES)]
    if not others:
        return None
    shape = (len(levels.protocols), len(others), len(CHAIN))
    difference, probability = np.full((*shape, 3), np.nan), np.full(shape, np.nan)
    for i, protocol in enumerate(levels.protocols):
        chain = levels.of(protocol, CHAIN)
        for j, other in enumerate(others):
            gap = levels.of(protocol, [other]).minus(chain)
            difference[i, j] = gap.interval(level)
            share = (gap.draws > 0).mean(0) + 0.5 * (gap.draws == 0).mean(0)
            probability[i, j] = np.where(np.isfinite(gap.estimate), share, np.nan)
    dims = ("protocol", "other", "rung")
    return xr.Dataset(
        {
            "difference": ((*dims, "ci_bound"), difference),
            "probability": (dims, probability),
        },
        {
            "protocol": list(levels.protocols),
            "other": others,
            "rung": list(CHAIN),
            "ci_bound": list(CI_BOUNDS),
        },
    )
