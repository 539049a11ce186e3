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

from decomposition.curvature.operator import Curvature, Diagonalised
from decomposition.damping import check_damping
from decomposition.errors import DampingError
from decomposition.linalg import matmul, to_numpy

RESIDUALS = {
    "inverse_residual_train": "mean over training gradients of ‖H C_λ⁻¹ v − v‖² / ‖v‖²",
    "inverse_residual_query": "likewise over query gradients",
    "inverse_residual_train_damped": "mean of ‖(H + λI) C_λ⁻¹ v − v‖² / ‖v‖² over training ones",
    "inverse_residual_query_damped": "likewise over query gradients",
}
"""Metric → what it is."""
VECTORS, VECTORS_BY_PRODUCTS = 50, 4
"""Gradients of either kind that are taken; where H is known by its products, fewer."""
NUMBERS = 2**23
"""Numbers in the solutions that are made at once: 64 MB."""


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


@dataclass(frozen=True)
class _Asked:
    """A rung at one strength, and where its residuals go."""

    into: Float[np.ndarray, "metrics vectors"]
    rung: Curvature
    strength: float
    damping: float

    @property
    def at(self) -> tuple[float, float]:
        """What residuals of one rung depend on."""
        return self.strength, self.damping

    def fill(self, directions: Sequence[Directions], parts: Float[Tensor, "2 k"]) -> None:
        """Put the residuals of all directions, one kind after the other, where they go."""
        sizes = [v.columns.shape[1] for v in directions]
        for v, part in zip(directions, parts.split(sizes, 1), strict=True):
            for end, of_end in zip(("", "_damped"), part, strict=True):
                row = list(RESIDUALS).index(f"inverse_residual_{v.kind}{end}")
                self.into[row, : len(of_end)] = to_numpy(of_end)


def inverse_residuals(
    rungs: Mapping[str, Curvature],
    directions: Sequence[Directions],
    dampings: Sequence[float],
    treatments: Mapping[str, Treated],
    negative: str,
    added: bool = True,
) -> xr.Dataset:
    """Residuals of every rung over a grid of λ, and under every protocol and rule, v by v.

    Args:
        rungs: name → C, with ``hessian`` among them.
        directions: v of every kind.
        dampings: λ of the grid.
        treatments: name of a protocol or rule → the rungs under it.
        negative: policy for negative eigenvalues.
        added: whether λ of the grid is added to C; if not, there is no H + λI.

    Returns:
        at_damping(metric, damping, rung, vector) and under(metric, protocol, rung, vector), NaN
        where a rung has no solution; vectors(metric), how many there are, NaN beyond; and
        every(metric), 1 where no gradient is left out.
    """
    names, metrics = list(rungs), list(RESIDUALS)
    sizes, hessian = [v.columns.shape[1] for v in directions], rungs["hessian"]
    grid = np.full((len(metrics), len(dampings), len(names), max(sizes)), np.nan)
    under = np.full((len(metrics), len(treatments), len(names), max(sizes)), np.nan)
    vectors, every = np.zeros((2, len(metrics)), int)
    together = torch.cat([v.columns for v in directions], 1)  # one solve serves both kinds
    for v, size in zip(directions, sizes, strict=True):
        rows = [metric.startswith(f"inverse_residual_{v.kind}") for metric in metrics]
        vectors[rows], every[rows] = size, v.all_of_them
    for column, (name, rung) in enumerate(rungs.items()):
        if rung.matrix_free:
            continue
        asked = [
            _Asked(grid[:, i, column], rung, damping, damping if added else np.nan)
            for i, damping in enumerate(dampings)
        ]
        asked += [
            _Asked(
                under[:, i, column],
                treated.rungs[name],
                treated.strengths[name],
                treated.dampings.get(name, np.nan),
            )
            for i, treated in enumerate(treatments.values())
            if name in treated.rungs and name in treated.strengths
        ]
        for one in {id(found.rung): found.rung for found in asked}.values():
            mine = [found for found in asked if found.rung is one]
            at = list(dict.fromkeys(found.at for found in mine))  # protocols share dampings
            strengths, added_to = zip(*at, strict=True)
            parts = residuals(one, hessian, together, strengths, added_to, negative)
            for found in mine:
                found.fill(directions, parts[:, at.index(found.at)])
    return xr.Dataset(
        {
            "at_damping": (("metric", "damping", "rung", "vector"), grid),
            "under": (("metric", "protocol", "rung", "vector"), under),
            "vectors": ("metric", vectors),
            "every": ("metric", every),
        },
        {
            "metric": metrics,
            "damping": np.asarray(dampings, float),
            "rung": names,
            "protocol": list(treatments),
            "vector": np.arange(max(sizes)),
        },
    )


