"""Figures of the report, one a file: each takes a result tree and returns matplotlib Axes."""

from decomposition.report.figures.contributions import plot_contributions
from decomposition.report.figures.layers import plot_layers
from decomposition.report.figures.lds_curves import plot_lds_curves
from decomposition.report.figures.mismatch import plot_mismatch
from decomposition.report.figures.orders import plot_orders
from decomposition.report.figures.policies import plot_policies
from decomposition.report.figures.prediction import plot_prediction
from decomposition.report.figures.queries import plot_queries
from decomposition.report.figures.resolution import plot_resolution
from decomposition.report.figures.shares import plot_shares
from decomposition.report.figures.spectra import plot_spectra
from decomposition.report.figures.spectral_waterfall import plot_spectral_waterfall
from decomposition.report.figures.waterfall import plot_waterfall

__all__ = [
    "plot_contributions",
    "plot_layers",
    "plot_lds_curves",
    "plot_mismatch",
    "plot_orders",
    "plot_policies",
    "plot_prediction",
    "plot_queries",
    "plot_resolution",
    "plot_shares",
    "plot_spectra",
    "plot_spectral_waterfall",
    "plot_waterfall",
]
