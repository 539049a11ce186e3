"""Spectra of a run whose matrices are too large to form, each number with its error.

EK-FAC and K-FAC have their eigenvalues by their factors, the GGN and the block GGN by their Gram
matrices where those fit: exact, with every zero counted. A rung known by its products, H always,
gets its ends by Lanczos and the rest by quadrature (``spectrum.large``). Spectral norms of
differences are lower bounds with their residual (``spectrum.difference``); Frobenius errors are
those of ``stages.large``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import xarray as xr
from torch import Tensor
from tqdm import tqdm

from decomposition.chain.names import CHAIN
from decomposition.chain.plan import Plan
from decomposition.curvature import Curvature, NotAvailableError
from decomposition.curvature.estimate import Estimate
from decomposition.problem import Problem
from decomposition.spectrum.difference import CHEAP_STEPS, difference_norms
from decomposition.spectrum.estimated_groups import (
    density_group,
    dimension_group,
    ends_group,
    error_group,
    summary_group,
)
from decomposition.spectrum.large import (
    Estimation,
    Spectrum,
    estimated_spectrum,
    exact_spectrum,
)
from decomposition.spectrum.norms_group import PROBES, Errors

ENDS = 10
"""Eigenvalues told at each end."""
TOLERANCE = 1e-2
"""Residual of those, relative to the largest: they are known by their Rayleigh quotients, whose
error goes with its square."""
LARGE = 2 * 10**8
"""Parameters times examples from which a product takes about a second."""
DAMPINGS = (0.01, 0.1, 1.0, 10.0, 100.0)
"""Of effective dimensions, as multiples of the mean non-zero eigenvalue of G."""


@dataclass(frozen=True)
class Work:
    """Columns multiplied with a rung that is known by its products."""

    end_steps: int
    """Lanczos steps towards both ends."""
    probes: int
    """Random vectors of the quadrature, whose spread is the error bar."""
    steps: int
    """Lanczos steps of each."""
    norm_steps: int
    """Lanczos steps of each difference from it."""

    @staticmethod
    def of(numbers: int) -> Work:
        """Default for P · N: 60 products for H and four other rungs if large, else 268."""
        return Work(20, 3, 8, 4) if numbers >= LARGE else Work(60, 6, 24, 16)

    def columns(self, differences: int) -> int:
        """All of them, with so many differences."""
        return self.end_steps + self.probes * self.steps + self.norm_steps * differences

    def estimation(self, seed: int) -> Estimation:
        """The part that is spent on the spectrum."""
        return Estimation(ENDS, self.probes, self.steps, seed, TOLERANCE, self.end_steps)


def planned_products(plan: Plan, problem: Problem, work: Work | None = None) -> dict[str, int]:
    """Columns that a run multiplies with each rung for spectra and errors, scores apart."""
    usual = work or Work.of(problem.num_parameters * problem.num_examples)
    dear = work or Work.of(LARGE)
    counts = {str(name): PROBES for name in CHAIN}  # of the Frobenius errors
    counts["hessian"] += 2 * max(2, PROBES // 2)  # XTrace
    for name in CHAIN:
        if plan.way(name) == "matrix-free":
            own = dear if name == "block_ggn" else usual
            counts[name] += own.end_steps + own.probes * own.steps
    for i, reference in enumerate(CHAIN[:2]):  # spectral norms of differences from H, and from G
        iterated = plan.way(reference) == "matrix-free"
        steps = usual.norm_steps + (0 if iterated else usual.steps)
        for other in CHAIN[i + 1 :]:
            counts[reference] += steps
            counts[other] += steps + (CHEAP_STEPS if iterated else 0)
    return counts


class Counted:
    """A curvature's products, counted, with the bar that shows them."""

    def __init__(self, curvature: Curvature, bar: tqdm | None = None) -> None:
        """Nothing is multiplied yet."""
        self.size, self.device, self.count = curvature.size, curvature.device, 0
        self._curvature, self._bar = curvature, bar

    def matvec(self, v: Tensor) -> Tensor:
        """C v."""
        self.count += v.shape[1]
        if self._bar is not None:
            self._bar.update(v.shape[1])
        return self._curvature.matvec(v)


