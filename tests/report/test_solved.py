"""A rung that iteration did not solve where it might be best is said to be held back."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from decomposition.report.page import report_html
from decomposition.report.result import Result
from decomposition.report.verdict import held_back, held_back_sentences
from tests.results.synthetic import synthetic


def planted(first: int, best: int, edge: int) -> xr.DataTree:
    """H has an LDS from damping ``first`` on, and is best at ``best``."""
    tree = synthetic()
    data = tree["attribution"].to_dataset().copy(deep=True)
    data["lds_mean"].loc[{"rung": "hessian", "damping": data["damping"].values[:first]}] = np.nan
    data["best_damping"].loc[{"rung": "hessian"}] = data["damping"].values[best]
    data["edge"].loc[{"rung": "hessian"}] = edge
    tree["attribution"] = xr.DataTree(data)
    return tree


@pytest.mark.parametrize(
    ("first", "best", "edge", "held"),
    [(2, 2, 1, True), (2, 3, 0, False), (0, 0, 1, False), (2, -1, 1, False)],
)
def test_held_back_by_its_solver(first: int, best: int, edge: int, held: bool) -> None:
    """Only if smaller dampings exist, none of them was solved, and the best is the first one."""
    tree = planted(first, best, edge)
    study = Result(tree)
    damping = float(tree["attribution"]["damping"][first])
    assert held_back(study) == ({"hessian": damping} if held else {})
    said = held_back_sentences(study)
    assert bool(said) == held
    page = " ".join(report_html(tree).split())
    assert ("held back by its solver" in page) == held
