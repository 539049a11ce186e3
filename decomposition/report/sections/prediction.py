"""Section 7: does spectral error predict attribution quality?"""

from __future__ import annotations

from functools import partial
from typing import Any, cast

import numpy as np
from scipy.stats import spearmanr

from decomposition.report.content import Block, Cell, Figure, Section, Table, Text, missing
from decomposition.report.figures.prediction import paired, plot_prediction
from decomposition.report.study import METRIC_LABELS, Study, labels
from decomposition.report.wording import fixed


def prediction(study: Study) -> Section:
    """Rank correlation of every spectral metric with the LDS, and one picture of it."""
    title = "Does spectral error predict attribution quality?"
    values = study.array("/spectral_error", "value")
    metrics = labels(values, "metric") if values is not None else []
    found = {m: c for m in metrics if (c := _correlation(study, m)) is not None}
    if not found:
        text = "Spectral errors and LDS of three rungs or more are needed, and are not here."
        return Section("prediction", title, (missing(text),))
    rows: list[tuple[Cell, ...]] = [
        (METRIC_LABELS.get(m, m), rho, cells, "λ and rung" if cells > rungs else "rung")
        for m, (rho, cells, rungs) in found.items()
    ]
    blocks: list[Block] = [
        Text(
            "Spearman correlation between a rung's spectral error against H and its LDS: −1 means "
            "that the error orders the rungs perfectly (+1 for the overlaps, where high is good). "
            "The points share their models and queries, so the number describes this study and "
            "is given without an interval."
        )
    ]
    shown = next((m for m in ("damped_inverse_queries", "relative_frobenius") if m in found), None)
    if shown is not None:
        blocks.append(_figure(study, shown, found[shown][0]))
    columns = ("metric", "Spearman with LDS", "points", "a point per")
    blocks.append(Table("prediction", "Spectral error and LDS", columns, tuple(rows)))
    return Section("prediction", title, tuple(blocks))


def _correlation(study: Study, metric: str) -> tuple[float, int, int] | None:
    data = paired(study, metric)
    if data is None:
        return None
    error, lds = data["error"].values.ravel(), data["lds"].values.ravel()
    keep = np.isfinite(error) & np.isfinite(lds)
    if keep.sum() < 3 or np.ptp(error[keep]) == 0 or np.ptp(lds[keep]) == 0:
        return None
    rungs = int(data["error"].notnull().any("damping").sum())
    statistic = cast(Any, spearmanr(error[keep], lds[keep])).statistic
    return float(statistic), int(keep.sum()), rungs


def _figure(study: Study, metric: str, rho: float) -> Figure:
    data = paired(study, metric)
    assert data is not None
    rows: list[tuple[Cell, ...]] = []
    for rung in labels(data["error"], "rung"):
        for damping in data["damping"].values.tolist():
            cell = data.sel(rung=rung, damping=damping)
            if np.isfinite(float(cell["error"])):
                rows.append((rung, damping, float(cell["error"]), float(cell["lds"])))
    name = METRIC_LABELS.get(metric, metric)
    return Figure(
        "prediction",
        f"LDS against spectral error ({name}): Spearman correlation {fixed(rho, 2)}.",
        f"A point per rung and λ; Spearman correlation {fixed(rho, 2)}. Errors of zero (the "
        "reference itself) are not drawn.",
        partial(plot_prediction, study.tree, metric=metric),
        Table("prediction-data", name, ("rung", "λ", "error", "LDS"), tuple(rows)),
    )
