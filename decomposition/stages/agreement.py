"""Agreement of every rung's scores with the reference rung's, over dampings."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import xarray as xr

from decomposition.attribution.agreement import agreement
from decomposition.attribution.scorer import Scorer

TOP = 10


def add_agreement(
    data: xr.Dataset, scorers: Mapping[str, Scorer], reference: str, negative: str
) -> None:
    """Spearman over training examples and top-10 Jaccard, at every second damping of ``data``.

    The curves are smooth in log λ; in between is NaN.
    """
    nodes, dampings = list(scorers), data["damping"].values
    table = np.full((2, len(nodes), len(dampings)), np.nan)
    for j in range(0, len(dampings), 2):
        exact = scorers[reference].scores(float(dampings[j]), negative)
        for i, node in enumerate(nodes):
            if node == reference:
                table[:, i, j] = 1.0
                continue
            mine = scorers[node].scores(float(dampings[j]), negative)
            found = agreement(mine, exact, min(TOP, mine.shape[1]))
            table[:, i, j] = found.spearman, found.top_jaccard
    data.coords["agreement_metric"] = ["spearman", "top10_jaccard"]
    data["agreement"] = (("agreement_metric", "rung", "damping"), table)