@dataclass(frozen=True)
class LargeSpectra:
    """What is known of the spectra of a large run."""

    spectra: dict[str, Spectrum]
    """Of every rung that has products or eigenvalues."""
    norms: dict[str, dict[str, Estimate]]
    """Reference, H or G → rung → ‖C − R‖₂; the errors are residuals."""
    products: dict[str, int]
    """Columns multiplied with each rung."""

    @property
    def lowest(self) -> Estimate:
        """The lowest Ritz value of H with its residual."""
        return self.spectra["hessian"].ends.lowest


def large_spectra(
    rungs: Mapping[str, Curvature],
    examples: int,
    seed: int,
    matrix_norms: bool = True,
    work: Work | None = None,
    progress: bool = False,
) -> LargeSpectra:
    """Spectra of all rungs, and spectral norms of their differences from H and from G.

    Args:
        rungs: the chain and the user's own; one that is known by its solver alone is left out.
        examples: N, which a product's cost goes with.
        seed: of start vectors and probes.
        matrix_norms: also the spectral norms of differences.
        work: products to spend; default ``Work.of`` P · N, and the smaller choice for a block GGN
            without Gram matrices, whose products sweep once for each of its blocks.
        progress: show a bar over the products.
    """
    usual = work or Work.of(rungs["ggn"].size * examples)
    dear = work or Work.of(LARGE)
    free = {
        name: (dear if name == "block_ggn" else usual).estimation(seed)
        for name, rung in rungs.items()
        if rung.matrix_free
    }
    total = sum(usual.columns(len(rungs) - 1 if matrix_norms else 0) for _ in free)
    with tqdm(
        total=total, desc="spectra", unit="product", disable=None if progress else True
    ) as bar:
        counted = {n: Counted(r, bar if n in free else None) for n, r in rungs.items()}
        spectra: dict[str, Spectrum] = {}
        for name, rung in rungs.items():
            if name in free:
                spectra[name] = estimated_spectrum(counted[name], free[name])
                continue
            try:
                values = rung.eigenvalues()
            except NotAvailableError:
                continue
            spectra[name] = exact_spectrum(values, "structured", ENDS)
        norms = {
            reference: _distances(reference, counted, spectra, usual, seed) if matrix_norms else {}
            for reference in ("hessian", "ggn")
        }
    return LargeSpectra(spectra, norms, {name: one.count for name, one in counted.items()})


def _distances(
    reference: str,
    rungs: Mapping[str, Counted],
    spectra: Mapping[str, Spectrum],
    work: Work,
    seed: int,
) -> dict[str, Estimate]:
    """‖C − R‖₂ of every rung whose spectrum is known; that of H from G is that of G from H."""
    known = spectra[reference]
    exact = known.measure.exact
    others = {
        name: rungs[name] for name in spectra if name not in (reference, "hessian")
    }  # H from G is G from H
    found = difference_norms(
        rungs[reference],
        others,
        work.steps + work.norm_steps if exact else work.norm_steps,
        None if exact else known.ends,
        seed=seed,
    )
    return {reference: Estimate(0.0), **found}


def spectra_groups(found: LargeSpectra, errors: Errors, rows: int) -> dict[str, xr.Dataset]:
    """Group path → density, summary, ends, effective dimensions and spectral errors.

    Args:
        found: the spectra.
        errors: traces and relative Frobenius errors of the same rungs.
        rows: N·C, the most eigenvalues of G that the examples can make non-zero.
    """
    size = found.spectra["ggn"].measure.size
    scale = errors.traces["ggn"] / min(size, rows)
    return {
        "/spectral_density": density_group(found.spectra, found.products),
        "/spectral_summary": summary_group(found.spectra),
        "/spectral_ends": ends_group(found.spectra, ENDS),
        "/effective_dimension": dimension_group(found.spectra, [m * scale for m in DAMPINGS]),
        "/spectral_error": error_group(found.spectra, found.norms, errors.relative),
    }
