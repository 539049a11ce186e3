"""Sections as one HTML page that loads nothing, and the same bytes for the same result."""

from __future__ import annotations

import base64
import hashlib
import io
import itertools
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import matplotlib.image
import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup

from decomposition.report.content import (
    Block,
    ClaimTable,
    Code,
    Columns,
    Details,
    Figure,
    Filled,
    Formula,
    Gallery,
    Items,
    Picture,
    Table,
    Text,
)
from decomposition.report.drawing import draw
from decomposition.report.palette import dark_colors
from decomposition.report.wording import visible


def page(
    title: str, byline: str, version: str, sections: Sequence[Filled], numbers: str = ""
) -> str:
    """The whole page.

    Args:
        title: heading, may be a user's text.
        byline: a line under it.
        version: of the software that made the result.
        sections: in the order of the page.
        numbers: JSON for the reader to choose from, or "".
    """
    script = "".join(map(_source, ("sort.js", "fold.js", "save.js", "explore.js")))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    rendered = [
        {
            "anchor": s.anchor,
            "title": s.title,
            "beside": s.beside,
            "words": blocks_html(s.words),
            "best": blocks_html(() if s.best is None else (s.best,)),
            "more": blocks_html(s.folds),
        }
        for s in sections
    ]
    html = _template("report.html.j2").render(
        title=title,
        byline=byline,
        version=version,
        sections=rendered,
        numbers=numbers,
        palette=Markup(_palette_css()),
        style=Markup(_source("report.css")),
        script=Markup(script),
        script_hash=digest,
    )
    return visible(html)


def blocks_html(blocks: Sequence[Block]) -> Markup:
    """Blocks in their order; neighbouring figures stand side by side where there is room."""
    parts: list[str] = []
    for drawn, group in itertools.groupby(blocks, lambda block: isinstance(block, Figure)):
        body = "\n".join(map(_block, group))
        parts.append(f'<div class="figures">{body}</div>' if drawn else body)
    return Markup("\n".join(parts))


def table_html(table: Table) -> str:
    """A table alone, for a notebook."""
    numeric = {
        column
        for column in range(len(table.columns))
        if any(table.key(row[column]) for row in table.rows)
    }
    return visible(_macro("table")(table, data_uri(table.csv().encode(), "text/csv"), numeric))


def _block(block: Block) -> str:
    match block:
        case Text():
            return _macro("text")(block)
        case Items():
            return _macro("items")(block)
        case Code():
            return _macro("code")(block, data_uri(visible(block.code).encode(), "application/json"))
        case Formula():
            return _macro("formula")(block)
        case Table():
            return table_html(block)
        case Figure():
            return _figure(block)
        case Gallery():
            return _gallery(block)
        case ClaimTable():
            return _macro("claims")(block, data_uri(block.table().csv().encode(), "text/csv"))
        case Details():
            return _macro("details")(block, blocks_html(block.blocks))
        case Columns():
            return f'<div class="{block.css}">{blocks_html(block.figures)}</div>'


def _figure(block: Figure) -> str:
    uri = "" if block.data is None else data_uri(block.data.csv().encode(), "text/csv")
    return _macro("figure")(block, draw(block.plot(), block.name), uri)


def _gallery(block: Gallery) -> str:
    rows = [
        {
            "heading": row.heading,
            "pictures": [{"uri": _png(p), "label": p.label} for p in row.pictures],
        }
        for row in block.rows
    ]
    return _macro("gallery")({"title": block.title, "rows": rows})


def _png(picture: Picture) -> str:
    out = io.BytesIO()
    pixels = np.asarray(picture.pixels)
    metadata: Any = {"Software": None}
    matplotlib.image.imsave(out, pixels, cmap="gray_r", format="png", metadata=metadata)
    return data_uri(out.getvalue(), "image/png")


def data_uri(content: bytes, kind: str) -> str:
    """``content`` of a MIME type as an address that needs no file."""
    charset = ";charset=utf-8" if kind.startswith(("text", "application")) else ""
    return f"data:{kind}{charset};base64,{base64.b64encode(content).decode()}"


def _palette_css() -> str:
    light = " ".join(f"--c{c[1:]}: {c};" for c in dark_colors())
    dark = " ".join(f"--c{c[1:]}: {d};" for c, d in dark_colors().items())
    return "\n".join(
        (
            f":root {{ {light} }}",
            f"@media screen and (prefers-color-scheme: dark) {{ :root {{ {dark} }} }}",
        )
    )


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("decomposition.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["longest"] = lambda text: max(map(len, text.split()), default=0)
    return environment


def _template(name: str) -> Template:
    return _environment().get_template(name)


def _source(name: str) -> str:
    environment = _environment()
    assert environment.loader is not None
    return environment.loader.get_source(environment, name)[0]


def _macro(name: str) -> Callable[..., str]:
    return getattr(_template("blocks.html.j2").module, name)
