"""A computed cell read back: its levels as draws, ready for statistics over several cells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from decomposition.scores.bootstrap import Draws
from decomposition.study.cell import Cell


@dataclass(frozen=True)
class ScoredCell:
    """One cell with its result."""

    cell: Cell
    tree: xr.DataTree

    @property
    def _levels(self) -> xr.Dataset:
        return self.tree["levels"].to_dataset()

    @property
    def multipliers(self) -> NDArray[np.float64]:
        """Dampings of ``at_dampings``, in multiples of tr G / min(P, N·C)."""
        return self.tree["dampings"].to_dataset()["multiplier"].values

    @property
    def rungs(self) -> tuple[str, ...]:
        """Nodes that have a level."""
        return tuple(map(str, self._levels["rung"].values))

    @property
    def protocols(self) -> tuple[str, ...]:
        """Damping protocols."""
        return tuple(map(str, self._levels["protocol"].values))

    def levels(self, protocol: str, rungs: Sequence[str] | None = None) -> Draws:
        """Levels (rungs,) under a protocol."""
        data = self._levels.sel(protocol=protocol)
        if rungs is not None:
            data = data.sel(rung=list(rungs))
        return Draws(data["estimate"].values, data["draws"].values.astype(np.float64))

    def at_dampings(self) -> Draws:
        """Levels (multipliers, chain rungs) at one λ for all rungs."""
        data = self.tree["dampings"].to_dataset()
        return Draws(data["estimate"].values, data["draws"].values.astype(np.float64))

    def single(self, name: str) -> Draws | None:
        """``ceiling`` or ``reliability`` (), where there is one."""
        data = self._levels
        if name not in data.data_vars:
            return None
        draws = data[f"{name}_draws"].values.astype(np.float64)
        return Draws(np.asarray(data[name].values, dtype=float), draws)

    @property
    def errors(self) -> xr.Dataset:
        """Spectral errors, dampings, losses."""
        return self.tree["errors"].to_dataset()
