"""Cross-fitted levels of all nodes under every damping protocol, from one bootstrap.

All protocols and nodes are linearised together and share their resamples, so a difference
between two protocols (the damping mismatch) is as paired as one between two nodes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from decomposition.attribution.bootstrap import (
    Draws,
    Resamples,
    VarianceParts,
    bootstrap,
    variance_parts,
)
from decomposition.attribution.lds import ScoreError
from decomposition.attribution.linearised import LinearisedLDS, linearise
from decomposition.attribution.ranks import Floats
from decomposition.shares.crossfit import Choice, at_choice, choose, fold_lds

TUNED = "tuned"
"""The protocol under which every node has its own setting; all others share one."""


@dataclass(frozen=True)
class ProtocolLevels:
    """Levels of all nodes under all protocols."""

    protocols: tuple[str, ...]
    nodes: int
    choices: dict[str, Choice]
    """The settings of each protocol; of the first study where there are several."""
    linear: LinearisedLDS
    """Cells (protocols, nodes); `per_query` is the cross-fitted ρ of every query."""
    draws: Draws
    """(protocols, nodes)."""
    variance: VarianceParts
    """Of all cells, protocols × nodes flattened."""

    def levels(self, protocol: str) -> Draws:
        """Levels (nodes,) under one protocol."""
        return self.draws[self.protocols.index(protocol)]

    def parts(self, protocol: str) -> VarianceParts:
        """Variance parts (nodes, nodes) under one protocol."""
        start = self.protocols.index(protocol) * self.nodes
        return self.variance[np.arange(start, start + self.nodes)]


def protocol_levels(
    grids: Mapping[str, Floats] | list[Mapping[str, Floats]],
    truth: Floats | list[Floats],
    folds: NDArray[np.intp],
    weights: Resamples,
    reference: int = 0,
) -> ProtocolLevels:
    """Choose the damping of every protocol on the other folds, score it, and resample.

    `grids` maps a protocol to its predictions (nodes, D, M, Q) over that protocol's own grid;
    `equal` and `tuned` may be the same array. `truth` is (M, Q), `folds` (M,). The common
    protocols take the optimum of node `reference`. Lists hold one entry per base model.

    Raises:
        ScoreError: shapes do not fit, a value is not finite, or there is no protocol.
    """
    studies = grids if isinstance(grids, list) else [grids]
    truths = truth if isinstance(truth, list) else [truth]
    if not studies or not studies[0]:
        raise ScoreError("no damping protocol to score: give at least one grid of predictions")
    protocols = tuple(studies[0])
    chosen, first_choices = [], {}
    for number, (study, measured) in enumerate(zip(studies, truths, strict=True)):
        by_fold: dict[int, NDArray[np.float64]] = {}
        levels = []
        for protocol in protocols:
            prediction = study[protocol]
            if id(prediction) not in by_fold:
                by_fold[id(prediction)] = fold_lds(prediction, measured, folds)
            own = protocol == TUNED
            choice = choose(by_fold[id(prediction)], None if own else reference)
            levels.append(at_choice(prediction, choice, folds))
            if number == 0:
                first_choices[protocol] = choice
        chosen.append(np.stack(levels))
    linear = linearise(chosen, truths, folds)
    return ProtocolLevels(
        protocols,
        chosen[0].shape[1],
        first_choices,
        linear,
        bootstrap(linear, weights),
        variance_parts(linear),
    )
