"""Make the README's figures from a result, and that of a large one: make_figures.py OUT [LARGE]."""

from __future__ import annotations

import sys
from pathlib import Path

from decomposition import open_result
from decomposition.report.drawing import draw
from decomposition.report.figures import plot_orders, plot_waterfall

HERE = Path(__file__).parent


def main(result: str, large: str | None = None) -> None:
    """Write waterfall.png and shares.png beside this script, and large_waterfall.png."""
    tree = open_result(result)
    figures = {
        "waterfall": plot_waterfall(tree, protocol="tuned"),
        "shares": plot_orders(tree),
    }
    if large is not None:
        figures["large_waterfall"] = plot_waterfall(open_result(large), protocol="equal")
    for name, axes in figures.items():
        path = HERE / f"{name}.png"
        path.write_bytes(draw(axes, name).png)
        print(f"wrote {path}, {path.stat().st_size // 1000} kB")


if __name__ == "__main__":
    main(*sys.argv[1:])
