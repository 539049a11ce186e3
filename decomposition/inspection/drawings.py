"""All figures of a spectral inspection, by file name."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import xarray as xr
from matplotlib.axes import Axes

from decomposition.report.figures.pairs import (
    plot_cosines,
    plot_davis_kahan,
    plot_gradient_energy,
    plot_mismatch_by_decade,
    plot_mismatch_parts,
    plot_score_error,
    plot_subspace_overlap,
    plot_weyl,
)
from decomposition.report.figures.spectra import (
    plot_cumulative,
    plot_density,
    plot_effective_dimension,
    plot_outliers,
    plot_rank_curve,
    plot_training_spectra,
)

BY_SCOPE: dict[str, tuple[str, Callable[..., Axes]]] = {
    "eigenvalues": ("rank", plot_rank_curve),
    "density": ("density", plot_density),
    "cumulative": ("rank", plot_cumulative),
    "effective_dimension": ("effective_dimension", plot_effective_dimension),
    "outliers": ("outliers", plot_outliers),
}
"""Figure → (section, function), drawn for the whole matrix and for every block."""

PLAIN: dict[str, tuple[str, Callable[..., Axes]]] = {
    "mismatch_by_decade": ("mismatch_by_decade", plot_mismatch_by_decade),
    "mismatch_parts": ("mismatch", plot_mismatch_parts),
    "gradient_energy": ("gradient_energy", plot_gradient_energy),
    "score_error": ("score_error", plot_score_error),
    "weyl": ("movement", plot_weyl),
    "davis_kahan": ("movement", plot_davis_kahan),
    "training": ("training", plot_training_spectra),
}
"""Figure → (section, function), drawn once."""


def figures(tree: xr.DataTree) -> Iterator[tuple[str, Axes]]:
    """(file name without ending, Axes) of every figure that the tree has the section of."""
    for name, (section, plot) in BY_SCOPE.items():
        if section in tree.children:
            data = tree.children[section].to_dataset()
            for i, scope in enumerate(map(str, data["scope"].values)):
                yield f"{name}_{_safe(scope, i)}", plot(data, scope)
    for name, (section, plot) in PLAIN.items():
        if section in tree.children:
            yield name, plot(tree.children[section].to_dataset())
    if "overlap" in tree.children:
        data = tree.children["overlap"].to_dataset()
        yield "overlap", plot_subspace_overlap(data["overlap"], str(data.attrs["reference"]))
    if "cosines" in tree.children:
        data = tree.children["cosines"].to_dataset()
        reference = str(data.attrs["reference"])
        for rung in map(str, data["rung"].values):
            matrix = data["squared_cosine"].sel(rung=rung)
            yield f"cosines_{rung}", plot_cosines(matrix, rung, reference)


def _safe(scope: str, position: int) -> str:
    """A block's name as part of a file name; its position where the name does not serve."""
    plain = scope.replace(".", "_")
    if plain == "whole":
        return plain
    named = plain.isascii() and plain.replace("_", "").isalnum()
    return f"block_{plain}" if named else f"block_number_{position}"
