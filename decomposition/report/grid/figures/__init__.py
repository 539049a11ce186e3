"""Figures of a study's report: each takes a study's tree and returns matplotlib Axes."""

from decomposition.report.grid.figures.claims import plot_claims
from decomposition.report.grid.figures.errors import plot_error_and_level
from decomposition.report.grid.figures.factor import plot_factor
from decomposition.report.grid.figures.frobenius import plot_frobenius
from decomposition.report.grid.figures.ladder import plot_ladder
from decomposition.report.grid.figures.levels import plot_cell_levels
from decomposition.report.grid.figures.shares import plot_cell_shares
from decomposition.report.grid.figures.trends import plot_trends

__all__ = [
    "plot_cell_levels",
    "plot_cell_shares",
    "plot_claims",
    "plot_error_and_level",
    "plot_factor",
    "plot_frobenius",
    "plot_ladder",
    "plot_trends",
]
