"""A figure as the page needs it: inline SVG that follows light and dark, and files to download."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from xml.sax.saxutils import escape

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from PIL import Image

from decomposition.report.figures.canvas import HINT, report_style
from decomposition.report.palette import dark_colors
from decomposition.report.wording import visible

DPI = 150
"""Pixels to the inch of a PNG."""


@dataclass(frozen=True)
class Drawing:
    """One figure, rendered."""

    inline: str
    """An ``<svg>`` element for the page, colours as CSS variables."""
    svg: bytes
    """A file that stands alone."""


def draw(axes: Axes, name: str) -> Drawing:
    """Render the figure that ``axes`` belongs to; the same figure gives the same bytes.

    Args:
        axes: what a function of ``report.figures`` returned.
        name: prefix of every id, so that figures on one page do not share them.
    """
    svg = io.BytesIO()
    with _laid_out(axes) as figure:
        # savefig would draw everything once more
        FigureCanvasSVG(figure).print_svg(svg, metadata={"Date": None})
    text = visible(_with_hints(_rounded(svg.getvalue().decode())))
    return Drawing(_inline(text, name), text.encode())


def png(axes: Axes) -> bytes:
    """The figure that ``axes`` belongs to as pixels, DPI to the inch."""
    out = io.BytesIO()
    with _laid_out(axes) as figure:
        figure.set_dpi(DPI)
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
    # 256 colours are enough for a figure, and a third of the bytes
    pixels = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    pixels = pixels.quantize(256, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    pixels.save(out, "png", dpi=(DPI, DPI))
    return out.getvalue()


@contextmanager
def _laid_out(axes: Axes) -> Iterator[Figure]:
    """The figure in the report's style, its layout computed once for all."""
    figure = axes.get_figure()
    if not isinstance(figure, Figure):
        raise TypeError("the axes belong to no figure")
    with report_style(), warnings.catch_warnings():
        # names in any script are text in the SVG; only a PNG lacks the glyph
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        engine = figure.get_layout_engine()
        if engine is not None:
            engine.execute(figure)
            figure.set_layout_engine("none")
        yield figure


def _rounded(svg: str) -> str:
    """Coordinates to a hundredth of a point, which no screen tells apart."""
    return re.sub(r"<[^>]*>", lambda tag: re.sub(r"(\d\.\d\d)\d+", r"\1", tag[0]), svg)


def _with_hints(svg: str) -> str:
    """What ``canvas.hint`` attached to an artist becomes the title that a pointer brings up."""

    def title(found: re.Match[str]) -> str:
        return f"<g><title>{escape(bytes.fromhex(found[1]).decode())}</title>"

    return re.sub(rf'<g id="{HINT}([0-9a-f]*)">', title, svg)


def _inline(svg: str, name: str) -> str:
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(\sid|xlink:href|href)="(#?)', rf'\1="\g<2>{name}-', svg)
    svg = svg.replace("url(#", f"url(#{name}-")
    # the figure's caption and alternative text carry the meaning; its parts are not announced
    svg = re.sub(r"<svg ([^>]*?)width=\"[^\"]*\" height=\"[^\"]*\"", r"<svg \1", svg, count=1)
    svg = svg.replace("<svg ", '<svg aria-hidden="true" focusable="false" ', 1)
    svg = svg.replace("'DejaVu Sans'", "var(--font)")
    for color in dark_colors():
        svg = svg.replace(color, f"var(--c{color[1:]})")
    return svg.strip()
