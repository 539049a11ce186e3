"""Section 8: how to read the page."""

from __future__ import annotations

from decomposition.report.content import Items
from decomposition.report.grid.cells import Grid
from decomposition.report.grid.claims import OUTCOMES
from decomposition.report.grid.content import StudySection
from decomposition.report.study import intervals
from decomposition.report.wording import joined


def reading(grid: Grid) -> StudySection:
    """The terms, each in a sentence or two."""
    ends = joined([str(o) for o in OUTCOMES])
    items = (
        "A cell is one model at one checkpoint: a data set, an architecture, a number of epochs "
        "and a seed, with everything retrained and scored for it alone.",
        f"A verdict is the outcome of a test: {ends}. Not resolved means that the data do not "
        "decide, not that there is no effect.",
        "LDS is the linear datamodelling score: the rank correlation, over retrained models, of "
        "the measured output of a query and what the influence scores predict for it.",
        "A rung is one approximation of the Hessian; a step leads from a rung to the next and its "
        "drop is what the LDS loses on the way. A share is drop / total drop. It is undefined "
        "where the total is within noise, and negative where a step helps; neither is hidden.",
        "Damping is a treatment: equal is the same λ on every rung, relative the same multiple of "
        "each rung's mean eigenvalue, equal effective dimension the same Σ μ/(μ+λ), tuned each "
        "rung's best λ, chosen on masks that do not score it.",
        "The noise ceiling is the LDS that a perfect predictor would reach against retrained "
        "models that are themselves noisy.",
        f"Numbers in brackets are {intervals(grid)} from resamples of masks and queries, the same "
        "for every rung; they do not speak of data sets or architectures that are not here.",
        "Tables can be sorted by any column and downloaded as CSV, figures as SVG or PNG.",
    )
    return StudySection("reading", "How to read this page", (Items(items),))
