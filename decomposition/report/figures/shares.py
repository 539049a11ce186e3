"""Share of each step under every protocol: one look tells whether the verdict survives."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from decomposition.report.blame import UNDAMPED, blame, cases
from decomposition.report.figures.canvas import (
    axes_or_new,
    legend_below,
    report_style,
    say_missing,
)
from decomposition.report.palette import INK, MUTED, rung_styles
from decomposition.report.study import PROTOCOLS, SHARE_METRICS, STEP_LABELS, Study
from decomposition.results.schema import CHAIN, STEPS

_MARKERS = "osD^vP"


def plot_shares(tree: xr.DataTree, metric: str = "lds", ax: Axes | None = None) -> Axes:
    """A row per step, a marker per protocol; undefined protocols are named in the legend."""
    study = Study(tree)
    with report_style():
        ax = axes_or_new(ax)
        here = [p for m, p in cases(study) if m == metric]
        found = [b for p in here if (b := blame(study, metric, p)) and b.known]
        if not found:
            return say_missing(ax, "no shares in this result")
        if not any(b.defined for b in found):
            return say_missing(ax, "shares undefined: the total is within noise")
        offsets = np.linspace(-0.24, 0.24, len(found)) if len(found) > 1 else np.zeros(1)
        for blamed, offset, marker in zip(found, offsets, _MARKERS, strict=False):
            name = PROTOCOLS.get(blamed.protocol, blamed.protocol)
            name = "any damping" if metric == UNDAMPED else name
            label = name if blamed.defined else f"{name}: undefined"
            ax.plot([], [], marker=marker, color=INK, linestyle="none", label=label)
            if not blamed.defined:
                continue
            for y, step in enumerate(STEPS):
                share = blamed.shares.get(step)
                if share is None or not share.known:
                    continue
                color = rung_styles(CHAIN)[CHAIN[y + 1]].color
                ax.plot(100 * share.estimate, y + offset, marker=marker, color=color)
                if np.isfinite([share.lower, share.upper]).all():
                    bounds = [100 * share.lower, 100 * share.upper]
                    ax.plot(bounds, [y + offset] * 2, color=color, linewidth=1.4)
        ax.axvline(0, color=MUTED, linewidth=1.0)
        ax.set_yticks(range(len(STEPS)), [STEP_LABELS[s] for s in STEPS])
        ax.set_ylim(len(STEPS) - 0.5, -0.5)
        ax.set_xlabel("share of the total (%)")
        ax.set_title(f"Shares: {SHARE_METRICS.get(metric, metric)}")
        ax.grid(axis="y", visible=False)
        ax.tick_params(axis="y", length=0)
        legend_below(ax, columns=3)
    return ax
