"""Squared Frobenius errors: of each step of the chain, and of each rung.

‖H − K‖² = ‖H − G‖² + 2⟨H − G, G − K⟩ + ‖G − B‖² + ‖B − E‖² + ‖E − K‖²

The last three are orthogonal by construction: G − B is zero on the blocks, and E is the
orthogonal projection of B onto the matrices diagonal in its basis, to which K belongs too. The
cross term of the first step has either sign and is reported as its own item.

Between matrices every term is exact. Where H is known by its products, what involves it is a mean
over random probes z of ‖(C − D) z‖², the same probes for all; what does not is still exact where
the norms of G, B and E are (by their Gram matrices and factors), because the steps are orthogonal:
‖G − B‖² = ‖G‖² − ‖B‖² and ‖B − E‖² = ‖B‖² − ‖E‖².
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from decomposition.curvature import Curvature, Diagonalised, NotAvailableError
from decomposition.curvature.estimate import Estimate, probes, relative_error
from decomposition.linalg import to_numpy
from decomposition.names import CHAIN
from decomposition.spectrum.distances import Distances, alike, beside, inner, squared_distance

ROUNDING = 1e-24
"""Squared relative error below which two matrices are equal in float64."""
PROBES = 16


def frobenius_split(
    chain: Mapping[str, Curvature], distances: Distances | None = None
) -> dict[str, float]:
    """Squared Frobenius error of each step, and the cross term, of rungs that have matrices."""
    distances = distances or Distances()
    block_ggn, ekfac, kfac = (_diagonalised(chain[name]) for name in CHAIN[2:])
    hessian, ggn = chain["hessian"].dense(), chain["ggn"].dense()
    across, mixed, start = 0.0, inner(hessian, ggn, ggn), 0
    for block in kfac.diagonal_blocks().values():
        stop = start + block.size
        across += beside(ggn, start, stop)
        own = slice(start, stop)
        mixed -= inner(hessian[own, own], ggn[own, own], block.dense())
        start = stop
    split = {
        "linearisation": distances.squared(
            _diagonalised(chain["hessian"]), _diagonalised(chain["ggn"])
        ),
        "cross_term": 2.0 * mixed,
        "cross_layer": across,
        "eigenbasis": distances.squared(block_ggn, ekfac),
        "eigenvalues": distances.squared(ekfac, kfac),
    }
    # Where all rungs agree, what is left is rounding, of which nobody's share is worth knowing.
    floor = ROUNDING * chain["hessian"].frobenius_norm() ** 2
    return {step: value if abs(value) > floor else 0.0 for step, value in split.items()}


def _diagonalised(curvature: Curvature) -> Diagonalised:
    found = curvature.eigenbasis
    assert found is not None
    return found


@dataclass(frozen=True)
class FrobeniusErrors:
    """Squared Frobenius norms, and errors of the steps and of the rungs."""

    norms: dict[str, Estimate]
    """‖C‖² of every rung that has products."""
    traces: dict[str, Estimate]
    """tr C."""
    steps: dict[str, Float[np.ndarray, " probes"]]
    """Squared error of each step, and the cross term: one number if exact, else one a probe."""
    relative: dict[str, dict[str, Estimate]]
    """Reference, H or G → rung C → ‖C − R‖_F / ‖R‖_F, where H is known by its products."""


def frobenius_errors(
    rungs: Mapping[str, Curvature],
    exact: Collection[str],
    seed: int,
    count: int = PROBES,
    distances: Distances | None = None,
) -> FrobeniusErrors:
    """Exact where the forms tell, else from ``count`` random probes.

    Args:
        rungs: the chain, and others beside it.
        exact: those whose eigenvalues are known.
        seed: of the probes.
        count: how many, if there are any.
        distances: where those between matrices are kept.
    """
    if all(rungs[name].eigenbasis is not None for name in CHAIN):
        known = {name: rungs[name] for name in exact}
        return FrobeniusErrors(
            {name: Estimate(rung.frobenius_norm() ** 2) for name, rung in known.items()},
            {name: rung.trace() for name, rung in known.items()},
            {step: np.array([value]) for step, value in frobenius_split(rungs, distances).items()},
            {},
        )
    return _Sampled(rungs, exact, seed, count).errors()


class _Sampled:
    """Images of common probes under every rung that has products."""

    def __init__(
        self, rungs: Mapping[str, Curvature], exact: Collection[str], seed: int, count: int
    ) -> None:
        z = probes(rungs["ggn"].size, count, seed, rungs["ggn"].device)
        self.rungs, self.count, self.seed = rungs, count, seed
        self.images: dict[str, Tensor] = {}
        for name, rung in rungs.items():
            try:
                self.images[name] = rung.matvec(z)
            except NotAvailableError:  # known by its solver alone
                continue
        self.exact = [name for name in self.images if name in exact]
        self.norms = {name: self._norm(name) for name in self.images}
        self.orthogonal = set(CHAIN[1:]) <= set(self.exact)

    def _norm(self, name: str) -> Estimate:
        if name in self.exact:
            return Estimate(self.rungs[name].frobenius_norm() ** 2)
        return Estimate.mean(to_numpy(self.images[name].square().sum(0)))

    def _trace(self, name: str) -> Estimate:
        if name in CHAIN[1:3]:
            return self.rungs["ekfac"].trace()  # tr G = tr B = tr E
        return self.rungs[name].trace(max(2, self.count // 2), self.seed)

    def gap(self, first: str, second: str) -> np.ndarray:
        """‖(C − D) z‖²."""
        return to_numpy((self.images[first] - self.images[second]).square().sum(0))

    def known(self, first: str, second: str) -> np.ndarray:
        """‖C‖² − ‖D‖², the squared error of orthogonal steps from C to D."""
        return np.full(self.count, max(0.0, self.norms[first] - self.norms[second]))

    def from_ggn(self, name: str) -> np.ndarray:
        """‖G − C‖²."""
        if self.orthogonal and name in ("ggn", "block_ggn"):
            return self.known("ggn", name)
        ekfac, rung = _diagonalised(self.rungs["ekfac"]), self.rungs[name].eigenbasis
        if self.orthogonal and rung is not None and alike(ekfac, rung):
            return self.known("ggn", "ekfac") + squared_distance(ekfac, rung)
        return self.gap("ggn", name)

    def errors(self) -> FrobeniusErrors:
        images = self.images
        ekfac, kfac = (_diagonalised(self.rungs[name]) for name in CHAIN[3:])
        residual = images["hessian"] - images["ggn"]
        step = self.known if self.orthogonal else self.gap
        steps = {
            "linearisation": self.gap("hessian", "ggn"),
            "cross_layer": step("ggn", "block_ggn"),
            "eigenbasis": step("block_ggn", "ekfac"),
            "eigenvalues": np.full(self.count, squared_distance(ekfac, kfac)),
            "cross_term": to_numpy(2.0 * (residual * (images["ggn"] - images["kfac"])).sum(0)),
        }

        def from_hessian(other: Tensor, exact_part: np.ndarray) -> np.ndarray:
            """‖H − C‖² = ‖H − G‖² + 2⟨H − G, G − C⟩ + ‖G − C‖²: what is exact is not sampled."""
            mixed = to_numpy(2.0 * (residual * (images["ggn"] - other)).sum(0))
            return steps["linearisation"] + mixed + exact_part

        square = np.full(self.count, float(self.norms["ggn"]))
        if not self.orthogonal:
            square = to_numpy(images["ggn"].square().sum(0))
        scale = from_hessian(torch.zeros_like(residual), square)
        of_ggn = {name: self.from_ggn(name) for name in images if name != "hessian"}
        relative = {
            "hessian": {
                name: relative_error(from_hessian(images[name], part), scale)
                for name, part in of_ggn.items()
            },
            "ggn": {name: relative_error(part, square) for name, part in of_ggn.items()},
        }
        traces = {name: self._trace(name) for name in images}
        return FrobeniusErrors(self.norms, traces, steps, relative)
