"""Figures of the report: each function takes a result tree and returns matplotlib Axes.

``cell`` names one cell of many; without it a figure is of the only cell, or of all.
"""

from decomposition.report.figures.bands import (
    plot_at_damping,
    plot_levels,
    plot_orders,
    plot_shares,
)
from decomposition.report.figures.claims import plot_claims, plot_claims_map
from decomposition.report.figures.cost import plot_cost
from decomposition.report.figures.curves import (
    plot_factor,
    plot_lds_curves,
    plot_policies,
    plot_resolution,
)
from decomposition.report.figures.differences import plot_beside, plot_regret
from decomposition.report.figures.heat import plot_contributions, plot_layers, plot_queries
from decomposition.report.figures.pairs import plot_mismatch
from decomposition.report.figures.scatter import (
    plot_error_and_level,
    plot_frobenius,
    plot_prediction,
    plot_residual,
)
from decomposition.report.figures.spectra import plot_counts, plot_density, plot_spectra
from decomposition.report.figures.trends import plot_trends
from decomposition.report.figures.waterfall import (
    plot_ladder,
    plot_spectral_waterfall,
    plot_waterfall,
)

__all__ = [
    "plot_at_damping",
    "plot_beside",
    "plot_claims",
    "plot_claims_map",
    "plot_contributions",
    "plot_cost",
    "plot_counts",
    "plot_density",
    "plot_error_and_level",
    "plot_factor",
    "plot_frobenius",
    "plot_ladder",
    "plot_layers",
    "plot_lds_curves",
    "plot_levels",
    "plot_mismatch",
    "plot_orders",
    "plot_policies",
    "plot_prediction",
    "plot_queries",
    "plot_regret",
    "plot_residual",
    "plot_resolution",
    "plot_shares",
    "plot_spectra",
    "plot_spectral_waterfall",
    "plot_trends",
    "plot_waterfall",
]
