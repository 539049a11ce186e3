"""Shares under every damping protocol and along every order, as one table of coloured cells."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from decomposition.report.figures.canvas import axes_or_new, report_style, say_missing
from decomposition.report.figures.heat import draw_cells, signed_heat
from decomposition.report.orders import MEAN, order_names, readings
from decomposition.report.palette import INK
from decomposition.report.study import PROTOCOLS, SHARE_METRICS, STEP_LABELS, Study
from decomposition.report.wording import percent, signed, span

_GAP = 0.85
"""Height of a protocol's heading, in rows."""


def plot_orders(tree: xr.DataTree, metric: str = "lds", ax: Axes | None = None) -> Axes:
    """A row per protocol and order, a column per step; the largest of each row is outlined.

    The colour is the drop, comparable over all rows; the number is the share, or the drop itself
    where shares are undefined.
    """
    study = Study(tree)
    found = readings(study, metric)
    with report_style():
        if not found:
            return say_missing(axes_or_new(ax), "no shares along several orders in this result")
        steps = list(found[0].drops)
        tops: list[float] = []
        headings: dict[str, float] = {}
        for row, reading in enumerate(found):
            at = tops[-1] + 1 if tops else 0.0
            if row == 0 or reading.protocol != found[row - 1].protocol:
                headings[reading.protocol] = at
                at += _GAP
            tops.append(at)
        ax = axes_or_new(ax, height=0.9 + 0.24 * (tops[-1] + 1))
        values = np.array([[r.drops[s].estimate for s in steps] for r in found])
        largest = np.array([[r.largest == s for s in steps] for r in found])

        def text(row: int, column: int) -> str:
            reading = found[row]
            if not reading.defined:
                return signed(reading.drops[steps[column]].estimate)
            return f"{100 * reading.shares[steps[column]].estimate:.0f}%".replace("-", "−")

        def full(row: int, column: int) -> str:
            step, reading = steps[column], found[row]
            share = percent(reading.shares[step]) if reading.defined else "undefined"
            drop = span(reading.drops[step])
            return f"{STEP_LABELS.get(step, step)}: drop {drop}, share {share}"

        draw_cells(ax, values, signed_heat(values), text, full, largest, tops)
        for protocol, top in headings.items():
            defined = any(r.defined for r in found if r.protocol == protocol)
            more = "" if defined else ": drops shown"
            name = f"{PROTOCOLS.get(protocol, protocol)}{more}"
            ax.text(0.04, top + 0.5, name, fontweight="bold", va="center", fontsize=8.5, color=INK)
        names = order_names(study) | {MEAN: "mean"}
        ax.set_yticks([top + 0.5 for top in tops], [names[r.order] for r in found])
        ax.set_xticks(
            np.arange(len(steps)) + 0.5, [STEP_LABELS.get(s, s) for s in steps], fontsize=8.5
        )
        ax.set_title(f"{SHARE_METRICS.get(metric, metric)}: share by protocol and order")
    return ax
