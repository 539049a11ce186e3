"""Agreement of every rung's scores with the reference rung's, over dampings."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import xarray as xr

from decomposition.scores.agreement import agreement
from decomposition.scores.scorer import Scorer

TOP = 10


def add_agreement(
    data: xr.Dataset, scorers: Mapping[str, Scorer], reference: str, negative: str
) -> None:
    """Spearman over training examples and top-10 Jaccard, at every second damping of ``data``.

    The curves are smooth in log λ; in between is NaN, as where a rung was not solved. A reference
    that was solved nowhere gives way to the first rung that was; the attribute
    ``agreement_with`` names it.
    """
    dampings = data["damping"].values.tolist()
    shown = range(0, len(dampings), 2)

    def scores(node: str) -> dict[int, np.ndarray]:
        found = {j: scorers[node].scores(dampings[j], negative) for j in shown}
        return {j: one for j, one in found.items() if np.isfinite(one).all()}

    exact = scores(reference)
    for node in scorers:
        if exact:
            break
        reference, exact = node, scores(node)
    table = np.full((2, len(scorers), len(dampings)), np.nan)
    for i, node in enumerate(scorers):
        if node == reference:
            table[:, i, list(exact)] = 1.0
            continue
        for j, mine in scores(node).items():
            if j in exact:
                found = agreement(mine, exact[j], min(TOP, mine.shape[1]))
                table[:, i, j] = found.spearman, found.top_jaccard
    data.coords["agreement_metric"] = ["spearman", f"top{TOP}_jaccard"]
    data["agreement"] = (("agreement_metric", "rung", "damping"), table)
    data.attrs["agreement_with"] = reference


def agreement_group(
    scorers: Mapping[str, Scorer], dampings: np.ndarray, reference: str, negative: str
) -> xr.Dataset:
    """``/attribution`` where there is no truth: agreement alone."""
    data = xr.Dataset(coords={"rung": list(scorers), "damping": dampings})
    add_agreement(data, scorers, reference, negative)
    return data
