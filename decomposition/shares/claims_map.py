"""Where a claim holds: its verdict at every λ of the grid, in every cell.

One common λ is no property of a chain: which step costs most, and whether better approximations
give better scores, changes along it. Every claim about levels is tested at each λ on the resamples
of ``/levels/at_damping``, as ``shares.claims`` tests it under a protocol; p-values are adjusted by
Holm (1979) over all cells and dampings of a claim's map. λ is in units of tr G / min(P, N·C).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import groupby

import numpy as np
import xarray as xr
from jaxtyping import Float, Int

from decomposition.names import CHAIN, CI_BOUNDS, STEPS
from decomposition.scores.bootstrap import Draws
from decomposition.scores.levels import read_draws
from decomposition.shares.claims import (
    CLAIMS,
    CONTRADICTED,
    SUPPORTED,
    Claim,
    decide,
    sides,
)
from decomposition.shares.steps import drops
from decomposition.shares.verdict import holm

TESTED = tuple(claim for claim in CLAIMS if not claim.exact)
"""Claims about levels; errors of matrices know no λ."""
OVERALL = "overall"
"""The claim whose effect is the whole loss, the LDS of H minus that of K-FAC."""


def claims_map(trees: Sequence[xr.DataTree], level: float) -> xr.Dataset | None:
    """``/claims/map``: every claim at every λ, over the dampings that all cells have.

    Args:
        trees: of ``pipeline.compute_cell``.
        level: coverage of the intervals.

    Returns:
        None where a cell has no levels at single dampings. The attribute ``sentences`` is JSON:
        claim → where it holds, in words; claims about matrices, which have no λ, are unknown.
    """
    if not all("levels" in tree.children and "at_damping" in tree["levels"] for tree in trees):
        return None
    cells = [tree["levels/at_damping"].to_dataset() for tree in trees]
    shared = set.intersection(*(set(one["multiplier"].values.tolist()) for one in cells))
    multipliers = sorted(shared)
    if not multipliers or not all(set(CHAIN) <= set(one["rung"].values) for one in cells):
        return None
    levels = [_chain(one, multipliers) for one in cells]
    found = [[drops(one[i], CHAIN) for i in range(len(multipliers))] for one in levels]
    tested = [_tested(claim, found, level) for claim in TESTED]
    estimate = np.stack([one.estimate for one in levels])  # (cell, multiplier, rung)
    data = xr.Dataset(
        {
            "effect": (
                ("claim", "cell", "multiplier", "ci_bound"),
                np.stack([effect for effect, *_ in tested]),
            ),
            "p_value": (("claim", "cell", "multiplier"), np.stack([p for _, p, _ in tested])),
            "verdict": (
                ("claim", "cell", "multiplier"),
                np.stack([verdict for *_, verdict in tested]).astype(np.int8),
            ),
            "optimum": (("cell", "rung"), _optimum(estimate, np.array(multipliers))),
            "damping_value": (
                ("cell", "multiplier"),
                np.stack([one["damping_value"].sel(multiplier=multipliers) for one in cells]),
            ),
        },
        {
            "claim": [claim.name for claim in TESTED],
            "cell": np.arange(len(cells)),
            "multiplier": multipliers,
            "rung": list(CHAIN),
            "ci_bound": list(CI_BOUNDS),
        },
    )
    sentences = {claim.name: where(data, claim) for claim in TESTED}
    data = data.reindex(claim=[claim.name for claim in CLAIMS], fill_value={"verdict": 0})
    data.attrs["sentences"] = json.dumps(sentences, ensure_ascii=False)
    return data


def _chain(cell: xr.Dataset, multipliers: Sequence[float]) -> Draws:
    """Levels of the chain (multipliers, rungs)."""
    return read_draws(cell.sel(multiplier=list(multipliers), rung=list(CHAIN)))


def _tested(
    claim: Claim, found: Sequence[Sequence[Draws]], level: float
) -> tuple[Float[np.ndarray, "K D 3"], Float[np.ndarray, "K D"], Int[np.ndarray, "K D"]]:
    """Effect, adjusted p-value of the verdict's side, and verdict."""
    assert claim.effect is not None
    shape = (len(found), len(found[0]))
    of_places = [sides(claim, one, STEPS) for cell in found for one in cell]
    adjusted = np.stack([holm(side) for side in np.array(of_places).T], -1)
    verdict = decide(adjusted, 0.5 * (1.0 - level)).reshape(shape)
    effect = [[claim.effect(one, STEPS, level) for one in cell] for cell in found]
    return np.array(effect), adjusted.min(1).reshape(shape), verdict


def _optimum(
    estimate: Float[np.ndarray, "K D rungs"], multipliers: Float[np.ndarray, " D"]
) -> Float[np.ndarray, "K rungs"]:
    """Where on the grid each rung's level is highest; NaN where it has none."""
    known = np.isfinite(estimate).any(1)
    best = np.where(np.isfinite(estimate), estimate, -np.inf).argmax(1)
    return np.where(known, multipliers[best], np.nan)


def where(data: xr.Dataset, claim: Claim) -> str:
    """At which λ most of the cells support a claim, and at which they speak against it.

    Args:
        data: of ``claims_map``, with its cells.
        claim: one of its claims.
    """
    verdict = data["verdict"].sel(claim=claim.name).transpose("cell", "multiplier").values
    multipliers, count = data["multiplier"].values, len(verdict)
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
    loss = data["effect"].sel(claim=OVERALL, ci_bound="upper").transpose("cell", "multiplier")
    better = _ranges((loss.values < 0).sum(0) > count / 2, multipliers)
    if better and claim.given is not None:
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
