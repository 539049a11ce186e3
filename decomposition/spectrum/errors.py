"""Spectral errors of every rung against a reference rung, whole or for one layer's blocks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from decomposition.curvature.dense import DenseCurvature
from decomposition.curvature.operator import Curvature, Diagonalised, NotAvailableError
from decomposition.errors import DecompositionError
from decomposition.spectrum.comparisons import Comparisons, ErrorPlan
from decomposition.spectrum.norms import Norms
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


def spectral_errors(
    rungs: Mapping[str, Curvature],
    reference: str,
    plan: ErrorPlan,
    queries: Tensor | None = None,
    comparisons: Comparisons | None = None,
) -> xr.Dataset:
    """All metrics of all rungs against ``rungs[reference]``.

    Args:
        rungs: name → curvature, all of one size.
        reference: the rung that counts as exact.
        plan: dampings and options.
        queries: query gradients (P, Q); without them ``damped_inverse_queries`` is NaN.
        comparisons: pass the same one for several references, and no pair is compared twice.

    Returns:
        value(metric, rung), standard_error(metric, rung) (0 where exact, else that of the
        stochastic estimate), damped_value(metric, damping, rung), and
        misaligned(protocol, rung), the squared error of the damped inverse up to its scale. NaN
        where a rung cannot tell.
    """
    names = list(rungs)
    shape = (len(METRICS), len(names))
    value, error = np.full(shape, np.nan), np.zeros(shape)
    damped = np.full((len(DAMPED), len(plan.dampings), len(names)), np.nan)
    by_protocol = np.full((len(plan.protocols), len(names)), np.nan)
    exact = _diagonalised(rungs[reference])
    if exact is None:
        raise DecompositionError(f"the reference rung {reference!r} has no dense form")
    done: dict[int, int] = {id(rungs[reference]): names.index(reference)}
    comparisons = comparisons or Comparisons(plan, queries)
    scale = _Scale(exact, comparisons)
    for column, name in enumerate(names):
        if id(rungs[name]) in done and name != reference:  # the same matrix under another name
            source = done[id(rungs[name])]
            value[:, column], error[:, column] = value[:, source], error[:, source]
            damped[:, :, column] = damped[:, :, source]
            by_protocol[:, column] = by_protocol[:, source]
            continue
        done[id(rungs[name])] = column
        curvature = exact if name == reference else _diagonalised(rungs[name])
        if curvature is None:
            continue
        pairs = [(p[name], p[reference]) for p in plan.protocols.values()]
        value[:, column], error[:, column], damped[:, :, column], by_protocol[:, column] = _compare(
            curvature, exact, scale, comparisons, pairs, name not in plan.without_norms
        )
    return xr.Dataset(
        {
            "value": (("metric", "rung"), value),
            "standard_error": (("metric", "rung"), error),
            "damped_value": (("metric", "damping", "rung"), _all_metrics(damped)),
            "misaligned": (("protocol", "rung"), by_protocol),
        },
        {
            "metric": list(METRICS),
            "protocol": list(plan.protocols),
            "rung": names,
            "damping": np.asarray(plan.dampings, float),
        },
    )


def _all_metrics(damped: np.ndarray) -> np.ndarray:
    """Rows of the damped metrics among those of all metrics; NaN for those without damping."""
    full = np.full((len(METRICS), *damped.shape[1:]), np.nan)
    full[[list(METRICS).index(metric) for metric in DAMPED]] = damped
    return full


class _Scale:
    """Norms of the reference, made once."""

    def __init__(self, exact: Diagonalised, comparisons: Comparisons) -> None:
        magnitude = exact.basis_values().abs()
        self.norms = Norms(float(magnitude.max()), float(magnitude.sum()))
        self.frobenius = exact.frobenius_norm()
        self.solved = comparisons.solutions(exact, keep=True)


def _compare(
    curvature: Diagonalised,
    exact: Diagonalised,
    scale: _Scale,
    comparisons: Comparisons,
    pairs: Sequence[tuple[float, float]],
    with_norms: bool,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    plan = comparisons.plan
    value, error = dict.fromkeys(METRICS, np.nan), dict.fromkeys(METRICS, 0.0)
    if curvature is exact:
        perfect = {m: float(m in ("eigenvalue_overlap", "subspace_overlap")) for m in METRICS}
        if comparisons.queries is None:
            perfect["damped_inverse_queries"] = np.nan
        damped = np.array([[perfect[m]] * len(plan.dampings) for m in DAMPED])
        return (
            np.array(list(perfect.values())),
            np.zeros(len(METRICS)),
            damped,
            np.zeros(len(pairs)),
        )
    difference = curvature.dense()
    if isinstance(curvature, DenseCurvature):
        difference = exact.dense() - difference
    else:  # its own to overwrite, and large
        difference = difference.neg_().add_(exact.dense())
    value["relative_frobenius"] = _ratio(torch.linalg.norm(difference), scale.frobenius)
    if plan.matrix_norms and with_norms:
        gap = comparisons.norms(curvature, exact, difference)
        value["relative_spectral"] = _ratio(gap.spectral, scale.norms.spectral)
        error["relative_spectral"] = _ratio(gap.spectral_error, scale.norms.spectral)
        value["relative_nuclear"] = _ratio(gap.nuclear, scale.norms.nuclear)
        error["relative_nuclear"] = _ratio(gap.nuclear_error, scale.norms.nuclear)
    del difference
    value["eigenvalue_overlap"] = eigenvalue_overlap(curvature.basis_values(), exact.basis_values())
    pair = comparisons.damped(curvature, exact, pairs)
    value["subspace_overlap"] = pair.subspace_overlap
    count = len(plan.dampings)
    damped = np.full((len(DAMPED), count), np.nan)
    damped[0], damped[2] = np.sqrt(pair.inverse_squared[:count]), pair.stein[:count]
    mine_solved = comparisons.solutions(curvature, keep=False)
    for i, (solved, expected) in enumerate(zip(mine_solved, scale.solved, strict=True)):
        damped[1, i] = _ratio(torch.linalg.norm(solved - expected), torch.linalg.norm(expected))
    for row, metric in enumerate(DAMPED):
        value[metric] = damped[row, plan.headline]
    return (
        np.array(list(value.values())),
        np.array(list(error.values())),
        damped,
        pair.misaligned[count:],
    )


def _ratio(value: Tensor | float, reference: Tensor | float) -> float:
    """value / reference; undefined where the reference is zero (the block of a dead layer)."""
    return float(value) / float(reference) if float(reference) else np.nan


def _diagonalised(curvature: Curvature) -> Diagonalised | None:
    if curvature.eigenbasis is not None:
        return curvature.eigenbasis
    try:
        return DenseCurvature(curvature.dense())
    except NotAvailableError:  # anything else wrong with it is for the user to hear
        return None
