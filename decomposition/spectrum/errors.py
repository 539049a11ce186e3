"""Spectral errors of every rung against a reference rung, whole or for one layer's blocks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from decomposition.curvature.base import Curvature, Diagonalised
from decomposition.curvature.dense import DenseCurvature
from decomposition.damping import NegativeCurvature
from decomposition.errors import DecompositionError
from decomposition.spectrum.damped import damped_errors
from decomposition.spectrum.norms import Norms, norms
from decomposition.spectrum.overlap import eigenvalue_overlap

METRICS = {
    "relative_frobenius": "‖C − R‖_F / ‖R‖_F",
    "relative_spectral": "‖C − R‖₂ / ‖R‖₂",
    "relative_nuclear": "‖C − R‖_* / ‖R‖_*",
    "eigenvalue_overlap": "1 − ‖μ − ν‖₁ / (‖μ‖₁ + ‖ν‖₁), sorted spectra; 1 is perfect",
    "subspace_overlap": "‖V_kᵀ U_k‖²_F / k of the k leading eigenvectors; 1 is perfect",
    "damped_inverse": "‖C_λ⁻¹ − R_λ⁻¹‖_F / ‖R_λ⁻¹‖_F",
    "damped_inverse_queries": "‖(C_λ⁻¹ − R_λ⁻¹) g_Q‖_F / ‖R_λ⁻¹ g_Q‖_F over all query gradients",
    "stein": "tr(C_λ R_λ⁻¹) − log det(C_λ R_λ⁻¹) − P",
}
DAMPED = ("damped_inverse", "damped_inverse_queries", "stein")


@dataclass(frozen=True)
class ErrorPlan:
    """What to compute."""

    dampings: Sequence[float]
    """λ at which the damped metrics are taken."""
    headline: int
    """Index of the λ that the undamped table shows."""
    leading: int
    """k of the subspace overlap."""
    negative: str | NegativeCurvature = "absolute"
    """Policy for negative eigenvalues."""
    matrix_norms: bool = True
    """Whether to compute the spectral and nuclear norms."""
    seed: int = 0
    """Seed of the stochastic nuclear norm."""


def spectral_errors(
    rungs: Mapping[str, Curvature],
    reference: str,
    plan: ErrorPlan,
    queries: Tensor | None = None,
) -> xr.Dataset:
    """All metrics of all rungs against ``rungs[reference]``.

    Args:
        rungs: name → curvature, all of one size.
        reference: the rung that counts as exact.
        plan: dampings and options.
        queries: query gradients (P, Q); without them ``damped_inverse_queries`` is NaN.

    Returns:
        value(metric, rung), standard_error(metric, rung) (0 where exact, else that of the
        stochastic estimate), damped_value(metric, damping, rung). NaN where a rung cannot tell.
    """
    names = list(rungs)
    shape = (len(METRICS), len(names))
    value, error = np.full(shape, np.nan), np.zeros(shape)
    damped = np.full((len(DAMPED), len(plan.dampings), len(names)), np.nan)
    exact = _diagonalised(rungs[reference])
    if exact is None:
        raise DecompositionError(f"the reference rung {reference!r} has no dense form")
    done: dict[int, int] = {id(rungs[reference]): names.index(reference)}
    scale = _Scale(exact, plan, queries)
    for column, name in enumerate(names):
        if id(rungs[name]) in done and name != reference:  # the same matrix under another name
            source = done[id(rungs[name])]
            value[:, column], error[:, column] = value[:, source], error[:, source]
            damped[:, :, column] = damped[:, :, source]
            continue
        done[id(rungs[name])] = column
        curvature = exact if name == reference else _diagonalised(rungs[name])
        if curvature is None:
            continue
        value[:, column], error[:, column], damped[:, :, column] = _compare(
            curvature, exact, scale, plan, queries
        )
    return xr.Dataset(
        {
            "value": (("metric", "rung"), value),
            "standard_error": (("metric", "rung"), error),
            "damped_value": (("damped_metric", "damping", "rung"), damped),
        },
        {
            "metric": list(METRICS),
            "damped_metric": list(DAMPED),
            "rung": names,
            "damping": np.asarray(plan.dampings, float),
        },
    )


class _Scale:
    """Norms of the reference, made once."""

    def __init__(self, exact: Diagonalised, plan: ErrorPlan, queries: Tensor | None) -> None:
        magnitude = exact.basis_values().abs()
        self.norms = Norms(float(magnitude.max()), float(magnitude.sum()))
        self.frobenius = exact.frobenius_norm()
        self.solved = [
            None if queries is None else exact.solve(queries, damping, plan.negative)
            for damping in plan.dampings
        ]


def _compare(
    curvature: Diagonalised,
    exact: Diagonalised,
    scale: _Scale,
    plan: ErrorPlan,
    queries: Tensor | None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    value, error = dict.fromkeys(METRICS, np.nan), dict.fromkeys(METRICS, 0.0)
    if curvature is exact:
        perfect = {m: float(m in ("eigenvalue_overlap", "subspace_overlap")) for m in METRICS}
        if queries is None:
            perfect["damped_inverse_queries"] = np.nan
        damped = np.array([[perfect[m]] * len(plan.dampings) for m in DAMPED])
        return np.array(list(perfect.values())), np.zeros(len(METRICS)), damped
    difference = exact.dense() - curvature.dense()
    value["relative_frobenius"] = float(torch.linalg.norm(difference)) / scale.frobenius
    if plan.matrix_norms:
        gap = norms(difference, plan.seed)
        value["relative_spectral"] = gap.spectral / scale.norms.spectral
        error["relative_spectral"] = gap.spectral_error / scale.norms.spectral
        value["relative_nuclear"] = gap.nuclear / scale.norms.nuclear
        error["relative_nuclear"] = gap.nuclear_error / scale.norms.nuclear
    del difference
    value["eigenvalue_overlap"] = eigenvalue_overlap(curvature.basis_values(), exact.basis_values())
    pair = damped_errors(curvature, exact, plan.dampings, plan.leading, plan.negative)
    value["subspace_overlap"] = pair.subspace_overlap
    damped = np.full((len(DAMPED), len(plan.dampings)), np.nan)
    damped[0], damped[2] = np.sqrt(pair.inverse_squared), pair.stein
    for i, (damping, solved) in enumerate(zip(plan.dampings, scale.solved, strict=True)):
        if queries is not None and solved is not None:
            gap_q = curvature.solve(queries, damping, plan.negative) - solved
            damped[1, i] = float(torch.linalg.norm(gap_q) / torch.linalg.norm(solved))
    for row, metric in enumerate(DAMPED):
        value[metric] = damped[row, plan.headline]
    return np.array(list(value.values())), np.array(list(error.values())), damped


def _diagonalised(curvature: Curvature) -> Diagonalised | None:
    if isinstance(curvature, Diagonalised):
        return curvature
    try:
        return DenseCurvature(curvature.dense())
    except DecompositionError:
        return None
