"""What is known of the rungs of a chain, each number with its error.

The form of a rung decides. One that has its eigenvalues (matrices, Kronecker factors, Gram matrices
with every zero counted) has an exact spectrum; one that is known by its products, as H of a large
model, gets its ends by Lanczos and the rest by quadrature (``quadrature``). A rung that is known by
its solver alone is left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor
from tqdm import tqdm

from decomposition.chain.plan import Plan
from decomposition.curvature import BlockDiagonal, Curvature, NotAvailableError
from decomposition.curvature.estimate import Symmetric
from decomposition.linalg import eigvalsh
from decomposition.names import CHAIN
from decomposition.problem import Problem
from decomposition.spectrum.distances import Distances
from decomposition.spectrum.frobenius import PROBES, FrobeniusErrors, frobenius_errors
from decomposition.spectrum.measure import ENDS, Spectrum, exact_spectrum, union
from decomposition.spectrum.norms import CHEAP_STEPS
from decomposition.spectrum.quadrature import Estimation, estimated_spectrum

TOLERANCE = 1e-2
"""Residual of the ends, relative to the largest: they are known by their Rayleigh quotients, whose
error goes with its square."""
BY_BLOCKS = ("block_hessian", "block_ggn")
"""Rungs whose products pass through the model once for each of its blocks."""
LARGE = 2 * 10**8
"""Parameters times examples from which a product takes about a second."""
DEFINITE = CHAIN[1:]
"""Rungs without negative eigenvalues, by what they are."""


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

    def difference_steps(self, exact: bool) -> int:
        """Lanczos steps of a difference from a reference that is exact, or known by products."""
        return self.norm_steps + (self.steps if exact else 0)

    def estimation(self, seed: int) -> Estimation:
        """The part that is spent on the spectrum."""
        return Estimation(ENDS, self.probes, self.steps, seed, TOLERANCE, self.end_steps)


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
class Known:
    """Spectra, norms and errors of the rungs of one chain."""

    rungs: Mapping[str, Curvature]
    spectra: dict[str, Spectrum]
    """Of every rung that has eigenvalues or products."""
    frobenius: FrobeniusErrors
    """Norms, traces, and errors of the steps."""
    work: Work
    """What was spent on each rung that is known by its products."""
    seed: int = 0
    """Of start vectors and probes."""
    counted: dict[str, Counted] = field(default_factory=dict)
    distances: Distances = field(default_factory=Distances)
    """Between rungs that have matrices, and between their blocks."""

    @property
    def products(self) -> dict[str, int]:
        """Columns multiplied with each rung so far, those of the Frobenius errors apart."""
        return {name: self.counted[name].count for name in self.spectra}


def known_of(
    rungs: Mapping[str, Curvature],
    examples: int,
    seed: int = 0,
    work: Work | None = None,
    progress: bool = False,
) -> Known:
    """Spectra of all rungs, their norms and traces, and the squared errors of the steps.

    Args:
        rungs: the chain, and others beside it; eigendecompositions are made here, once.
        examples: N, which a product's cost goes with.
        seed: of start vectors and probes.
        work: products to spend; default ``Work.of`` P · N, and the smaller choice for a block GGN
            known by its products, which sweep once for each of its blocks.
        progress: show a bar.
    """
    usual = work or Work.of(rungs["ggn"].size * examples)
    dear = work or Work.of(LARGE)
    counted: dict[str, Counted] = {}
    spectra: dict[str, Spectrum] = {}
    for name, rung in tqdm(
        rungs.items(), desc="spectra", unit="rung", disable=None if progress else True
    ):
        counted[name] = Counted(rung)
        same = next((other for other in spectra if rungs[other] is rung), None)
        found = spectra.get(same or "") or spectrum_of(
            rung,
            (dear if name in BY_BLOCKS else usual).estimation(seed),
            definite=rung.definite or any(rungs.get(other) is rung for other in DEFINITE),
            product=counted[name],
        )
        if found is not None:
            spectra[name] = found
    exact = [name for name, one in spectra.items() if one.exact]
    distances = Distances()
    errors = frobenius_errors(rungs, exact, seed, distances=distances)
    return Known(rungs, spectra, errors, usual, seed, counted, distances)


def spectrum_of(
    rung: Symmetric, plan: Estimation, definite: bool = False, product: Symmetric | None = None
) -> Spectrum | None:
    """By what the form tells: eigenvalues, else quadrature by products; None of a solver alone.

    Blocks side by side have the union of their spectra, and what is smaller than a quadrature is
    written out.

    Args:
        rung: a curvature, or anything that has products.
        plan: the work of a quadrature.
        definite: whether it has no negative eigenvalues, by what it is.
        product: what is multiplied in its place, to be counted.
    """
    product = product or rung
    try:
        if isinstance(rung, Curvature):
            return exact_spectrum(rung.eigenvalues(), plan.ends, definite)
    except NotAvailableError:
        if isinstance(rung, BlockDiagonal):
            parts = [spectrum_of(b, plan, definite) for b in rung.diagonal_blocks().values()]
            return union([part for part in parts if part is not None])
    try:
        if rung.size > plan.steps:
            return estimated_spectrum(product, plan, definite)
        matrix = product.matvec(torch.eye(rung.size, dtype=torch.float64, device=rung.device))
        return exact_spectrum(eigvalsh(0.5 * (matrix + matrix.T)), plan.ends, definite)
    except NotAvailableError:
        return None


def planned_products(plan: Plan, problem: Problem, work: Work | None = None) -> dict[str, int]:
    """Columns that a run multiplies with each rung for spectra and errors, scores apart."""
    usual = work or Work.of(problem.num_parameters * problem.num_examples)
    dear = work or Work.of(LARGE)
    counts = {str(name): PROBES for name in CHAIN}  # of the Frobenius errors
    counts["hessian"] += 2 * max(2, PROBES // 2)  # XTrace
    for name in CHAIN:
        if plan.way(name) == "matrix-free":
            own = dear if name in BY_BLOCKS else usual
            counts[name] += own.end_steps + own.probes * own.steps
    for i, reference in enumerate(CHAIN[:2]):  # spectral norms of differences from H, and from G
        iterated = plan.way(reference) == "matrix-free"
        steps = usual.difference_steps(not iterated)
        for other in CHAIN[i + 1 :]:
            counts[reference] += steps
            counts[other] += steps + (CHEAP_STEPS if iterated else 0)
    return counts
