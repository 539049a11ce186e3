"""A result as the report reads it: its cells, what is there, in order, and what is missing."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from functools import cached_property
from typing import Any

import xarray as xr

from decomposition.names import BASELINES, CHAIN, CI_BOUNDS, CROSS_TERM, RUNG_LABELS
from decomposition.report.interval import Interval
from decomposition.report.names import DAMPED, PROTOCOLS
from decomposition.report.palette import RungStyle, rung_styles
from decomposition.report.wording import isolated, middle_cut, without_folders
from decomposition.results.schema import CELL

GRID = "grid"
"""``factor`` of a study in which several coordinates vary."""

SMALL = 24
"""Cells of the largest result that is drawn in full."""

FEW = 4
"""Cells of the largest result of which each is told and drawn on its own."""

DRAWN = 16
"""Rungs that a figure of many cells holds."""


class Result:
    """Access to a result tree by group, with None for what it does not hold.

    A result of many cells is read as a whole, or one cell at a time: ``of`` is the same result in
    which every group is that of one cell.
    """

    def __init__(self, tree: xr.DataTree, cell: int | None = None) -> None:
        """Read ``tree``: whole, or the cell of that number alone."""
        self.tree = tree
        self.cell = cell
        self._groups: dict[str, xr.Dataset | None] = {}
        self._of: dict[int, Result] = {}

    def group(self, path: str) -> xr.Dataset | None:
        """The data set at ``path``, or None."""
        if path not in self._groups:
            self._groups[path] = self._read(path)
        return self._groups[path]

    def array(self, path: str, name: str) -> xr.DataArray | None:
        """The variable ``name`` of the group at ``path``, or None."""
        data = self.group(path)
        return data[name] if data is not None and name in data else None

    def known(self, path: str, name: str) -> xr.DataArray | None:
        """The variable ``name`` of the group at ``path`` if any number of it is known, or None."""
        array = self.array(path, name)
        return array if array is not None and bool(array.notnull().any()) else None

    def children(self, path: str) -> dict[str, xr.Dataset]:
        """Name → data set of the groups below ``path``."""
        node = self._node(path)
        names = [] if node is None else list(node.children)
        found = {name: self.group(f"{path}/{name}") for name in names}
        return {name: data for name, data in found.items() if data is not None}

    def attr(self, name: str) -> Any:
        """An attribute of the root; "" if absent."""
        return self.tree.attrs.get(name, "")

    def said(self, path: str, name: str) -> str:
        """An attribute of the group at ``path`` as text; "" if absent."""
        node = self._node(path)
        return "" if node is None else str(node.attrs.get(name, ""))

    def json(self, name: str) -> Any:
        """An attribute of the root that holds JSON, decoded; {} if absent."""
        return json.loads(self.tree.attrs.get(name, "{}"))

    @cached_property
    def cells(self) -> list[int]:
        """The numbers of the cells; [0] of a result that has no dimension for them."""
        if self.cell is not None:
            return [self.cell]
        for node in self.tree.subtree:
            if CELL in node.coords:
                return node.coords[CELL].values.astype(int).tolist()
        return [0]

    @property
    def many(self) -> bool:
        """Whether there are several cells to tell apart."""
        return len(self.cells) > 1

    @property
    def few(self) -> bool:
        """Whether each cell can be told and drawn on its own."""
        return len(self.cells) <= FEW

    @property
    def small(self) -> bool:
        """Whether every protocol can be drawn for every cell, at a bearable size."""
        return len(self.cells) <= SMALL

    def of(self, cell: int) -> Result:
        """One cell of it."""
        if not self.many:
            return self
        if cell not in self._of:
            self._of[cell] = Result(self.tree, cell)
            self._of[cell].rungs = self.rungs  # a rung looks the same in every cell
        return self._of[cell]

    def each(self) -> Iterator[Result]:
        """Every cell on its own."""
        return (self.of(cell) for cell in self.cells)

    @cached_property
    def names(self) -> dict[int, str]:
        """Cell → its label."""
        labelled = self._whole("/cells")
        if labelled is None or "label" not in labelled.coords:
            return {cell: f"cell {cell}" for cell in self.cells}
        known = labelled["label"].values.reshape(-1).tolist()
        numbers = [int(c) for c in labelled[CELL].values.reshape(-1)]
        found = dict(
            zip(
                numbers,
                (isolated(middle_cut(without_folders(label), 60)) for label in known),
                strict=True,
            )
        )
        return {cell: found[cell] for cell in self.cells}

    @property
    def name(self) -> str:
        """Label of the one cell that is read; "" where there is nothing to tell apart."""
        return self.names[self.cells[0]] if self.cell is not None else ""

    def coordinate(self, name: str) -> dict[int, object]:
        """Cell → value of a coordinate or a plain variable of ``/cells``; empty where unknown."""
        data = self._whole("/cells")
        if data is None or name not in data.variables or data[name].dims != (CELL,):
            return {}
        found = dict(zip(map(int, data[CELL].values), data[name].values.tolist(), strict=True))
        return {cell: found[cell] for cell in self.cells}

    @cached_property
    def inversions(self) -> list[str]:
        """How λ of the grid enters the inverses: of every cell, once each."""
        found = self.array("/cells", "inversion")
        values = [] if found is None else found.values.reshape(-1).tolist()
        return list(dict.fromkeys(str(one) or DAMPED for one in values)) or [DAMPED]

    @property
    def damped(self) -> bool:
        """Whether λI is added everywhere."""
        return self.inversions == [DAMPED]

    @cached_property
    def rungs(self) -> list[str]:
        """Every rung of the result: the chain first, then others as met, the baselines last."""
        seen: dict[str, None] = {}
        for path in ("/spectrum", "/spectral_error", "/attribution", "/shares", "/forms", "/cost"):
            data = self.group(path)
            if data is not None and "rung" in data.coords:
                seen |= dict.fromkeys(map(str, data["rung"].values.tolist()))
        others = [r for r in seen if r not in CHAIN and r not in BASELINES]
        ends = [[r for r in group if r in seen] for group in (CHAIN, BASELINES)]
        return [*ends[0], *others, *ends[1]]

    @cached_property
    def drawn(self) -> list[str]:
        """The rungs in figures of many cells: well-known ones, then others while there is room."""
        others = [r for r in self.rungs if r not in RUNG_LABELS]
        room = max(DRAWN - (len(self.rungs) - len(others)), 0)
        return [r for r in self.rungs if r not in others[room:]]

    @cached_property
    def styles(self) -> dict[str, RungStyle]:
        """Rung → style, the same for the whole report."""
        return rung_styles(self.rungs)

    @cached_property
    def protocols(self) -> list[str]:
        """The damping protocols: those known first and in their usual order."""
        for path in ("/shares", "/claims", "/trends", "/protocol_ladder"):
            data = self.group(path)
            if data is not None and "protocol" in data.coords:
                found = [str(p) for p in data["protocol"].values.tolist()]
                usual = [p for p in PROTOCOLS if p in found]
                return usual + [p for p in found if p not in PROTOCOLS]
        return []

    @cached_property
    def steps(self) -> list[str]:
        """The steps of the chain that the shares hold; the cross term is not one."""
        data = self.group("/shares")
        if data is None or "step" not in data.coords:
            return []
        return [s for s in labels(data["step"], "step") if s != CROSS_TERM]

    def layer(self, name: str, limit: int = 40) -> str:
        """A layer by its name and what it is: ``4 (Linear 32→10)``; the name alone if unknown."""
        told = self._modules.get(name, "")
        return isolated(f"{name} ({told})" if told else name, limit)

    @cached_property
    def _modules(self) -> dict[str, str]:
        """Name of a module → its kind and sizes, from the model as torch prints it."""
        found: dict[str, str] = {}
        path: list[str] = []
        for line in str(self.json("config").get("model", "")).splitlines():
            module = re.match(r"( *)\((\S+)\): (\w+)\((.*)", line)
            if module is None:
                continue
            path = [*path[: len(module[1]) // 2 - 1], module[2]]
            sizes = re.findall(r"(?:in|out)_(?:features|channels)=(\d+)", module[4])
            if not sizes:  # of a convolution
                sizes = re.findall(r"^(\d+), (\d+)", module[4])[0:1]
                sizes = [*sizes[0]] if sizes else []
            found[".".join(path)] = " ".join([module[3], "→".join(sizes)]).strip()
        return found

    @property
    def factor(self) -> str:
        """The coordinate that varies, or ``grid``."""
        return str(self.attr("factor") or GRID)

    def _read(self, path: str) -> xr.Dataset | None:
        data = self._whole(path)
        if data is None or CELL not in data.dims:
            return data
        if self.cell is not None:
            return data.sel({CELL: self.cell}, drop=True)
        return data if self.many else data.isel({CELL: 0}, drop=True)

    def _whole(self, path: str) -> xr.Dataset | None:
        node = self._node(path)
        return node.to_dataset(inherit=True) if node is not None and node.data_vars else None

    def _node(self, path: str) -> xr.DataTree | None:
        node = self.tree
        for part in path.strip("/").split("/"):
            if part not in node.children:
                return None
            node = node.children[part]
        return node


def interval(array: xr.DataArray, **where: object) -> Interval:
    """The interval at a place of an array with a ``ci_bound`` dimension.

    NaN bounds of a known estimate stay NaN: an interval that was not computed is not zero.
    """
    # a page asks for thousands of these, and sel() is slow
    indexes = array.indexes
    place = [
        indexes[name].get_loc(where[str(name)]) if name in where else slice(None)
        for name in array.dims
    ]
    bounds = array.values[tuple(place)]
    if bounds.shape != (len(CI_BOUNDS),):
        raise ValueError(f"an interval is a place of every dimension but ci_bound, got {where}")
    return Interval(*map(float, bounds))


def intervals(result: Result) -> str:
    """ "95% intervals", by the level that the result records, or "intervals"."""
    level = result.attr("ci_level")
    return f"{100 * float(level):g}% intervals" if level != "" else "intervals"


def labels(array: xr.DataArray, dim: str) -> list[str]:
    """The coordinate of ``dim`` as strings."""
    return [str(value) for value in array[dim].values.tolist()]


def plain(value: object) -> str:
    """A coordinate's value for people; "–" where it is not known."""
    if isinstance(value, float):
        return f"{value:g}" if math.isfinite(value) else "–"
    return f"{value:,}" if isinstance(value, int) else str(value)
