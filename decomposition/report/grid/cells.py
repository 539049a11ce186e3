"""A study's tree as its report reads it: the cells, the protocols, and what is there."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import xarray as xr

from decomposition.report.palette import RUNG_LABELS, RungStyle, rung_styles
from decomposition.report.study import PROTOCOLS, STEP_LABELS, Study, labels
from decomposition.results.schema import BASELINES, CHAIN, CROSS_TERM

GRID_FACTOR = "grid"
"""``factor`` of a study in which several coordinates vary."""

SMALL = 24
"""Cells of the largest study that is drawn in full."""

DRAWN = 16
"""Rungs that a figure holds."""

CHAIN_MARK = ", "
"""Between the name of a chain and that of a damping protocol."""

_MARKERS = "Hd8x+1234"


@dataclass(frozen=True)
class Grid(Study):
    """Access to a study's tree by group, with None for what it does not hold."""

    @cached_property
    def data(self) -> xr.Dataset:
        """``/cells``; empty where the study holds none."""
        found = self.group("/cells")
        return found if found is not None else xr.Dataset()

    def of_cells(self, name: str) -> xr.DataArray | None:
        """The variable ``name`` of ``/cells`` if any of it is known, or None."""
        if name not in self.data:
            return None
        array = self.data[name]
        return array if array.dtype.kind not in "f" or np.isfinite(array.values).any() else None

    @cached_property
    def cells(self) -> list[int]:
        """The cells' numbers in the study's order."""
        return [int(c) for c in self.data["cell"].values] if "cell" in self.data.coords else []

    @cached_property
    def names(self) -> dict[int, str]:
        """Cell → its label."""
        if "label" not in self.data.coords:
            return {c: f"cell {c}" for c in self.cells}
        return dict(zip(self.cells, map(str, self.data["label"].values.tolist()), strict=True))

    @cached_property
    def protocols(self) -> list[str]:
        """The damping protocols, the study's first one leading."""
        for path in ("/cells", "/claims", "/trends", "/ladder"):
            data = self.group(path)
            if data is not None and "protocol" in data.coords:
                return [str(p) for p in data["protocol"].values.tolist()]
        return []

    @cached_property
    def rungs(self) -> list[str]:
        """The rungs: the chain first, then others as met, the baselines last."""
        if "rung" not in self.data.coords:
            return []
        found = labels(self.data["rung"], "rung")
        ends = [[r for r in group if r in found] for group in (CHAIN, BASELINES)]
        others = [r for r in found if r not in CHAIN and r not in BASELINES]
        return [*ends[0], *others, *ends[1]]

    @cached_property
    def drawn(self) -> list[str]:
        """The rungs in figures of levels: well-known ones, then others while there is room."""
        others = [r for r in self.rungs if r not in RUNG_LABELS]
        room = max(DRAWN - (len(self.rungs) - len(others)), 0)
        return [r for r in self.rungs if r not in others[room:]]

    @cached_property
    def styles(self) -> dict[str, RungStyle]:
        """Rung → style, the same for the whole report; markers tell equal colours apart."""
        styles, met = rung_styles(self.rungs), set()
        for rung, style in styles.items():
            if (style.color, style.marker) in met:
                spare = next((m for m in _MARKERS if (style.color, m) not in met), style.marker)
                styles[rung] = style = replace(style, marker=spare)
            met.add((style.color, style.marker))
        return styles

    @cached_property
    def steps(self) -> list[str]:
        """The steps of the chain that the study holds; the cross term is not one."""
        if "step" not in self.data.coords:
            return []
        return [s for s in labels(self.data["step"], "step") if s != CROSS_TERM]

    @property
    def factor(self) -> str:
        """The coordinate that varies, or ``grid``."""
        return str(self.attr("factor") or GRID_FACTOR)

    @property
    def small(self) -> bool:
        """Whether every mark can carry a hint, and every protocol be drawn, at a bearable size."""
        return len(self.cells) <= SMALL

    def coordinate(self, name: str) -> dict[int, object]:
        """Cell → value of a coordinate; empty where the study does not hold it."""
        if name not in self.data.coords or self.data[name].dims != ("cell",):
            return {}
        return dict(zip(self.cells, self.data[name].values.tolist(), strict=True))


def protocol_label(protocol: str) -> str:
    """A protocol's name for people; ``paper, tuned`` is the paper's chain under tuned damping."""
    chain, _, damping = protocol.rpartition(CHAIN_MARK)
    name = PROTOCOLS.get(damping, damping)
    return f"{chain}{CHAIN_MARK}{name}" if chain else name


def chain_of(protocol: str) -> str:
    """What stands before the damping in a protocol's name; "" for the exact chain."""
    return protocol.rpartition(CHAIN_MARK)[0]


def chain_title(chain: str) -> str:
    """The name of a chain as a heading."""
    return f"{chain or 'exact'} chain".capitalize()


def damping_of(protocol: str) -> str:
    """The damping protocol in a protocol's name."""
    return protocol.rpartition(CHAIN_MARK)[2]


def step_label(step: str) -> str:
    """A step's name for people."""
    return STEP_LABELS.get(step, step.replace("_", " "))


def plain(value: object) -> str:
    """A coordinate's value for people; "–" where it is not known."""
    if isinstance(value, float):
        return f"{value:g}" if math.isfinite(value) else "–"
    return f"{value:,}" if isinstance(value, int) else str(value)
