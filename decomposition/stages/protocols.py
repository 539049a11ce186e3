"""Damping protocols as grids: setting → λ of every rung.

``equal`` gives all rungs the same λ; ``relative`` the same c in λ = c · tr|C| / P;
``effective_dimension`` the same d in Σ |μ| / (|μ| + λ) = d. ``tuned`` uses the grid of ``equal``,
refined around each rung's own optimum.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from decomposition.attribution.scorer import Scorer
from decomposition.damping import (
    damping_for_effective_dimension,
    effective_dimension,
    relative_damping,
)
from decomposition.errors import DampingError

COMMON = ("equal", "relative", "effective_dimension")
"""Protocols in which one setting serves every rung."""
TUNED = "tuned"
"""The protocol in which every rung has its own."""
PROTOCOLS = (*COMMON, TUNED)


@dataclass(frozen=True)
class Grid:
    """One protocol's settings and what they mean on each rung."""

    protocol: str
    settings: Float[np.ndarray, " D"]
    """λ, c or d."""
    dampings: dict[str, Float[np.ndarray, " D"]]
    """λ of every rung at every setting."""


def grids(
    scorers: Mapping[str, Scorer], multipliers: Float[np.ndarray, " D"], reference: str
) -> dict[str, Grid]:
    """The grids of the common protocols, anchored at the GGN's (else the reference's) trace.

    A rung without known eigenvalues (a solver, the random baseline) has no trace: it is given
    the reference's λ in every protocol.
    """
    anchor = "ggn" if "ggn" in scorers else reference
    scale = _mean_eigenvalue(scorers[anchor])
    equal = multipliers * scale
    reference_mu = scorers[reference].mu
    assert reference_mu is not None
    dimensions = np.array([effective_dimension(reference_mu, float(d)) for d in equal])
    relative, dimension = {}, {}
    for name, rung in scorers.items():
        if rung.damping_free:
            relative[name] = dimension[name] = equal
            continue
        own = (
            _mean_eigenvalue(rung) if rung.mu is not None else _mean_eigenvalue(scorers[reference])
        )
        relative[name] = equal if np.isclose(own, scale, rtol=1e-9) else multipliers * own
        dimension[name] = (
            equal
            if rung.mu is None or name == reference
            else np.array([_at(rung, float(d)) for d in dimensions])
        )
    return {
        "equal": Grid("equal", equal, dict.fromkeys(scorers, equal)),
        "relative": Grid("relative", multipliers, relative),
        "effective_dimension": Grid("effective_dimension", dimensions, dimension),
    }


def _mean_eigenvalue(rung: Scorer) -> float:
    assert rung.mu is not None
    return relative_damping(1.0, float(rung.mu.abs().sum()), len(rung.mu))


def _at(rung: Scorer, dimension: float) -> float:
    """λ at an effective dimension; a rung of lower rank gets its smallest sensible λ."""
    spectrum = rung.spectrum
    assert spectrum is not None
    smallest = 1e-10 * float(spectrum.values.abs().max())
    try:
        found = damping_for_effective_dimension(spectrum.values, dimension, spectrum.added)
        rung.check(found, "absolute")  # factored damping asks for λ of the order of its square
    except DampingError:
        return smallest
    return found
