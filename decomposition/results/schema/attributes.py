"""Attributes of the tree, and what a file must have to be a result."""

from __future__ import annotations

ATTRIBUTES = {
    "schema_version": "int; SCHEMA_VERSION of the writer",
    "created_at": "ISO 8601 time in UTC",
    "library_version": "of this package",
    "command": "what to type to make the result again",
    "config": "JSON; the whole configuration of the run",
    "versions": "JSON; package → version",
    "device": "where the run computed",
    "dtype": "precision of the curvature",
    "seeds": "JSON; purpose → seed",
    "problem": "name of the problem",
    "parameters": "int; P",
    "examples": "int; N",
    "queries": "int; number of queries",
    "ci_level": "float; level of the intervals, such as 0.95",
    "notes": "JSON list of warnings: degenerate basis, optimum on an edge, low ceiling, …",
    "timings": "JSON; stage → seconds",
    "hardware": "JSON; processor, cores, memory",
}
"""Attributes of the root."""

ATTRIBUTION_ATTRIBUTES = {
    "target": "loss, margin, leave_one_out or pbrf: what the scores are held against",
    "measure": "what a level is: LDS over subsets, or Spearman over examples that are removed",
    "ceiling_source": "split_half, second_order or deterministic",
    "ceiling_masks": "int; masks behind the ceiling",
    "pbrf_damping": "float; λ of the proximal Bregman responses",
    "pbrf_residual": "float; largest gradient left, relative to the first",
    "pbrf_unconverged": "int; responses that are left out",
}
"""Optional attributes of ``/attribution``."""

SHARES_ATTRIBUTES = {
    "verdict": "JSON; protocol → {candidate, resolved, probability, more_masks, text} for the LDS",
}
"""Optional attributes of ``/shares``; ``more_masks`` is null where masks cannot resolve it."""

JSON_ATTRIBUTES: dict[str, type] = {
    "config": dict,
    "versions": dict,
    "seeds": dict,
    "notes": list,
    "timings": dict,
    "hardware": dict,
}
"""The attributes that hold JSON, and what of."""

NUMBERS = ("schema_version", "parameters", "examples", "queries", "ci_level")
"""The attributes that are numbers; all others of ATTRIBUTES are strings."""

REQUIRED_ATTRIBUTES = ("schema_version", "created_at", "library_version", "command", "problem")
"""Without these a file is not a result."""
