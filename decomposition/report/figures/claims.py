"""The verdicts over the cells, by protocol, and over λ: three outcomes, in colour and by symbol."""

from __future__ import annotations

import math
import textwrap

import numpy as np
import seaborn as sns
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from decomposition.names import CHAIN
from decomposition.report.claims import (
    CONTRADICTED,
    OUTCOMES,
    Claim,
    ClaimsMap,
    Finding,
    claims,
    claims_maps,
)
from decomposition.report.figures.canvas import axes_or_new, head, hint, report_style, say_missing
from decomposition.report.names import chain_of, damping_of, protocol_label, rung_label
from decomposition.report.palette import INK, MUTED, PAPER
from decomposition.report.result import Result, labels
from decomposition.report.wording import middle_cut, superscript, telling_parts

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
        hint(bar, f"{claim.text} {one.said} in {finding.counts[one.word]} of {finding.cells} cells")
        start += size
    ax.text(column, row + 0.8, _tally(finding), fontsize=7.5, color=MUTED, va="center")


def _tally(finding: Finding) -> str:
    return " · ".join(f"{o.symbol} {finding.counts[o.word]}" for o in OUTCOMES)


def plot_claims_map(
    tree: xr.DataTree,
    claim: str = "",
    chain: str = "exact",
    rule: str = "",
    absolute: bool = False,
    ax: Axes | None = None,
) -> Axes:
    """Verdicts at one λ for all rungs: λ across; cells of one claim down, or claims of one cell.

    The rungs' marks stand at the λ of the map at which each is best; a place is empty where the
    claim has no meaning, or is not tested.

    Args:
        tree: a result.
        claim: which, of a result of many cells.
        chain: exact or paper.
        rule: the inversion; default the first of the result.
        absolute: λ itself, in place of λ in units of the GGN.
        ax: where to draw.
    """
    result = Result(tree)
    path = "/claims/map/absolute" if absolute else "/claims/map"
    maps = [m for m in claims_maps(result, path) if m.chain == chain and rule in ("", m.rule)]
    with report_style():
        if not maps:
            return say_missing(axes_or_new(ax), "no claims at single dampings in this result")
        one = maps[0]
        known = {c.key: c.text for c in claims(result) if c.key in one.sentences}
        tested = one.data["verdict"].where(one.data["p_value"].notnull())
        if result.many:
            cells = one.data["cell"].values.astype(int).tolist()
            rows = [middle_cut(n, 44) for n in telling_parts([result.names[c] for c in cells])]
            verdict = tested.sel(claim=claim).transpose("cell", one.axis).values
        else:
            rows = [textwrap.fill(text, 44) for text in known.values()]
            verdict = tested.sel(claim=list(known)).transpose("claim", one.axis).values
        height = 1.5 + (0.3 if result.many else 0.46) * len(rows)
        ax = axes_or_new(ax, 7.4, height)
        against = next((c.said(CONTRADICTED) for c in claims(result) if c.key == claim), None)
        _draw_map(ax, verdict, rows)
        values = one.data[one.axis].values
        ax.set_xticks(np.arange(len(values)) + 0.5, [_decade(m) for m in values])
        unit = "" if absolute else " / (tr G / min(P, N·C))"
        ax.set_xlabel(f"one λ for all rungs{unit}")
        ends = (*OUTCOMES[:2], against or CONTRADICTED)
        key = [Patch(facecolor=o.color, alpha=_PALE, label=str(o)) for o in ends]
        key += _draw_optima(ax, result, one)
        figure = ax.get_figure()
        if figure is not None:
            figure.legend(handles=key, loc="outside lower left", ncols=4, handlelength=1.6)
        title = one.sentences.get(claim, "Where each claim holds, and each rung at its best λ")
        head(ax, f"{title} ({one.name})" if one.name else title)
    return ax


def _decade(multiplier: float) -> str:
    """``10⁻²``; nothing between powers of ten."""
    power = math.log10(multiplier)
    return f"10{superscript(round(power))}" if abs(power - round(power)) < 0.01 else ""


def _draw_map(ax: Axes, verdict: np.ndarray, rows: list[str]) -> None:
    symbols = {one.value: one.symbol for one in OUTCOMES}
    sns.heatmap(
        verdict,
        annot=np.vectorize(lambda v: symbols.get(v, ""))(verdict).astype(object),
        fmt="",
        cmap=ListedColormap([one.color for one in sorted(OUTCOMES, key=lambda one: one.value)]),
        vmin=-1.5,
        vmax=1.5,
        alpha=_PALE,
        cbar=False,
        linewidths=1.5,
        linecolor=PAPER,
        annot_kws={"fontsize": 8.5, "color": INK},
        ax=ax,
    )
    ax.set_yticks(np.arange(len(rows)) + 0.5, rows, rotation=0, fontsize=8.5)
    ax.tick_params(length=0)
    ax.grid(visible=False)


def _draw_optima(ax: Axes, result: Result, one: ClaimsMap) -> list[Line2D]:
    """Every rung's mark at its own best λ, in its row, or above all rows of one cell; their key."""
    grid = one.data[one.axis].values.tolist()
    exact, shared = one.chain == "exact", "ggn"  # the one rung that both chains have
    known = labels(one.data["optimum"], "rung")
    rungs = [rung for rung in known if (rung in CHAIN) == exact or rung == shared]
    every = one.data["optimum"] if result.many else one.data["optimum"].expand_dims("cell")
    for row, best in enumerate(every.transpose("cell", "rung")):
        for place, rung in enumerate(rungs):
            at = float(best.sel(rung=rung))
            if at in grid:
                style = result.styles[rung]
                x = grid.index(at) + 0.5 + 0.2 * (place - (len(rungs) - 1) / 2)
                y = row + 0.86 if result.many else -0.12
                ax.plot(x, y, style.marker, color=style.color, markersize=4, clip_on=False)
    styles = {rung: result.styles[rung] for rung in rungs}
    return [
        Line2D([], [], ls="", marker=s.marker, color=s.color, label=f"best λ of {rung_label(rung)}")
        for rung, s in styles.items()
    ]
