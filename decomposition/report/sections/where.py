"""Section 5: where the loss lives, by layer, spectral band and query, with the examples."""

from __future__ import annotations

from functools import partial

import numpy as np
import xarray as xr

from decomposition.report.content import Block, Figure, Section, Table, Text, missing
from decomposition.report.figures.layers import layer_errors, plot_layers
from decomposition.report.palette import rung_label
from decomposition.report.sections.contributions import contributions
from decomposition.report.sections.galleries import galleries
from decomposition.report.sections.queries import queries, worst_first
from decomposition.report.study import Study, labels
from decomposition.report.wording import isolated, number
from decomposition.results.schema import CHAIN


def where(study: Study) -> Section:
    """Layers, bands and queries by what they lose, and the queries that change most."""
    blocks: list[Block] = []
    if study.array("/base_models", "level") is not None:
        blocks.append(
            Text(
                "This section and the curves over damping describe the first base model alone; "
                "their intervals cover masks and queries, not base models.",
                kind="note",
            )
        )
    blocks += contributions(study)
    errors = layer_errors(study)
    if errors is None:
        blocks.append(missing("Spectral errors by layer are not in this result."))
    else:
        blocks.append(_layers(errors, study))
    blocks += queries(study)
    blocks += galleries(study, worst_first(study)) or [
        missing("The result holds no images of its examples.")
    ]
    return Section("where", "Where the loss lives", tuple(blocks))


def _layers(errors: xr.DataArray, study: Study) -> Figure:
    rungs = labels(errors, "rung")
    shown = CHAIN[-1] if CHAIN[-1] in rungs else rungs[-1]
    last = errors.sel(rung=shown)
    worst = labels(errors, "block")[int(np.nanargmax(last.values))]
    rows = tuple(
        (block, *(float(errors.sel(block=block, rung=r)) for r in rungs))
        for block in labels(errors, "block")
    )
    finding = (
        f"The layer with the largest error of {rung_label(shown)} is {isolated(worst)} "
        f"({number(float(last.max()))})."
    )
    return Figure(
        "layers",
        f"Relative Frobenius error by layer and rung. {finding}",
        f"Error of each layer's own block; what lies between layers is the cross-layer step. "
        f"{finding}",
        partial(plot_layers, study.tree),
        Table("layers", "Error by layer", ("layer", *map(rung_label, rungs)), rows),
    )
