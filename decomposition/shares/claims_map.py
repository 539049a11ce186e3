"""Where a claim holds: its verdict at every λ, in every cell, for every chain and inversion.

One common λ is no property of a chain: which step costs most, and whether better approximations
give better scores, changes along it. Every claim about levels is tested at each λ on the resamples
of ``/levels/at_damping``, as ``shares.claims`` tests it under a protocol: once in units of
tr G / min(P, N·C), and once at absolute λ, whose levels are interpolated linearly in log λ between
the neighbouring dampings of the grid, resample by resample. A map is that of one claim, chain and
inversion; its p-values are adjusted by Holm (1979) over its cells and dampings.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from itertools import groupby

import numpy as np
import xarray as xr
from jaxtyping import Float, Int

from decomposition.chain.paper_protocol import PAPER_CHAIN, PAPER_RUNGS
from decomposition.names import CHAIN, CI_BOUNDS, Step
from decomposition.scores.bootstrap import Draws
from decomposition.scores.levels import read_draws
from decomposition.shares.claims import (
    CLAIMS,
    CONTRADICTED,
    SUPPORTED,
    Claim,
    decide,
    residual_drops,
    sides,
)
from decomposition.shares.steps import CHAIN as CHAIN_STEPS
from decomposition.shares.steps import drops
from decomposition.shares.verdict import holm

TESTED = tuple(claim for claim in CLAIMS if not claim.exact)
"""Claims about what is known with resamples at every λ: errors of matrices know none."""
OVERALL = "overall"
"""The claim whose effect is the whole loss, the LDS of H minus that of K-FAC."""
CHAINS: dict[str, tuple[tuple[Step, ...], tuple[str, ...]]] = {
    "exact": (CHAIN_STEPS, CHAIN),
    "paper": (PAPER_CHAIN, PAPER_RUNGS),
}
"""Name → steps and rungs."""


def claims_map(trees: Sequence[xr.DataTree], level: float) -> xr.Dataset | None:
    """``/claims/map``: every claim at every λ, over the dampings that all cells have.

    Args:
        trees: of ``pipeline.compute_cell``.
        level: coverage of the intervals.

    Returns:
        None where a cell has no levels at single dampings. The attribute ``sentences`` is JSON:
        chain, inversion → claim → where it holds, in words; claims about matrices, which have no
        λ, are unknown.
    """
    cells = _levels(trees)
    if cells is None:
        return None
    shared = set.intersection(*(set(one["multiplier"].values.tolist()) for one in cells))
    multipliers = sorted(shared)
    if not multipliers:
        return None
    at = [one.sel(multiplier=multipliers) for one in cells]
    data = _mapped(trees, [read_draws(one) for one in at], at, "multiplier", multipliers, level)
    data["damping_value"] = (("cell", "multiplier"), np.stack([one["damping_value"] for one in at]))
    return data


def absolute_map(trees: Sequence[xr.DataTree], level: float) -> xr.Dataset | None:
    """``/claims/map/absolute``: the same at the powers of ten of λ that every cell's grid spans;
    None too where a cell has several base models.

    Arguments and result as of ``claims_map``.
    """
    cells = _levels(trees)
    # several base models each have a λ of their own at one place of the grid
    if cells is None or any(tree["levels"].sizes.get("base_model", 1) > 1 for tree in trees):
        return None
    ends = np.log10([[one["damping_value"].values[i] for i in (0, -1)] for one in cells])
    low, high = float(ends[:, 0].max()), float(ends[:, 1].min())
    powers = np.arange(math.ceil(low - 1e-9), math.floor(high + 1e-9) + 1)
    if not len(powers):
        return None
    draws = [between(read_draws(one), one["damping_value"].values, 10.0**powers) for one in cells]
    return _mapped(trees, draws, cells, "damping", (10.0**powers).tolist(), level)


def between(
    levels: Draws, dampings: Float[np.ndarray, " D"], wanted: Float[np.ndarray, " W"]
) -> Draws:
    """Levels (D, rungs) at other dampings (W, rungs), linear in log λ between neighbours."""
    place = np.interp(np.log(wanted), np.log(dampings), np.arange(len(dampings)))
    first = np.minimum(place.astype(int), len(dampings) - 2)
    part = (place - first)[:, None]

    def mixed(values: np.ndarray) -> np.ndarray:
        one, other = values[..., first, :], values[..., first + 1, :]
        return np.where(part == 0, one, np.where(part == 1, other, (1 - part) * one + part * other))

    return Draws(mixed(levels.estimate), mixed(levels.draws))


def _levels(trees: Sequence[xr.DataTree]) -> list[xr.Dataset] | None:
    """``/levels/at_damping`` of every cell; None where one lacks it, or a rung of the chain."""
    if not all("levels" in tree.children and "at_damping" in tree["levels"] for tree in trees):
        return None
    cells = [tree["levels/at_damping"].to_dataset() for tree in trees]
    return cells if all(set(CHAIN) <= set(one["rung"].values) for one in cells) else None


def _mapped(
    trees: Sequence[xr.DataTree],
    levels: Sequence[Draws],
    cells: Sequence[xr.Dataset],
    axis: str,
    values: Sequence[float],
    level: float,
) -> xr.Dataset:
    """Every map, from the levels (values, rungs) of every cell."""
    positions = [{str(r): i for i, r in enumerate(one["rung"].values)} for one in cells]
    chains = [
        name
        for name, (_, rungs) in CHAINS.items()
        if name == "exact"
        or all(
            set(rungs) <= set(known)
            and np.isfinite(one.estimate[:, [known[r] for r in rungs]]).any(0).all()
            for known, one in zip(positions, levels, strict=True)
        )
    ]
    own = [inversion_of(tree) for tree in trees]
    rules = list(dict.fromkeys(own))
    rungs = list(dict.fromkeys(rung for name in chains for rung in CHAINS[name][1]))
    dims = ("claim", "chain", "rule", "cell", axis)
    shape = (len(TESTED), len(chains), len(rules), len(cells), len(values))
    effect, p_value = np.full((*shape, 3), np.nan), np.full(shape, np.nan)
    verdict = np.zeros(shape, np.int8)
    for c, chain in enumerate(chains):
        steps, nodes = CHAINS[chain]
        places = [[known[node] for node in nodes] for known in positions]
        of_levels = [
            [drops(one[i, place], nodes, steps) for i in range(len(values))]
            for one, place in zip(levels, map(np.array, places), strict=True)
        ]
        of_residuals = [_residual_drops(tree, axis, values, steps) for tree in trees]
        names = [step.name for step in steps]
        for r, rule in enumerate(rules):
            mine = [i for i, one in enumerate(own) if one == rule]
            for t, claim in enumerate(TESTED):
                found = of_residuals if claim.of == "residual" else of_levels
                told = _tested(claim, [found[i] for i in mine], names, level)
                effect[t, c, r, mine], p_value[t, c, r, mine], verdict[t, c, r, mine] = told
    estimates = [
        np.stack(
            [
                one.estimate[:, known[r]] if r in known else np.full(len(values), np.nan)
                for r in rungs
            ],
            -1,
        )
        for known, one in zip(positions, levels, strict=True)
    ]
    data = xr.Dataset(
        {
            "effect": ((*dims, "ci_bound"), effect),
            "p_value": (dims, p_value),
            "verdict": (dims, verdict),
            "optimum": (("cell", "rung"), _optimum(np.stack(estimates), np.array(values))),
        },
        {
            "claim": [claim.name for claim in TESTED],
            "chain": chains,
            "rule": rules,
            "cell": np.arange(len(cells)),
            axis: values,
            "rung": rungs,
            "ci_bound": list(CI_BOUNDS),
        },
    )
    sentences = {
        f"{chain}, {rule}": {
            claim.name: where(one, claim, axis)
            for claim in TESTED
            if one["p_value"].sel(claim=claim.name).notnull().any()
        }
        for chain in chains
        for rule in rules
        for one in [_one_map(data, chain, rule)]
    }
    data = data.reindex(claim=[claim.name for claim in CLAIMS], fill_value={"verdict": 0})
    data.attrs["sentences"] = json.dumps(sentences, ensure_ascii=False)
    return data


def inversion_of(tree: xr.DataTree) -> str:
    """How λ enters the inverses of a cell."""
    cells = tree["cells"].to_dataset() if "cells" in tree.children else {}
    return str(cells["inversion"].item()) if "inversion" in cells else "damped"


def _one_map(data: xr.Dataset, chain: str, rule: str) -> xr.Dataset:
    """With the cells of that inversion alone."""
    one = data.sel(chain=chain, rule=rule)
    return one.isel(
        cell=np.flatnonzero(one["p_value"].notnull().any(("claim", one["p_value"].dims[-1])))
    )


def _tested(
    claim: Claim, found: Sequence[Sequence[Draws]], steps: Sequence[str], level: float
) -> tuple[Float[np.ndarray, "K D 3"], Float[np.ndarray, "K D"], Int[np.ndarray, "K D"]]:
    """Effect, adjusted p-value of the verdict's side, and verdict."""
    assert claim.effect is not None
    shape = (len(found), len(found[0]))
    of_places = [sides(claim, one, steps) for cell in found for one in cell]
    adjusted = np.stack([holm(side) for side in np.array(of_places).T], -1)
    verdict = decide(adjusted, 0.5 * (1.0 - level)).reshape(shape)
    effect = [[claim.effect(one, steps, level) for one in cell] for cell in found]
    return np.array(effect), np.fmin(*adjusted.T).reshape(shape), verdict


