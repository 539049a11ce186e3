"""The report of a study, many results in one tree: its claims, levels, shares and trends.

``write_study_report`` makes the page and ``claims_markdown`` the table for a README, both from
``study.nc`` alone; the figures are in ``report.grid.figures``.
"""

from decomposition.report.grid.cells import Grid
from decomposition.report.grid.claims import Claim, Finding, claims
from decomposition.report.grid.layout import Layout, layout
from decomposition.report.grid.markdown import claims_markdown
from decomposition.report.grid.open import open_study
from decomposition.report.grid.page import write_study_report

__all__ = [
    "Claim",
    "Finding",
    "Grid",
    "Layout",
    "claims",
    "claims_markdown",
    "layout",
    "open_study",
    "write_study_report",
]
