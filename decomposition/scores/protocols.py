"""Damping protocols as grids: setting → λ of every rung.

``equal`` gives all rungs the same λ; ``relative`` the same c in λ = c · tr|C| / min(P, N·C);
``effective_dimension`` the same d in Σ μ₊ / (μ₊ + λ) = d. ``tuned`` uses the grid of ``equal``,
refined around each rung's own optimum.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from decomposition.errors import DampingError
from decomposition.problem import Problem
from decomposition.scores.scorer import Scorer

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


def rank_bound(problem: Problem) -> int:
    """min(P, N·C): the most eigenvalues of G that the examples can make non-zero.

    tr G over this number is the unit of damping grids: in a model with more parameters than
    N·C, tr G / P would be the mean over directions that no example has touched.
    """
    return min(problem.num_parameters, problem.num_examples * problem.num_outputs)


def grids(
    scorers: Mapping[str, Scorer], multipliers: Float[np.ndarray, " D"], reference: str, rank: int
) -> dict[str, Grid]:
    """The grids of the common protocols.

    A rung without known eigenvalues (a solver, a baseline) has no trace: it is given the
    reference's λ in every protocol.

    Args:
        scorers: of every rung.
        multipliers: the grid in units of the anchor's mean eigenvalue; the anchor is the GGN, or
            the reference where there is none.
        reference: the rung whose effective dimension the others take.
        rank: what traces are divided by, see ``rank_bound``.
    """
    anchor = "ggn" if "ggn" in scorers else reference
    known = {name: rung.eigenvalues for name, rung in scorers.items()}
    scale, exact = known[anchor], known[reference]
    assert scale is not None
    assert exact is not None
    equal = multipliers * scale.magnitude / rank
    dimensions = np.array([exact.effective_dimension(float(damping)) for damping in equal])
    relative, dimension = {}, {}
    for name, rung in scorers.items():
        if rung.damping_free:
            relative[name] = dimension[name] = equal
            continue
        magnitude = (known[name] or exact).magnitude
        same = np.isclose(magnitude, scale.magnitude, rtol=1e-9)
        relative[name] = equal if same else multipliers * magnitude / rank
        dimension[name] = (
            equal
            if known[name] is None or name == reference
            else np.array([_at(rung, float(d), equal[0]) for d in dimensions])
        )
    return {
        "equal": Grid("equal", equal, dict.fromkeys(scorers, equal)),
        "relative": Grid("relative", multipliers, relative),
        "effective_dimension": Grid("effective_dimension", dimensions, dimension),
    }


def _at(rung: Scorer, dimension: float, lowest: float) -> float:
    """λ at an effective dimension; a rung of lower rank gets its smallest sensible λ.

    That is the ``lowest`` of the grid where solves iterate: a smaller one would decide how many
    products all others take.
    """
    eigenvalues = rung.eigenvalues
    assert eigenvalues is not None
    known = rung.refinable and rung.spectrum is not None
    smallest = 1e-10 * float(eigenvalues.values.abs().max()) if known else lowest
    try:
        found = eigenvalues.damping_at(dimension)
        rung.check(found, "absolute")  # factored damping asks for λ of the order of its square
    except DampingError:
        return smallest
    return found
