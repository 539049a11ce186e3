"""Rungs that iteration did not solve at every damping, where that bears on the verdict."""

from __future__ import annotations

import numpy as np

from decomposition.report.palette import rung_label
from decomposition.report.study import Study, labels
from decomposition.report.wording import joined, number
from decomposition.results.schema import BASELINES


def held_back(study: Study) -> dict[str, float]:
    """Rung → smallest λ at which it was solved, if its LDS is best there and smaller ones exist."""
    mean, edge = study.array("/attribution", "lds_mean"), study.array("/attribution", "edge")
    best = study.array("/attribution", "best_damping")
    if mean is None or edge is None or best is None:
        return {}
    grid = mean["damping"].values
    found = {}
    for rung in (
        r for r in labels(edge, "rung") if r not in BASELINES and r in labels(mean, "rung")
    ):
        known = np.isfinite(mean.sel(rung=rung, ci_bound="estimate").values)
        if not known.any() or known[0] or int(edge.sel(rung=rung)) != 1:
            continue
        first = int(known.argmax())
        if int(np.abs(np.log(grid / float(best.sel(rung=rung)))).argmin()) == first:
            found[rung] = float(grid[first])
    return found


def held_back_sentences(study: Study) -> list[str]:
    """What a reader of tuned levels must know; empty where every optimum could be reached."""
    found = held_back(study)
    if not found:
        return []
    where = joined(
        [f"{rung_label(rung)} only from {number(value)} on" for rung, value in found.items()]
    )
    it = "it is" if len(found) == 1 else "each of them is"
    return [
        f"Not every λ could be solved: {where}, and {it} best right there. At smaller λ, where "
        "other rungs may be best, it might do better. Under tuned λ it is held back by its solver, "
        "not by its curvature: read the steps at equal λ, or spend more products (--krylov-steps)."
    ]
