"""Names of rungs and steps."""

from __future__ import annotations

from dataclasses import dataclass

CHAIN = ("hessian", "ggn", "block_ggn", "ekfac", "kfac")
"""Rungs in chain order; lattice nodes, baselines and the user's own rungs stand beside them."""
STEPS = ("linearisation", "cross_layer", "eigenbasis", "eigenvalues")
"""``STEPS[i]`` leads from ``CHAIN[i]`` to ``CHAIN[i + 1]``; a positive drop is a degradation."""
LATTICE = ("hessian", "ggn", "block_hessian", "block_ggn", "ekfac_hessian", "ekfac", "kfac")
"""All feasible nodes of source × coupling × structure."""
BASELINES = ("identity", "random")
"""Rungs that no curvature went into."""


@dataclass(frozen=True)
class Step:
    """One change of an approximation, from one rung to the next."""

    name: str
    before: str
    after: str
