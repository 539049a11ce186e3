"""Make the README's figures from a result: python docs/make_figures.py OUT."""

from __future__ import annotations

import sys
from pathlib import Path

from decomposition import open_result
from decomposition.report.drawing import draw
from decomposition.report.figures import plot_orders, plot_waterfall

HERE = Path(__file__).parent


def main(result: str) -> None:
    """Write waterfall.png and shares.png beside this script."""
    tree = open_result(result)
    for name, axes in (
        ("waterfall", plot_waterfall(tree, protocol="tuned")),
        ("shares", plot_orders(tree)),
    ):
        path = HERE / f"{name}.png"
        path.write_bytes(draw(axes, name).png)
        print(f"wrote {path}, {path.stat().st_size // 1000} kB")


if __name__ == "__main__":
    main(*sys.argv[1:])
