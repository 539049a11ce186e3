"""Spectral errors of every rung against a reference rung, whole or for one layer's blocks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from decomposition.curvature.dense import DenseCurvature
from decomposition.curvature.estimate import Estimate
from decomposition.curvature.operator import Curvature, Diagonalised, NotAvailableError
from decomposition.damping import NegativeCurvature
from decomposition.errors import DecompositionError
from decomposition.linalg import from_numpy
from decomposition.spectrum.distances import Distances
from decomposition.spectrum.inverse_errors import SINGLE, InverseErrors, compare_inverses
from decomposition.spectrum.known import Known
from decomposition.spectrum.norms import Norms, norms_from
from decomposition.spectrum.subspaces import eigenvalue_overlap, in_basis

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
OVERLAPS = ("eigenvalue_overlap", "subspace_overlap")
"""Metrics that are 1 where there is no error."""
NORM_STEPS = 40
"""Lanczos steps of the spectral norm of a difference of matrices that are too large to decompose
for it."""
UNKNOWN = Estimate(np.nan, np.nan)


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
    """Of the start vectors of Lanczos."""
    protocols: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """Protocol → rung → λ: more pairs at which the damped inverse is compared, each rung at its
    own λ with the reference at its own."""


@dataclass(frozen=True)
class Solved:
    """C_λ⁻¹ g_Q = constant · g_Q − rest at one λ."""

    constant: float
    rest: Tensor


class Comparisons:
    """What comparing rungs costs, paid once whichever of two is the reference."""

    def __init__(
        self,
        plan: ErrorPlan,
        queries: Tensor | None = None,
        known: Known | None = None,
        distances: Distances | None = None,
    ) -> None:
        """Start empty.

        Args:
            plan: what to compute.
            queries: query gradients (P, Q), in memory; without them
                ``damped_inverse_queries`` is NaN.
            known: what products tell of rungs without matrices.
            distances: those between matrices that are known already.
        """
        self.plan, self.queries, self.known = plan, queries, known
        self.distances = distances or Distances()
        self._matrices: dict[int, Diagonalised | None] = {}
        self._norms: dict[tuple[int, int], Norms] = {}
        self._inverses: dict[tuple[int, int], InverseErrors] = {}
        self._solved: dict[int, list[Solved]] = {}
        self._kept: list[Curvature] = []  # an id is a key only while its object lives

    def matrices(self, rungs: Mapping[str, Curvature], reference: str) -> dict[str, Diagonalised]:
        """The rungs that have eigenvectors or can be written out, if the reference is one."""
        if rungs[reference].eigenbasis is None and self.known is not None:
            return {}
        found = {}
        for name, rung in rungs.items():
            if id(rung) not in self._matrices:
                self._matrices[id(rung)] = _diagonalised(rung)
                self._kept.append(rung)
            matrix = self._matrices[id(rung)]
            if matrix is not None:
                found[name] = matrix
        return found

    def inverses(
        self, matrices: Mapping[str, Diagonalised], reference: str
    ) -> dict[str, InverseErrors]:
        """Errors of the damped inverses, at the plan's dampings and then under every protocol."""
        exact = matrices[reference]
        groups: dict[object, list[str]] = {}
        for name, matrix in matrices.items():
            if name != reference and (id(matrix), id(exact)) not in self._inverses:
                groups.setdefault(matrix.basis_key(), []).append(name)
        for names in groups.values():
            found = compare_inverses(
                [matrices[name] for name in names],
                exact,
                [self._dampings(name) for name in names],
                self._dampings(reference),
                self.plan.leading,
                self.plan.negative,
            )
            for name, both in zip(names, found, strict=True):
                matrix = matrices[name]
                self._inverses[id(matrix), id(exact)] = both.forward
                self._inverses[id(exact), id(matrix)] = both.backward
                self._kept += [matrix, exact]
        return {
            name: self._inverses[id(matrix), id(exact)]
            for name, matrix in matrices.items()
            if name != reference
        }

    def _dampings(self, name: str) -> list[float]:
        return [*self.plan.dampings, *(chosen[name] for chosen in self.plan.protocols.values())]

    def norms(self, rungs: Mapping[str, Curvature], reference: str) -> dict[str, Norms]:
        """Spectral and nuclear norms of the differences from the reference."""
        if not self.plan.matrix_norms:
            return {}
        exact, known = rungs[reference], self.known
        missing = {
            name: rung
            for name, rung in rungs.items()
            if name != reference and (id(rung), id(exact)) not in self._norms
        }
        steps, ends, products = NORM_STEPS, None, {}
        if known is not None:
            missing = {name: rung for name, rung in missing.items() if name in known.spectra}
            steps = known.work.difference_steps(known.spectra[reference].exact)
            ends = None if known.spectra[reference].exact else known.spectra[reference].ends
            products = {name: known.counted[name] for name in missing}
            products["reference"] = known.counted[reference]
        found = norms_from(exact, missing, steps, ends, self.plan.seed, products)
        for name, norms in found.items():
            self._norms[id(rungs[name]), id(exact)] = norms
            self._norms[id(exact), id(rungs[name])] = norms
            self._kept += [rungs[name], exact]
        return {
            name: self._norms[id(rung), id(exact)]
            for name, rung in rungs.items()
            if (id(rung), id(exact)) in self._norms
        }

    def query_errors(self, matrix: Diagonalised, exact: Diagonalised) -> list[float]:
        """‖(C_λ⁻¹ − R_λ⁻¹) g_Q‖_F / ‖R_λ⁻¹ g_Q‖_F at every λ of the plan."""
        if self.queries is None:
            return [np.nan] * len(self.plan.dampings)
        found = []
        for mine, theirs in zip(self._solutions(matrix), self._solutions(exact, True), strict=True):
            step = mine.constant - theirs.constant
            gap = step * self.queries - (mine.rest - theirs.rest)
            expected = theirs.constant * self.queries - theirs.rest
            found.append(_ratio(torch.linalg.norm(gap), torch.linalg.norm(expected)))
        return found

    def _solutions(self, matrix: Diagonalised, keep: bool = False) -> list[Solved]:
        """At every damping; kept for references, which are asked for again."""
        assert self.queries is not None
        if id(matrix) in self._solved:
            return self._solved[id(matrix)]
        dtype = torch.float32 if matrix.size > SINGLE else torch.float64
        coordinates, spectrum = matrix.to_basis(self.queries), matrix.spectrum()
        expand = in_basis(matrix, dtype, back=True)
        found = []
        for damping in self.plan.dampings:
            inverse = spectrum.inverse(damping, self.plan.negative)
            constant = float(inverse.median())
            rest = expand((constant - inverse)[:, None] * coordinates)
            found.append(Solved(constant, rest))
        if keep:
            self._solved[id(matrix)] = found
            self._kept.append(matrix)
        return found


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
        estimate), damped_value(metric, damping, rung), and misaligned(protocol, rung), the
        squared error of the damped inverse up to its scale. NaN where a rung cannot tell.

    Raises:
        DecompositionError: the reference has no matrix, and nothing else is known of it.
    """
    comparisons = comparisons or Comparisons(plan, queries)
    first: dict[int, str] = {}
    for name in (reference, *rungs):  # the same matrix under another name is compared once
        first.setdefault(id(rungs[name]), name)
    unique = {name: rungs[name] for name in first.values()}
    matrices = comparisons.matrices(unique, reference)
    if reference not in matrices and comparisons.known is None:
        raise DecompositionError(f"the reference rung {reference!r} has no dense form")
    table = _Table(unique, reference, matrices, comparisons)
    columns = {name: table.column(name) for name in unique}
    shown = [columns[first[id(rung)]] for rung in rungs.values()]
    value, error = (
        np.array([[cell(column, m) for column in shown] for m in METRICS])
        for cell in (lambda c, m: float(c.values[m]), lambda c, m: c.values[m].error)
    )
    damped = np.full((len(METRICS), len(plan.dampings), len(shown)), np.nan)
    for row, metric in enumerate(METRICS):
        if metric in DAMPED:
            damped[row] = np.transpose([column.damped[metric] for column in shown])
    by_protocol = np.transpose([column.misaligned for column in shown])
    return xr.Dataset(
        {
            "value": (("metric", "rung"), value),
            "standard_error": (("metric", "rung"), error),
            "damped_value": (("metric", "damping", "rung"), damped),
            "misaligned": (("protocol", "rung"), by_protocol),
        },
        {
            "metric": list(METRICS),
            "protocol": list(plan.protocols),
            "rung": list(rungs),
            "damping": np.asarray(plan.dampings, float),
        },
    )


def relative_frobenius(known: Known, reference: str = "hessian") -> dict[str, Estimate]:
    """‖C − R‖_F / ‖R‖_F of every rung that has a matrix or products."""
    exact = known.rungs[reference].eigenbasis
    if exact is None:
        return known.frobenius.relative[reference] | {reference: Estimate(0.0)}
    found = {}
    for name, rung in known.rungs.items():
        matrix = _diagonalised(rung)
        if matrix is not None:
            squared = known.distances.squared(matrix, exact)
            found[name] = Estimate(_ratio(squared**0.5, exact.frobenius_norm()))
    return found


@dataclass(frozen=True)
class _Column:
    """Errors of one rung."""

    values: dict[str, Estimate]
    damped: dict[str, Sequence[float]]
    misaligned: Sequence[float]


class _Table:
    """Everything that the columns of one reference share."""

    def __init__(
        self,
        rungs: Mapping[str, Curvature],
        reference: str,
        matrices: Mapping[str, Diagonalised],
        comparisons: Comparisons,
    ) -> None:
        self.reference, self.matrices, self.shared = reference, matrices, comparisons
        self.plan, self.known = comparisons.plan, comparisons.known
        compared = matrices if reference in matrices else rungs
        self.norms = comparisons.norms(compared, reference)
        self.inverses: dict[str, InverseErrors] = {}
        self.mu = {name: matrix.basis_values() for name, matrix in matrices.items()}
        if reference in matrices:
            self.inverses = comparisons.inverses(matrices, reference)
            magnitude = self.mu[reference].abs()
            self.frobenius = float(matrices[reference].frobenius_norm())
            self.spectral, self.nuclear = float(magnitude.max()), float(magnitude.sum())
        if self.known is not None:
            for name, rung in rungs.items():
                spectrum = self.known.spectra[name]
                if name not in self.mu and spectrum.exact:
                    self.mu[name] = from_numpy(spectrum.measure.nodes[0], rung.device)
            if reference not in matrices:
                self.spectral = self.known.spectra[reference].norm
                self.nuclear = np.nan

    def column(self, name: str) -> _Column:
        """All metrics of one rung."""
        count, pairs = len(self.plan.dampings), len(self.plan.protocols)
        values = dict.fromkeys(METRICS, UNKNOWN)
        damped: dict[str, Sequence[float]] = {m: [np.nan] * count for m in DAMPED}
        misaligned: Sequence[float] = [np.nan] * pairs
        told = name in self.matrices
        if name == self.reference:
            values |= {m: Estimate(float(m in OVERLAPS)) for m in METRICS if m not in DAMPED}
            if told:
                damped |= {m: [0.0] * count for m in DAMPED}
                misaligned = [0.0] * pairs
            if self.shared.queries is None:
                damped["damped_inverse_queries"] = [np.nan] * count
        else:
            values |= self._norms(name)
            if name in self.mu and self.reference in self.mu:
                overlap = eigenvalue_overlap(self.mu[name], self.mu[self.reference])
                values["eigenvalue_overlap"] = Estimate(overlap)
            if told and self.reference in self.matrices:
                found = self.inverses[name]
                values["subspace_overlap"] = Estimate(found.subspace_overlap)
                exact = self.matrices[self.reference]
                damped = {
                    "damped_inverse": np.sqrt(found.squared[:count]).tolist(),
                    "damped_inverse_queries": self.shared.query_errors(self.matrices[name], exact),
                    "stein": found.stein[:count].tolist(),
                }
                misaligned = found.misaligned[count:].tolist()
        for metric in DAMPED:
            values[metric] = Estimate(float(damped[metric][self.plan.headline]))
        return _Column(values, damped, misaligned)

    def _norms(self, name: str) -> dict[str, Estimate]:
        found: dict[str, Estimate] = {}
        if name in self.matrices and self.reference in self.matrices:
            pair = self.matrices[name], self.matrices[self.reference]
            squared = self.shared.distances.squared(*pair)
            found["relative_frobenius"] = Estimate(_ratio(squared**0.5, self.frobenius))
        elif self.known is not None:
            relative = self.known.frobenius.relative.get(self.reference, {})
            found["relative_frobenius"] = relative.get(name, UNKNOWN)
        if name in self.norms:
            gap = self.norms[name]
            found["relative_spectral"] = Estimate(
                _ratio(gap.spectral, self.spectral), _ratio(gap.spectral.error, self.spectral)
            )
            found["relative_nuclear"] = Estimate(_ratio(gap.nuclear, self.nuclear))
        return found


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
