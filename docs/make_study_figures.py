"""Make the README's figures and table of a study: python docs/make_study_figures.py STUDY."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from decomposition.report.drawing import draw
from decomposition.report.figures.canvas import report_style
from decomposition.report.grid import Grid, claims_markdown, layout, open_study
from decomposition.report.grid.figures import plot_cell_levels, plot_cell_shares, plot_claims

HERE = Path(__file__).parent


def main(study: str, protocol: str = "tuned", folder: str = str(HERE)) -> None:
    """Write study_claims.png, study_levels.png, study_shares.png and study_claims.md.

    Args:
        study: study.nc or its folder.
        protocol: damping protocol of the levels and the shares.
        folder: where to write; by default beside this script.
    """
    tree = open_study(study)
    out = Path(folder)
    for name, axes in (
        ("claims", plot_claims(tree)),
        ("levels", side_by_side(tree, plot_cell_levels, protocol)),
        ("shares", side_by_side(tree, plot_cell_shares, protocol)),
    ):
        path = out / f"study_{name}.png"
        path.write_bytes(draw(axes, name).png)
        print(f"wrote {path}, {path.stat().st_size // 1000} kB")
    (out / "study_claims.md").write_text(claims_markdown(tree), "utf-8")


def side_by_side(tree: xr.DataTree, plot: Callable[..., Axes], protocol: str) -> Axes:
    """Every checkpoint of a figure in one picture; the first Axes of it."""
    columns = len(layout(Grid(tree)).columns)
    alone = plot(tree, protocol=protocol).get_figure()
    height = alone.get_figheight() if isinstance(alone, Figure) else 4.0
    with report_style():
        figure = Figure(figsize=(3.4 * columns + 0.6, height))
        figure.set_layout_engine("constrained", w_pad=0.1, h_pad=0.06)
        every = figure.subplots(1, columns, squeeze=False)[0]
    for column, ax in enumerate(every):
        plot(tree, protocol=protocol, column=column, ax=ax)
        if column:
            ax.set_yticklabels([])
    return every[0]


if __name__ == "__main__":
    main(*sys.argv[1:])
