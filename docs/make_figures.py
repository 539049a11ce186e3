"""Make the figures of the docs from results: make_figures.py [RESULT [LARGE]].

Those of the study are always made, from docs/study.nc; with a result those of the README too.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from decomposition import open_result
from decomposition.report import claims_markdown
from decomposition.report.drawing import png
from decomposition.report.figures import (
    plot_claims,
    plot_levels,
    plot_orders,
    plot_shares,
    plot_waterfall,
)
from decomposition.report.figures.canvas import report_style
from decomposition.report.layout import layout
from decomposition.report.result import Result

HERE = Path(__file__).parent


def main(result: str | None = None, large: str | None = None) -> None:
    """Write every figure whose result is given beside this script, and study_claims.md."""
    study = open_result(HERE / "study.nc")
    figures = {
        "study_claims": plot_claims(study),
        "study_levels": side_by_side(study, plot_levels),
        "study_shares": side_by_side(study, plot_shares),
    }
    if result is not None:
        tree = open_result(result)
        figures |= {"waterfall": plot_waterfall(tree, "tuned"), "shares": plot_orders(tree)}
    if large is not None:
        figures["large_waterfall"] = plot_waterfall(open_result(large), protocol="equal")
    for name, axes in figures.items():
        path = HERE / f"{name}.png"
        path.write_bytes(png(axes))
        print(f"wrote {path}, {path.stat().st_size // 1000} kB")
    (HERE / "study_claims.md").write_text(claims_markdown(study), "utf-8")


def side_by_side(tree: xr.DataTree, plot: Callable[..., Axes], protocol: str = "tuned") -> Axes:
    """Every checkpoint of a figure in one picture; the first Axes of it."""
    columns = len(layout(Result(tree)).columns)
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
