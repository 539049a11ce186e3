"""LDS levels of all nodes under all protocols, from one or several base models, resampled.

All protocols and nodes are linearised together and share their resamples, so a difference
between two protocols (the damping mismatch) is as paired as one between two nodes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from decomposition.scores.bootstrap import (
    Draws,
    Resamples,
    VarianceParts,
    bootstrap,
    variance_parts,
)
from decomposition.scores.lds import ScoreError
from decomposition.scores.linearised import linearise


@dataclass(frozen=True)
class Levels:
    """Cross-fitted levels with their joint resamples, paired over protocols and nodes."""

    protocols: tuple[str, ...]
    nodes: tuple[str, ...]
    masks: int
    draws: Draws
    """(protocols, nodes)."""
    variance: VarianceParts
    """Of all cells, protocols × nodes flattened."""
    per_query: Float[np.ndarray, "protocols nodes Q"]
    """Cross-fitted LDS of every query, mean over base models."""
    per_base: Float[np.ndarray, "K protocols nodes"]
    """Levels of every base model."""

    def of(self, protocol: str, nodes: Sequence[str] | None = None) -> Draws:
        """Levels (nodes,) under one protocol."""
        return self.draws[self.protocols.index(protocol), self._positions(nodes)]

    def parts(self, protocol: str, nodes: Sequence[str] | None = None) -> VarianceParts:
        """Variance of the same."""
        offset = self.protocols.index(protocol) * len(self.nodes)
        return self.variance[offset + self._positions(nodes)]

    def _positions(self, nodes: Sequence[str] | None) -> Int[np.ndarray, " nodes"]:
        chosen = self.nodes if nodes is None else nodes
        return np.array([self.nodes.index(node) for node in chosen])


def joint_levels(
    chosen: Sequence[Float[np.ndarray, "protocols nodes M Q"]],
    truths: Sequence[Float[np.ndarray, "M Q"]],
    folds: Int[np.ndarray, " M"],
    weights: Resamples,
    protocols: Sequence[str],
    nodes: Sequence[str],
) -> Levels:
    """Levels from each base model's predictions at the chosen dampings (one entry per model).

    Raises:
        ScoreError: no base model, shapes that do not fit, or a value that is not finite.
    """
    if not chosen or chosen[0].shape[:2] != (len(protocols), len(nodes)):
        shape = chosen[0].shape if chosen else None
        raise ScoreError(
            f"levels of {len(protocols)} protocols × {len(nodes)} rungs need predictions of "
            f"that shape from at least one base model, got {shape}"
        )
    linear = linearise(list(chosen), list(truths), folds)
    shape = (len(protocols), len(nodes))
    return Levels(
        tuple(protocols),
        tuple(nodes),
        len(truths[0]),
        bootstrap(linear, weights),
        variance_parts(linear),
        linear.per_query.reshape(*shape, -1),
        linear.per_study.reshape(-1, *shape),
    )
