"""Section 7: what the cells are, how well their models do, and how good the truth is."""

from __future__ import annotations

import numpy as np

from decomposition.report.content import Cell, Table, missing
from decomposition.report.grid.cells import Grid, plain
from decomposition.report.grid.content import StudySection
from decomposition.report.grid.layout import architecture
from decomposition.report.study import interval

TITLE = "The cells"
COORDINATES = {
    "dataset": "data",
    "hidden": "hidden widths",
    "activation": "activation",
    "epoch": "epoch",
    "parameters": "parameters P",
    "examples": "examples",
    "label_noise": "label noise",
    "alpha": "α",
    "randomness": "training randomness",
    "target": "target",
    "seed": "seed",
}
VALUES = {
    "train_loss": "training loss",
    "query_loss": "query loss",
    "query_accuracy": "query accuracy",
    "ceiling": "noise ceiling",
    "reliability": "reliability",
    "seconds": "seconds",
}


def cells(grid: Grid) -> StudySection:
    """One row per cell; columns that the study does not hold are left out."""
    if not grid.cells:
        return StudySection("cells", TITLE, (missing("The study holds no cells."),))
    named = {name: grid.coordinate(name) for name in COORDINATES}
    values = {name: grid.of_cells(name) for name in VALUES}
    rows: list[tuple[Cell, ...]] = []
    for cell in grid.cells:
        row: list[Cell] = [grid.names[cell]]
        row += [_coordinate(name, found[cell]) for name, found in named.items() if found]
        for array in values.values():
            if array is not None:
                found = array.sel(cell=cell)
                row.append(interval(found) if found.dims else _known(float(found)))
        rows.append(tuple(row))
    heads = [COORDINATES[name] for name, found in named.items() if found]
    heads += [VALUES[name] for name, array in values.items() if array is not None]
    table = Table("cells", "Every cell of the study", ("cell", *heads), tuple(rows))
    return StudySection("cells", TITLE, (table,))


def _coordinate(name: str, value: object) -> Cell:
    if name == "hidden":
        return architecture(value) or "its own"
    if isinstance(value, int) and not (name == "examples" and value == 0):
        return value
    return "all" if name == "examples" and value == 0 else plain(value) or "its own"


def _known(value: float) -> Cell:
    return value if np.isfinite(value) else None
