"""LDS levels of all nodes under all protocols, from one or several base models, resampled.

All protocols and nodes are linearised together and share their resamples, so a difference
between two protocols (the damping mismatch) is as paired as one between two nodes. ``/levels``
of a result holds them: shares, verdicts and claims are made from it, of one cell and of many.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr
from jaxtyping import Float, Int

from decomposition.scores.bootstrap import (
    Draws,
    Resamples,
    VarianceParts,
    bootstrap,
    variance_parts,
)
from decomposition.scores.effects import known
from decomposition.scores.lds import ScoreError, linearise

SOURCES = ("masks", "queries", "base_models")
"""What the variance of a level comes from."""


@dataclass(frozen=True)
class Levels:
    """Cross-fitted levels with their joint resamples, paired over protocols and nodes."""

    protocols: tuple[str, ...]
    nodes: tuple[str, ...]
    masks: int
    """M, distinct ones."""
    draws: Draws
    """(protocols, nodes)."""
    variance: Float[np.ndarray, "sources protocols nodes nodes"]
    """Covariance between nodes under each protocol, by what it comes from."""
    per_base: Float[np.ndarray, "K protocols nodes"]
    """Levels of every base model."""

    def of(self, protocol: str, nodes: Sequence[str] | None = None) -> Draws:
        """Levels (nodes,) under one protocol."""
        return self.draws[self.protocols.index(protocol), self._positions(nodes)]

    def parts(self, protocol: str, nodes: Sequence[str] | None = None) -> VarianceParts:
        """Variance of the same."""
        chosen = self._positions(nodes)
        return VarianceParts(*self.variance[:, self.protocols.index(protocol)])[chosen]

    def _positions(self, nodes: Sequence[str] | None) -> Int[np.ndarray, " nodes"]:
        chosen = self.nodes if nodes is None else nodes
        return np.array([self.nodes.index(node) for node in chosen])

    def dataset(self) -> xr.Dataset:
        """Group ``/levels``."""
        data = draws_dataset(
            self.draws, {"protocol": list(self.protocols), "rung": list(self.nodes)}
        )
        dims = ("source", "protocol", "rung", "other_rung")
        data["variance"] = (dims, self.variance)
        data["of_base_model"] = (("base_model", "protocol", "rung"), self.per_base)
        data.attrs["masks"] = self.masks
        return data.assign_coords(
            source=list(SOURCES),
            other_rung=list(self.nodes),
            base_model=np.arange(len(self.per_base)),
        )

    @staticmethod
    def read(data: xr.Dataset) -> Levels:
        """What ``dataset`` has made."""
        return Levels(
            tuple(map(str, data["protocol"].values)),
            tuple(map(str, data["rung"].values)),
            int(data.attrs["masks"]),
            read_draws(data),
            data["variance"].values,
            data["of_base_model"].values,
        )


def joint_levels(
    chosen: Sequence[Float[np.ndarray, "protocols nodes M Q"]],
    truths: Sequence[Float[np.ndarray, "M Q"]],
    folds: Int[np.ndarray, " M"],
    weights: Resamples,
    protocols: Sequence[str],
    nodes: Sequence[str],
) -> Levels:
    """Levels from each base model's predictions at the chosen dampings (one entry per model).

    A node without predictions under a protocol has a level of NaN there.

    Raises:
        ScoreError: no base model, shapes that do not fit, or a value that is not finite.
    """
    if not chosen or chosen[0].shape[:2] != (len(protocols), len(nodes)):
        shape = chosen[0].shape if chosen else None
        raise ScoreError(
            f"levels of {len(protocols)} protocols × {len(nodes)} rungs need predictions of "
            f"that shape from at least one base model, got {shape}"
        )
    linear = linearise([known(one) for one in chosen], list(truths), folds)
    parts = variance_parts(linear)
    shape = (len(protocols), len(nodes))
    under = [np.arange(len(nodes)) + i * len(nodes) for i in range(len(protocols))]
    variance = [
        [part[np.ix_(rows, rows)] for rows in under]
        for part in (parts.masks, parts.queries, parts.studies)
    ]
    return Levels(
        tuple(protocols),
        tuple(nodes),
        len(truths[0]),
        bootstrap(linear, weights),
        np.array(variance),
        linear.per_study.reshape(-1, *shape),
    )


def draws_dataset(draws: Draws, coordinates: Mapping[str, Sequence]) -> xr.Dataset:
    """``estimate`` and ``draws`` (in single precision) over these coordinates."""
    dims = tuple(coordinates)
    return xr.Dataset(
        {
            "estimate": (dims, draws.estimate),
            "draws": (("draw", *dims), draws.draws.astype(np.float32)),
        },
        {**coordinates, "draw": np.arange(len(draws.draws))},
    )


def read_draws(data: xr.Dataset, name: str = "") -> Draws:
    """What ``draws_dataset`` has made; or the scalar ``name`` with its ``name_draws``."""
    estimate, draws = (name, f"{name}_draws") if name else ("estimate", "draws")
    return Draws(
        np.asarray(data[estimate].values, dtype=float),
        data[draws].values.astype(np.float64),
    )


def shared_protocols(levels: Sequence[Levels]) -> list[str]:
    """Protocols that all cells have, in their order."""
    return [p for p in levels[0].protocols if all(p in one.protocols for one in levels)]


def read_levels(trees: Sequence[xr.DataTree]) -> list[Levels] | None:
    """``/levels`` of every cell; None where one has none."""
    if not all("levels" in tree.children for tree in trees):
        return None
    return [Levels.read(tree["levels"].to_dataset()) for tree in trees]