def _residual_drops(
    tree: xr.DataTree, axis: str, values: Sequence[float], steps: Sequence[Step]
) -> list[Draws]:
    """What the steps add to the residual at every λ; NaN where it was not taken."""
    residuals = tree["residuals"].to_dataset() if "residuals" in tree.children else None
    known = [] if residuals is None or axis not in residuals else residuals[axis].values
    found = []
    for value in values:
        place = np.flatnonzero(np.isclose(known, value, rtol=1e-9, atol=0.0))
        at = None
        if residuals is not None and len(place):
            at = residuals["at_damping"].isel(damping=int(place[0]))
        found.append(residual_drops(residuals, at, steps))
    return found


def _optimum(
    estimate: Float[np.ndarray, "K D rungs"], values: Float[np.ndarray, " D"]
) -> Float[np.ndarray, "K rungs"]:
    """Where on the map each rung's level is highest; NaN where it has none."""
    known = np.isfinite(estimate).any(1)
    best = np.where(np.isfinite(estimate), estimate, -np.inf).argmax(1)
    return np.where(known, values[best], np.nan)


def where(data: xr.Dataset, claim: Claim, axis: str = "multiplier") -> str:
    """At which λ most of the cells support a claim, and at which they speak against it.

    Args:
        data: one map, with its cells.
        claim: one of its claims.
        axis: its dimension of λ.
    """
    verdict = data["verdict"].sel(claim=claim.name).transpose("cell", axis).values
    multipliers, count = data[axis].values, len(verdict)
    parts = []
    for outcome, words in ((SUPPORTED, "supported"), (CONTRADICTED, claim.against)):
        cells = (verdict == outcome).sum(0)
        most = int(cells.max())
        ranges = _ranges(cells > count / 2, multipliers)
        of = "" if count == 1 else f" (in up to {most} of {count} cells)"
        if ranges:
            parts.append(f"{words} {ranges}{of}")
        elif count > 1 and most:
            parts.append(f"{words} nowhere in most of the cells, in {most} of {count} at most")
        elif outcome == SUPPORTED and (verdict == CONTRADICTED).any():
            parts.append("nowhere supported")
    loss = data["effect"].sel(claim=OVERALL, ci_bound="upper").transpose("cell", axis)
    better = _ranges((loss.values < 0).sum(0) > count / 2, multipliers)
    if better and claim.given is not None and claim.of == "lds":
        parts.append(f"K-FAC scores better than H {better}, where there is no loss to share")
    if not (verdict != 0).any():
        parts = ["not resolved at any λ"]
    return f"{claim.text.rstrip('.')}: {'; '.join(parts)}"


def _ranges(chosen: np.ndarray, multipliers: np.ndarray) -> str:
    """``at λ ≤ 0.01 and at λ from 1 to 10``; empty where none is chosen."""
    places = [
        [i for i, _ in run]
        for on, run in groupby(enumerate(chosen.tolist()), key=lambda pair: pair[1])
        if on
    ]
    last = len(multipliers) - 1
    said = []
    for run in places:
        low, high = (f"{float(f'{multipliers[i]:.2g}'):g}" for i in (run[0], run[-1]))
        if run[0] == 0 and run[-1] == last:
            said.append("at every λ of the grid")
        elif run[0] == 0:
            said.append(f"at λ ≤ {high}")
        elif run[-1] == last:
            said.append(f"at λ ≥ {low}")
        else:
            said.append(f"at λ = {low}" if low == high else f"at λ from {low} to {high}")
    return " and ".join(said)
