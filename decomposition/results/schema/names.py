"""The version of the schema and the names that every part of the tree uses."""

from __future__ import annotations

SCHEMA_VERSION = 1
"""Written to the root; raised when a reader of the old schema could misread the new one."""

CI_BOUNDS = ("lower", "estimate", "upper")
"""The coordinate of ``ci_bound``; an exact quantity repeats its value three times."""

CHAIN = ("hessian", "ggn", "block_ggn", "ekfac", "kfac")
"""Rungs of the chain in order; lattice nodes, baselines and the user's own rungs stand beside."""

BASELINES = ("identity", "random")
"""Rungs that no curvature went into."""

STEPS = ("linearisation", "cross_layer", "eigenbasis", "eigenvalues")
"""``STEPS[i]`` leads from ``CHAIN[i]`` to ``CHAIN[i + 1]``; a positive drop is a degradation."""

CROSS_TERM = "cross_term"
"""Entry of ``step`` for 2⟨H−G, G−K⟩, which is not a step; NaN where it does not apply."""

EXACT_METRICS = ("frobenius_squared", "damped_inverse_squared")
"""Metrics of ``/shares`` without sampling error (the LDS has one)."""
