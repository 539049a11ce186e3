"""Section 7: what the cells are, how well their models do, and how good the truth is."""

from __future__ import annotations

import numpy as np

from decomposition.report.content import Cell, Table, Text, missing
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
    """One row per cell; what is the same in all of them is said once."""
    if not grid.cells:
        return StudySection("cells", TITLE, (missing("The study holds no cells."),))
    named = {name: grid.coordinate(name) for name in COORDINATES}
    varying = {n: found for n, found in named.items() if len(set(map(str, found.values()))) > 1}
    values = {name: array for name in VALUES if (array := grid.of_cells(name)) is not None}
    rows: list[tuple[Cell, ...]] = []
    for cell in grid.cells:
        row: list[Cell] = [grid.names[cell]]
        row += [_coordinate(name, found[cell]) for name, found in varying.items()]
        for array in values.values():
            one = array.sel(cell=cell)
            row.append(interval(one) if one.dims else _known(float(one)))
        rows.append(tuple(row))
    heads = [*(COORDINATES[n] for n in varying), *(VALUES[n] for n in values)]
    table = Table("cells", "Every cell of the study", ("cell", *heads), tuple(rows))
    same = [
        f"{COORDINATES[name]}: {plain(_coordinate(name, found[grid.cells[0]]))}"
        for name, found in named.items()
        if found and name not in varying
    ]
    shared = Text(f"The same in every cell – {'; '.join(same)}.")
    return StudySection("cells", TITLE, (shared, table) if same else (table,))


def _coordinate(name: str, value: object) -> Cell:
    if name == "examples" and value == 0:
        return "all"
    if name == "hidden":
        return architecture(value) or "its own"
    return value if isinstance(value, int | float) else str(value) or "its own"


def _known(value: float) -> Cell:
    return value if np.isfinite(value) else None
