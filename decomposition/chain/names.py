"""Names of rungs and steps."""

from __future__ import annotations

CHAIN = ("hessian", "ggn", "block_ggn", "ekfac", "kfac")
"""Rungs in chain order."""
STEPS = ("linearisation", "cross_layer", "eigenbasis", "eigenvalues")
"""Step i leads from rung i to rung i + 1."""
LATTICE = ("hessian", "ggn", "block_hessian", "block_ggn", "ekfac_hessian", "ekfac", "kfac")
"""All feasible nodes of source × coupling × structure."""
