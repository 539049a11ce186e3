"""How well a rung's inverse inverts the Hessian, along gradients: Eq. 9 of Hong et al. 2025.

    residual(v) = ‖H X v − v‖² / ‖v‖²,        X the rung's inverse at λ

with H, and *damped* with H + λI in place of it; v are gradients of training examples, and those of
the queries. At λ = 0 it vanishes for a rung that is H. The paper (arXiv 2509.23437) could not be
read in full: the definition is that of a replication which cites its number
(gsindlinger/Hessian-Approximation-for-Toy-Models).

The mean over v has the error of the vectors that were drawn; where all were, it is 0. A rung whose
solves iterate is not solved for this.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from decomposition.curvature.operator import Curvature
from decomposition.linalg import to_numpy

RESIDUALS = {
    "inverse_residual_train": "mean over training gradients of ‖H C_λ⁻¹ v − v‖² / ‖v‖²",
    "inverse_residual_query": "likewise over query gradients",
    "inverse_residual_train_damped": "mean of ‖(H + λI) C_λ⁻¹ v − v‖² / ‖v‖² over training ones",
    "inverse_residual_query_damped": "likewise over query gradients",
}
"""Metric → what it is."""
VECTORS, VECTORS_BY_PRODUCTS = 50, 4
"""Gradients of either kind that are taken; where H is known by its products, fewer."""


@dataclass(frozen=True)
class Directions:
    """Gradients v of one kind."""

    kind: str
    """train or query."""
    columns: Float[Tensor, "P k"]
    all_of_them: bool
    """Whether no others are left out."""


def drawn(kind: str, columns: Float[Tensor, "P n"], most: int, seed: int) -> Directions:
    """At most so many of the gradients that are not zero, without replacement."""
    usable = np.flatnonzero(to_numpy(columns.square().sum(0)) > 0)
    if len(usable) > most:
        chosen = np.random.default_rng((seed, 9)).choice(usable, most, replace=False)
    else:
        chosen = usable
    return Directions(kind, columns[:, np.sort(chosen)], len(usable) <= most)


@dataclass(frozen=True)
class Treated:
    """The rungs under one protocol or rule."""

    rungs: Mapping[str, Curvature]
    """Name → C with this inverse; those without are left out."""
    strengths: Mapping[str, float]
    """What stands in the place of λ."""
    dampings: Mapping[str, float]
    """λ, where there is one; without it there is no H + λI."""


def inverse_residuals(
    rungs: Mapping[str, Curvature],
    directions: Sequence[Directions],
    dampings: Sequence[float],
    treatments: Mapping[str, Treated],
    negative: str,
) -> xr.Dataset:
    """Residuals of every rung over a grid of λ, and under every protocol and rule.

    Args:
        rungs: name → C, with ``hessian`` among them.
        directions: v of every kind.
        dampings: λ of the grid.
        treatments: name of a protocol or rule → the rungs under it.
        negative: policy for negative eigenvalues.

    Returns:
        damped_value, damped_median, damped_error (metric, damping, rung), and
        residual(metric, protocol, rung): the mean; NaN where a rung has no solution.
    """
    names, metrics = list(rungs), list(RESIDUALS)
    grid = np.full((3, len(metrics), len(dampings), len(names)), np.nan)
    under = np.full((len(metrics), len(treatments), len(names)), np.nan)
    every = torch.cat([v.columns for v in directions], 1)  # one solve serves both kinds
    sizes, hessian = [v.columns.shape[1] for v in directions], rungs["hessian"]

    def summed(rung: Curvature, at: Sequence[float], dampings: Sequence[float]) -> Iterator:
        """Row of a metric, with mean, median and error of the mean (3, D)."""
        parts = _residuals(rung, hessian, every, at, dampings, negative).split(sizes, 2)
        for v, found in zip(directions, parts, strict=True):
            for end, each in zip(("", "_damped"), found, strict=True):
                yield metrics.index(f"inverse_residual_{v.kind}{end}"), _summed(each, v.all_of_them)

    for column, (name, rung) in enumerate(rungs.items()):
        if rung.matrix_free:
            continue
        for row, found in summed(rung, dampings, dampings):
            grid[:, row, :, column] = found
        for place, treated in enumerate(treatments.values()):
            if name in treated.rungs and name in treated.strengths:
                at = [treated.strengths[name]], [treated.dampings.get(name, np.nan)]
                for row, found in summed(treated.rungs[name], *at):
                    under[row, place, column] = found[0, 0]
    dims = ("metric", "damping", "rung")
    return xr.Dataset(
        {
            "damped_value": (dims, grid[0]),
            "damped_median": (dims, grid[1]),
            "damped_error": (dims, grid[2]),
            "residual": (("metric", "protocol", "rung"), under),
        },
        {
            "metric": metrics,
            "damping": np.asarray(dampings, float),
            "rung": names,
            "protocol": list(treatments),
        },
    )


def _residuals(
    rung: Curvature,
    hessian: Curvature,
    v: Float[Tensor, "P k"],
    strengths: Sequence[float],
    dampings: Sequence[float],
    negative: str,
) -> Float[Tensor, "2 D k"]:
    """Against H, and against H + λI."""
    count = len(strengths)
    x = rung.solutions(v, list(strengths), negative).x  # (D, P, k)
    columns = x.movedim(1, 0).flatten(1).nan_to_num()
    image = hessian.matvec(columns).unflatten(1, (count, -1)).movedim(1, 0)
    scale = torch.tensor(dampings, dtype=x.dtype, device=x.device)[:, None, None]
    found = torch.stack([(side - v).square().sum(1) for side in (image, image + scale * x)])
    return torch.where(x.isnan().any(1), torch.nan, found / v.square().sum(0))


def _summed(each: Float[Tensor, "D k"], all_of_them: bool) -> Float[np.ndarray, "3 D"]:
    """Mean, median, and the error of the mean."""
    mean, count = each.mean(1), each.shape[1]
    error = 0.0 * mean if all_of_them else each.std(1) / count**0.5
    return to_numpy(torch.stack([mean, each.quantile(0.5, dim=1), error]))


def residual_rows(found: xr.Dataset, headline: int) -> xr.Dataset:
    """The residuals as metrics of ``/spectral_error``, for ``groups.add_metrics``.

    Args:
        found: of ``inverse_residuals``.
        headline: index of the λ that ``value`` shows.
    """
    at = found.isel(damping=headline, drop=True)
    return xr.Dataset(
        {
            "value": at["damped_value"],
            "standard_error": at["damped_error"],
            **{name: found[name] for name in ("damped_value", "damped_median", "residual")},
        }
    )
