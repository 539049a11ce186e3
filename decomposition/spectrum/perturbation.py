"""How far a step moves eigenvalues and subspaces, against what perturbation theory allows.

With C = R + Δ and eigenvalues in descending order,

    Weyl               |μ_i − ν_i| ≤ ‖Δ‖₂
    Hoffman–Wielandt   Σ_i (μ_i − ν_i)² ≤ ‖Δ‖²_F
    Davis–Kahan        ‖sin Θ(V_k, U_k)‖_F ≤ min(‖Δ‖_F, √k ‖Δ‖₂) / δ_k,

where δ_k = max(ν_k − μ_{k+1}, μ_k − ν_{k+1}) separates the k leading eigenvalues of one matrix
from the rest of the other's (Davis & Kahan 1970, doi 10.1137/0707001; Stewart & Sun 1990, ch. V).
Without a gap, or above the trivial √k, the bound says nothing and is √k. Movements far below a
bound mean that the step's error is spread over directions that the spectrum does not feel.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr

from decomposition.chain.build import CHAIN, STEPS
from decomposition.curvature.operator import Curvature, Diagonalised
from decomposition.errors import DecompositionError
from decomposition.linalg import to_numpy
from decomposition.spectrum.distances import squared_distance
from decomposition.spectrum.norms import norms_from
from decomposition.spectrum.subspaces import subspace_overlap

CHAIN_STEPS: dict[str, tuple[str, str]] = dict(zip(STEPS, itertools.pairwise(CHAIN), strict=True))
"""Step → (rung before, rung after)."""
NORM_STEPS = 96
"""Lanczos steps of the norm of a difference that is too large to decompose for it."""


def movements(
    rungs: Mapping[str, Curvature],
    steps: Mapping[str, tuple[str, str]] = CHAIN_STEPS,
    subspaces: bool = True,
) -> xr.Dataset:
    """What every step does to the spectrum, with the bounds.

    Args:
        rungs: name → curvature.
        steps: step → (before, after); steps whose rungs are not there are left out.
        subspaces: whether to compute the angles (two eigenbases per step) as well.

    Returns:
        With dimension ``step``: moved(step, index) = |μ_i − ν_i| in descending order;
        spectral_norm(step), the Weyl bound, and spectral_error(step), by which it may be too low
        (0 where exact); frobenius_norm(step) and moved_norm(step), the two sides of
        Hoffman–Wielandt; weyl_ratio(step) = max moved / bound. With ``subspaces`` also
        sine(step, k) = ‖sin Θ‖_F, gap(step, k) = δ_k and sine_bound(step, k).

    Raises:
        DecompositionError: none of the steps can be taken, or a rung has no eigenvectors.
    """
    taken = {name: pair for name, pair in steps.items() if set(pair) <= set(rungs)}
    if not taken:
        raise DecompositionError(
            f"no step has both its rungs: there are {', '.join(rungs)}, the steps are "
            f"{', '.join(f'{a} → {b}' for a, b in steps.values())}"
        )
    rows = []
    for before, after in taken.values():
        r, c = _diagonalised(rungs, before), _diagonalised(rungs, after)
        rows.append(_movement(r, c, subspaces))
    return xr.concat(rows, "step", coords="minimal").assign_coords(
        step=list(taken),
        before=("step", [pair[0] for pair in taken.values()]),
        after=("step", [pair[1] for pair in taken.values()]),
    )


def _movement(r: Diagonalised, c: Diagonalised, subspaces: bool) -> xr.Dataset:
    nu = to_numpy(r.basis_values().sort(descending=True).values)
    mu = to_numpy(c.basis_values().sort(descending=True).values)
    moved = np.abs(mu - nu)
    norm = norms_from(r, {"after": c}, NORM_STEPS)["after"].spectral
    spectral, error, frobenius = float(norm), norm.error, squared_distance(c, r) ** 0.5
    data = xr.Dataset(
        {
            "moved": ("index", moved),
            "spectral_norm": spectral,
            "spectral_error": error,
            "frobenius_norm": frobenius,
            "moved_norm": float(np.linalg.norm(moved)),
            "weyl_ratio": float(moved.max()) / spectral if spectral else np.nan,
        },
        {"index": np.arange(1, len(mu) + 1)},
    )
    if not subspaces:
        return data
    k = np.arange(1, len(mu))
    overlap = subspace_overlap(c, r, order="value").values[:-1]
    gap = np.maximum(nu[:-1] - mu[1:], mu[:-1] - nu[1:])
    allowed = np.minimum(frobenius, np.sqrt(k) * (spectral + error))
    trivial = np.sqrt(np.minimum(k, len(mu) - k))
    # eigenvalues have an error of their own: within it no gap is known (the zeros of two matrices)
    rounding = np.finfo(float).eps * len(mu) * max(np.abs(nu).max(), np.abs(mu).max())
    clear = gap - 2.0 * rounding
    bound = np.where(clear > 0, allowed / np.where(clear > 0, clear, 1.0), np.inf)
    return data.assign(
        sine=("k", np.sqrt(np.maximum(k * (1.0 - overlap), 0.0))),
        gap=("k", gap),
        sine_bound=("k", np.minimum(bound, trivial)),
    ).assign_coords(k=k)


def _diagonalised(rungs: Mapping[str, Curvature], name: str) -> Diagonalised:
    found = rungs[name].eigenbasis
    if found is None:
        raise DecompositionError(f"rung {name!r} has no eigenvectors to compare")
    return found


def lattice_steps(rungs: Sequence[str]) -> dict[str, tuple[str, str]]:
    """The chain's steps and the lattice's others, those whose rungs are there."""
    every = CHAIN_STEPS | {
        "cross_layer of H": ("hessian", "block_hessian"),
        "linearisation of blocks": ("block_hessian", "block_ggn"),
        "eigenbasis of H": ("block_hessian", "ekfac_hessian"),
        "linearisation in the basis": ("ekfac_hessian", "ekfac"),
    }
    return {name: pair for name, pair in every.items() if set(pair) <= set(rungs)}
