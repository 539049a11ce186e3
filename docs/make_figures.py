"""Make the figures of the docs from results: make_figures.py [RESULT [LARGE]].

Those of the studies are always made, from docs/study.nc, docs/as_published.nc and
docs/damping_rules.nc; with a result those of the README too.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from decomposition import open_result
from decomposition.names import CHAIN
from decomposition.report import claims_markdown
from decomposition.report.drawing import png
from decomposition.report.figures import (
    plot_claims,
    plot_claims_map,
    plot_levels,
    plot_orders,
    plot_regret,
    plot_shares,
    plot_waterfall,
)
from decomposition.report.figures.canvas import report_style
from decomposition.report.layout import layout
from decomposition.report.names import rung_label
from decomposition.report.result import Result
from decomposition.shares.regret import CLOSE

HERE = Path(__file__).parent


def main(result: str | None = None, large: str | None = None) -> None:
    """Write every figure whose result is given beside this script, and the tables of studies."""
    study, rules = open_result(HERE / "study.nc"), open_result(HERE / "damping_rules.nc")
    published = open_result(HERE / "as_published.nc")
    figures = {
        "as_published_claims": plot_claims(published),
        "as_published_map": plot_claims_map(published, "overall"),
        "damping_rules": plot_regret(rules),
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
    (HERE / "damping_rules.md").write_text(regret_markdown(rules), "utf-8")


def regret_markdown(tree: xr.DataTree) -> str:
    """What every rule loses on each rung of the chain: mean over cells, and how often little."""
    data, rungs = tree["regret"].to_dataset(inherit=False), list(reversed(CHAIN))
    rows = ["| damping | " + " | ".join(map(rung_label, rungs)) + " |", "|---" * 6 + "|"]
    for protocol in data["protocol"].values:
        cells = []
        for rung in rungs:
            low, mean, high = data["mean"].sel(protocol=protocol, rung=rung).values
            upper = data["regret"].sel(protocol=protocol, rung=rung, ci_bound="upper")
            close = f"{int((upper < CLOSE).sum())} of {upper.size}"
            known = f"{mean:.3f} [{low:.3f}, {high:.3f}], {close}" if mean == mean else "–"
            cells.append(known.replace("-", "−"))
        rows.append(f"| `{protocol}` | " + " | ".join(cells) + " |")
    made = f"Made on {tree.attrs['created_at'][:10]} by `{tree.attrs['command']}`."
    return "\n".join([*rows, "", made, ""])


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
