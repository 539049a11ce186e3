"""What more masks would buy: width of the interval of every step's drop against masks."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from decomposition.report.figures.canvas import (
    axes_or_new,
    legend_below,
    log_scale,
    report_style,
    say_missing,
)
from decomposition.report.palette import MUTED, rung_styles
from decomposition.report.study import PROTOCOLS, STEP_LABELS, Study, labels
from decomposition.results.schema import CHAIN, STEPS


def masks_at_hand(study: Study) -> int | None:
    """How many subsets were retrained; None where the result holds no bank."""
    masks = study.array("/bank", "masks")
    return None if masks is None else masks.sizes["mask"]


def plot_resolution(tree: xr.DataTree, protocol: str = "equal", ax: Axes | None = None) -> Axes:
    """A line per step, dotted beyond the masks at hand; rings are the study's own intervals."""
    study = Study(tree)
    width = study.array("/shares/resolution", "width")
    with report_style():
        ax = axes_or_new(ax, height=4.1)
        if width is None or protocol not in labels(width, "protocol"):
            return say_missing(ax, "no curve of interval widths in this result")
        amount, at_hand = width["masks"].values.astype(float), masks_at_hand(study)
        measured = amount <= (at_hand if at_hand is not None else np.inf)
        drop = study.array("/shares", "drop")
        for step in labels(width, "chain_step"):
            style = rung_styles(CHAIN)[CHAIN[STEPS.index(step) + 1]]
            line = width.sel(protocol=protocol, chain_step=step).values
            look = {"color": style.color, "marker": style.marker, "markersize": 3.5}
            label = STEP_LABELS.get(step, step)
            ax.plot(amount[measured], line[measured], linestyle="-", label=label, **look)
            beyond = np.flatnonzero(~measured)
            if beyond.size:
                joint = np.append(max(beyond[0] - 1, 0), beyond)
                ax.plot(amount[joint], line[joint], linestyle=":", linewidth=1.2, color=style.color)
            if drop is not None and at_hand is not None:
                place = {"metric": "lds", "protocol": protocol, "step": step}
                low, _, high = drop.sel(place).values
                ax.plot(at_hand, high - low, "o", ms=8, mfc="none", color=style.color)
        if at_hand is not None:
            ax.axvline(at_hand, color=MUTED, linewidth=1.0, label="masks at hand")
        log_scale(ax, "x")
        ax.set_ylim(bottom=0)
        ax.set_xlabel("masks (retrained subsets); dotted: extrapolated")
        ax.set_ylabel("width of the interval of the drop (LDS)")
        ax.set_title(f"What more masks buy, {PROTOCOLS.get(protocol, protocol)}")
        legend_below(ax, columns=2)
    return ax