def residuals(
    rung: Curvature,
    hessian: Curvature,
    v: Float[Tensor, "P k"],
    strengths: Sequence[float],
    dampings: Sequence[float],
    negative: str,
) -> Float[Tensor, "2 D k"]:
    """‖H X v − v‖² / ‖v‖² of every v at every strength, and with H + λI in place of H.

    Args:
        rung: with the inverse X.
        hessian: H.
        v: gradients.
        strengths: what stands in the place of λ in X.
        dampings: λ of H + λI, NaN where there is none.
        negative: policy for negative eigenvalues.
    """
    size, most = v.square().sum(0), max(1, NUMBERS // max(1, v.numel()))
    mine, exact = rung.eigenbasis, hessian.eigenbasis
    if mine is not None and exact is not None and mine.basis_key() == exact.basis_key():
        sides = _by_eigenvalues(mine, exact, v, strengths, dampings, negative)
        return torch.stack(list(sides), 1) / size
    found = []
    for start in range(0, len(strengths), most):
        some = slice(start, start + most)
        x = rung.solutions(v, list(strengths[some]), negative).x  # (D, P, k)
        columns = x.movedim(1, 0).flatten(1).nan_to_num()
        image = hessian.matvec(columns).unflatten(1, (len(x), -1)).movedim(1, 0)
        scale = torch.tensor(dampings[some], dtype=x.dtype, device=x.device)[:, None, None]
        sides = torch.stack([(side - v).square().sum(1) for side in (image, image + scale * x)])
        found.append(torch.where(x.isnan().any(1), torch.nan, sides))
    return torch.cat(found, 1) / size


def _by_eigenvalues(
    rung: Diagonalised,
    hessian: Diagonalised,
    v: Float[Tensor, "P k"],
    strengths: Sequence[float],
    dampings: Sequence[float],
    negative: str,
) -> Iterator[Float[Tensor, "2 k"]]:
    """‖H X v − v‖² where X and H share a basis, and with H + λI: only Vᵀv is a matrix product."""
    squares, spectrum = hessian.to_basis(v.double()).square(), rung.spectrum()
    mu = hessian.basis_values()
    for strength, damping in zip(map(check_damping, strengths), dampings, strict=True):
        try:
            x = spectrum.inverse(strength, negative)
        except DampingError:  # singular there
            x = torch.full_like(mu, torch.nan)
        yield matmul(torch.stack([mu * x - 1.0, (mu + damping) * x - 1.0]).square(), squares)


def residual_rows(found: xr.Dataset, headline: int) -> xr.Dataset:
    """The residuals as metrics of ``/spectral_error``, for ``groups.add_metrics``.

    Args:
        found: of ``inverse_residuals``.
        headline: index of the λ that ``value`` shows.
    """
    data = xr.concat([_summed(found.sel(metric=metric)) for metric in RESIDUALS], "metric")
    at = data.isel(damping=headline, drop=True)
    return data.drop_vars("damped_error").assign(
        value=at["damped_value"], standard_error=at["damped_error"]
    )


def _summed(one: xr.Dataset) -> xr.Dataset:
    """Mean and median over the gradients of one metric, and the error of the mean."""
    count = int(one["vectors"])
    one = one.isel(vector=slice(max(count, 1)))  # without any it is NaN
    grid = one["at_damping"]
    spread = 0.0 * grid.mean("vector") if one["every"] else grid.std("vector", ddof=1)
    return xr.Dataset(
        {
            "damped_value": grid.mean("vector", skipna=False),
            "damped_median": grid.median("vector", skipna=False),
            "damped_error": spread / max(count, 1) ** 0.5,
            "residual": one["under"].mean("vector", skipna=False),
            "residual_median": one["under"].median("vector", skipna=False),
        }
    )
