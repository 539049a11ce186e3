"""The verdicts over the cells: a bar per claim and protocol, divided into the three outcomes."""

from __future__ import annotations

import textwrap

import xarray as xr
from matplotlib.axes import Axes
from matplotlib.patches import Patch

from decomposition.report.claims import OUTCOMES, Claim, Finding, claims
from decomposition.report.figures.canvas import axes_or_new, hint, report_style, say_missing
from decomposition.report.names import chain_of, damping_of, protocol_label
from decomposition.report.palette import INK, MUTED
from decomposition.report.result import Result

_PALE = 0.4
"""Opacity of the bars; the symbols in them tell the outcomes apart without colour."""


def plot_claims(tree: xr.DataTree, chain: str = "", ax: Axes | None = None) -> Axes:
    """A row per claim, a column per protocol: the share of cells with each outcome, the verdict
    over all of them above it.

    Args:
        tree: a result.
        chain: whose protocols: "" for the exact chain, ``paper`` for the paper's.
        ax: where to draw.
    """
    found = claims(Result(tree))
    columns = [p for p in (found[0].findings if found else {}) if chain_of(p) == chain]
    with report_style():
        ax = axes_or_new(ax, 2.6 + 1.3 * max(len(columns), 1), 1.1 + 0.72 * max(len(found), 1))
        if not columns:
            return say_missing(ax, "no claims in this result")
        for row, claim in enumerate(found):
            for column, protocol in enumerate(columns):
                _place(ax, row, column, claim, claim.findings[protocol])
        ax.set_xlim(-0.05, len(columns))
        ax.set_ylim(len(found) - 0.1, -0.15)
        heads = [textwrap.fill(protocol_label(damping_of(p)), 16) for p in columns]
        ax.set_xticks([c + 0.45 for c in range(len(columns))], heads)
        ax.xaxis.tick_top()
        names = [textwrap.fill(claim.text, 34) for claim in found]
        ax.set_yticks([r + 0.4 for r in range(len(found))], names, fontsize=8.5)
        ax.tick_params(length=0)
        ax.grid(visible=False)
        for side in ax.spines.values():
            side.set_visible(False)
        handles = [Patch(facecolor=o.color, alpha=_PALE, label=str(o)) for o in OUTCOMES]
        figure = ax.get_figure()
        if figure is not None:
            figure.legend(handles=handles, loc="outside lower left", ncols=3, handlelength=1.6)
    return ax


def _place(ax: Axes, row: int, column: int, claim: Claim, finding: Finding) -> None:
    if finding.outcome is None:
        ax.text(column + 0.45, row + 0.4, "not tested", ha="center", va="center", color=MUTED)
        return
    ax.text(column, row + 0.24, str(finding.outcome), fontsize=8.5, color=INK, va="center")
    start = float(column)
    for one in OUTCOMES:
        size = 0.9 * finding.counts[one.word] / max(finding.cells, 1)
        if not size:
            continue
        (bar,) = ax.barh(row + 0.53, size, left=start, height=0.28, color=one.color, alpha=_PALE)
        if size > 0.08:
            middle = (start + size / 2, row + 0.53)
            ax.text(*middle, one.symbol, ha="center", va="center", fontsize=8, color=INK)
        hint(bar, f"{claim.text} {one.word} in {finding.counts[one.word]} of {finding.cells} cells")
        start += size
    ax.text(column, row + 0.8, _tally(finding), fontsize=7.5, color=MUTED, va="center")


def _tally(finding: Finding) -> str:
    return " · ".join(f"{o.symbol} {finding.counts[o.word]}" for o in OUTCOMES)
