"""One colour, line style and marker per rung, the same in every figure and on the page.

The hues are Okabe and Ito's, darkened to a contrast of 3:1 on white; the line style and the
marker tell the rungs apart without colour. Each colour has a counterpart for a dark page, put in
place by CSS variables, so that a figure is drawn once.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from decomposition.names import CHAIN, STEPS

INK, MUTED, GRID, PAPER = "#1a1d23", "#5b626e", "#d9dce2", "#fffffe"
_LIGHT_TO_DARK = {INK: "#e8eaee", MUTED: "#a4abb8", GRID: "#3a404b", PAPER: "#14171c"}


@dataclass(frozen=True)
class RungStyle:
    """How one rung looks everywhere."""

    color: str
    """Hex colour on a light page."""
    dash: str | tuple[float, tuple[float, ...]]
    """Matplotlib line style."""
    marker: str
    """Matplotlib marker."""


_MARKERS = "Hd8P*phX"
"""For rungs whose colour is taken; all are filled."""

_SOLID, _DASH, _DOT = "-", (0.0, (6.0, 2.0)), (0.0, (1.0, 1.5))
_DASH_DOT, _LONG, _DOUBLE = (0, (6, 2, 1, 2)), (0, (11.0, 3.0)), (0, (6, 2, 1, 2, 1, 2))

_KNOWN = {
    "hessian": (RungStyle("#20242c", _SOLID, "o"), "#f2f3f5"),
    "ggn": (RungStyle("#0072b2", _DASH, "s"), "#4fb0ea"),
    "block_ggn": (RungStyle("#008a64", _DASH_DOT, "^"), "#2fc496"),
    "ekfac": (RungStyle("#c07800", _LONG, "D"), "#f0ac33"),
    "kfac": (RungStyle("#d04a02", _DOT, "v"), "#ff7f45"),
    "block_hessian": (RungStyle("#2f8fce", _DOUBLE, "P"), "#7cc6f5"),
    "ekfac_hessian": (RungStyle("#b0508a", (0, (3, 1)), "X"), "#e38fc0"),
    "identity": (RungStyle("#767c87", (0, (4, 4)), "d"), "#9098a5"),
    "random": (RungStyle("#868c96", (0, (1, 4)), "8"), "#7f8794"),
}
_METHODS = {
    "diagonal": (RungStyle("#8c6d1f", (0, (2, 2)), "X"), "#d9bd6a"),
    "kfac_trace": (RungStyle("#e0518c", (0, (4, 1)), "<"), "#ff8fba"),
    "block_basis_kfac_values": (RungStyle("#2c8f5a", (0, (5, 2, 1, 2)), "p"), "#7fd9a6"),
    "kfac_basis_block_values": (RungStyle("#b5651d", (0, (2, 1)), "8"), "#f2b27a"),
    "kpsvd": (RungStyle("#9c2f2f", (0, (7, 1, 1, 1)), "p"), "#ee7a7a"),
    "low_rank": (RungStyle("#3f6fd8", (0, (3, 2)), "h"), "#8fb0ff"),
    "projected": (RungStyle("#7b61c9", (0, (1, 1)), "H"), "#b7a3ff"),
    "projected_layers": (RungStyle("#a04fc0", (0, (5, 1, 1, 1)), "8"), "#d79af0"),
    "datainf": (RungStyle("#5a7f2b", (0, (9, 2)), "d"), "#a9d36c"),
    "neumann": (RungStyle("#1b8a9c", (0, (6, 1, 2, 1)), ">"), "#5fd0e2"),
    "cg": (RungStyle("#486581", (0, (10, 1)), "*"), "#9fbcd8"),
}
"""Approximations beside the chain (decomposition.chain.approximations), whatever arguments."""
_SPARE = (
    (RungStyle("#5b3fa8", (0, (8, 2, 2, 2)), "*"), "#a98ff0"),
    (RungStyle("#8a1f4d", (0, (3, 1, 1, 1)), "p"), "#e0709c"),
    (RungStyle("#6f7300", (0, (5, 1)), "h"), "#c3c74a"),
    (RungStyle("#0f7c86", (0, (2, 1)), "<"), "#4cc3ce"),
    (RungStyle("#7a4a1d", (0, (9, 2, 1, 1)), ">"), "#c99566"),
)


def rung_styles(rungs: Iterable[str]) -> dict[str, RungStyle]:
    """Rung → style; no two look alike while there are markers left.

    The user's own rungs take the spare colours in their order, then round again with others of
    the markers; so does a method beside the chain that is there again with other arguments.
    """
    styles: dict[str, RungStyle] = {}
    met: set[tuple[str, str]] = set()
    own, methods = 0, set()
    for rung in rungs:
        method = rung.partition(":")[0]
        if rung in _KNOWN:
            style = _KNOWN[rung][0]
        elif method in _METHODS and method not in methods:
            style = _METHODS[method][0]
            methods.add(method)
        else:
            style = _SPARE[own % len(_SPARE)][0]
            own += 1
        if (style.color, style.marker) in met:
            spare = next((m for m in _MARKERS if (style.color, m) not in met), style.marker)
            style = replace(style, marker=spare)
        met.add((style.color, style.marker))
        styles[rung] = style
    return styles


def step_style(step: str) -> RungStyle:
    """A step looks like the rung that it leads to; the cross term is grey."""
    if step in STEPS:
        return _KNOWN[CHAIN[STEPS.index(step) + 1]][0]
    return RungStyle(MUTED, (0, (1, 1)), "x")


def dark_colors() -> dict[str, str]:
    """Colour on a light page → colour on a dark page, for every colour that a figure may use."""
    pairs = [*_KNOWN.values(), *_METHODS.values(), *_SPARE]
    return _LIGHT_TO_DARK | {style.color: dark for style, dark in pairs}
