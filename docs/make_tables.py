"""Make the tables of docs/measured.md and docs/cost.png from what benchmarks have kept.

`python docs/make_tables.py`; what is kept lies in tests/benchmarks/results. A table stands between
two comments that name it, and is replaced there.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy import stats

HERE = Path(__file__).parent
RESULTS = HERE.parent / "tests" / "benchmarks" / "results"
PAGE = HERE / "measured.md"
Row = dict[str, Any]

STYLES = {
    "H product": ("#0072B2", "o", "-"),
    "EK-FAC": ("#E69F00", "s", "--"),
    "dual GGN": ("#009E73", "^", "-."),
    "damped H solve": ("#000000", "D", ":"),
    "EK-FAC scores": ("#CC79A7", "v", "--"),
}
"""Of Okabe and Ito's colours; marks and dashes tell them apart in grey."""
SYMBOLS = {"N": "training examples N", "P": "parameters P", "Q": "queries"}


def kept(name: str) -> list[dict[str, Any]]:
    """Runs, each with its machine and its rows."""
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text("utf-8")) if path.exists() else []


def rows_of(name: str) -> list[Row]:
    """The rows of all runs."""
    return [row for run in kept(name) for row in run["rows"]]


def page(text: str) -> str:
    """The page with every table made again."""

    def made(found: re.Match[str]) -> str:
        name = found["name"]
        return f"<!-- {name} -->\n{TABLES.get(name, usual)(name)}\n\n{machines(name)}\n<!-- / -->"

    return re.sub(r"<!-- (?P<name>\w+) -->\n.*?<!-- / -->", made, text, flags=re.DOTALL)


def usual(name: str) -> str:
    """A row for every measurement, with default threads and with one side by side."""
    columns = ("what", "of", "ours", "against", "ratio", "over the floor")
    lines = header(*columns, "on one thread: ours", "ratio", "over the floor")
    for both in grouped(rows_of(name), lambda row: (row["what"], row["of"])):
        most, one = max(both, key=lambda r: r["threads"]), min(both, key=lambda r: r["threads"])
        unit = most["unit"]
        cells = [most["what"], most["of"], quantity(most["value"], unit)]
        cells += ["" if most["rival"] is None else quantity(most["rival"], unit), ratio(most)]
        cells += [
            over(most),
            *(
                ("", "", "")
                if one is most
                else (quantity(one["value"], unit), ratio(one), over(one))
            ),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def products(name: str) -> str:
    """A row for a product, a precision and a network; columns 1, 16 and 64 in one cell."""
    columns = ("product", "of", "ms a column, of 1 / 16 / 64", "double backward", "ratio")
    lines = header(*columns, "over the floor", "on one thread: ratio", "over the floor")
    rows = sorted(rows_of(name), key=lambda row: row["of"])
    for group in grouped(rows, lambda row: (row["of"], row["what"].rpartition(", a ")[0])):
        most = max(row["threads"] for row in group)
        mine = [row for row in group if row["threads"] == most]
        one = [row for row in group if row["threads"] == 1]
        spent = " / ".join(f"{1e3 * row['value']:.3g}" for row in mine)
        rival = quantity(float(np.median([row["rival"] for row in mine])), "s")
        what = mine[0]["what"].rpartition(", a ")[0]
        cells = [what, mine[0]["of"], spent, rival, joined(mine, ratio), joined(mine, over)]
        cells += [joined(one, ratio), joined(one, over)]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def powers(name: str) -> str:
    """Cost ∝ size to which power, with 95% intervals over the points."""
    lines = header("what", "against N", "against P", "against queries")
    for group in grouped(rows_of(name), lambda row: row["what"]):
        cells = [group[0]["what"]]
        for symbol in SYMBOLS:
            x, y = points(group, symbol)
            cells.append("" if len(x) < 4 else "{:.2f} ± {:.2f}".format(*fit(x, y)[:2]))
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def runs(name: str) -> str:
    """A row for every run."""
    lines = header("command", "by the clock", "of the processor", "peak memory")
    for row in rows_of(name):
        cells = [f"`{row['what']}`", quantity(row["value"], "s")]
        cells += [quantity(row["more"]["processor seconds"], "s")]
        cells += [quantity(row["more"]["peak GiB"], "GiB")]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


TABLES: dict[str, Callable[[str], str]] = {"products": products, "cost": powers, "run": runs}


def machines(name: str) -> str:
    """Where and when it was measured, and how."""
    lines = []
    runs = [run["machine"] for run in kept(name)]
    for same in grouped(runs, lambda m: (m["processor"], m["cores"], m["torch"])):
        shares = (machine["cores_taken_by_others"] for machine in same)
        taken = sorted("an unknown part" if share is None else f"{share:.1f}" for share in shares)
        days = sorted({machine["measured"][:10] for machine in same})
        lines.append(
            f"{same[0]['processor']}, {same[0]['cores']} cores, of which other programs took "
            f"{' to '.join(dict.fromkeys((taken[0], taken[-1])))}; "
            f"PyTorch {same[0]['torch']}, {' to '.join(dict.fromkeys((days[0], days[-1])))}."
        )
    file = f"[kept](../tests/benchmarks/results/{name}.json)"
    return " ".join([*lines, f"`python -m tests.benchmarks.bench_{name}`, {file}."])


def header(*names: str) -> list[str]:
    """The first two lines of a table."""
    return ["| " + " | ".join(names) + " |", "|---" * len(names) + "|"]


def grouped(rows: Iterable[Row], key: Callable[[Row], Any]) -> list[list[Row]]:
    """Rows of one key, in the order in which they come."""
    found: dict[Any, list[Row]] = {}
    for row in rows:
        found.setdefault(key(row), []).append(row)
    return list(found.values())


def quantity(value: float, unit: str) -> str:
    """Three digits; short times in ms."""
    if unit == "s" and value < 0.1:
        return f"{1e3 * value:.3g} ms"
    return f"{value:.3g} {unit}"


def ratio(row: Row) -> str:
    """Rival over ours."""
    return "" if row["rival"] is None else f"{row['rival'] / row['value']:.2g}×"


def over(row: Row) -> str:
    """Ours over the floor."""
    return "" if row["floor"] is None else f"{row['value'] / row['floor']:.2g}×"


def joined(rows: list[Row], cell: Callable[[Row], str]) -> str:
    """What several rows say in one cell."""
    return " / ".join(filter(None, map(cell, rows)))


def points(rows: list[Row], symbol: str) -> tuple[np.ndarray, np.ndarray]:
    """Sizes and costs of the sweep over N, P or Q."""
    own = [row for row in rows if row["of"].startswith(f"against {symbol}:")]
    return np.array([row["more"][symbol] for row in own]), np.array([row["value"] for row in own])


def fit(x: np.ndarray, y: np.ndarray) -> tuple[float, float, float]:
    """b, half of its 95% interval, and a of y = a x^b, by least squares of the logarithms."""
    line = stats.linregress(np.log(x), np.log(y))
    half = stats.t.ppf(0.975, len(x) - 2) * line.stderr
    return float(line.slope), float(half), float(np.exp(line.intercept))


def cost_figure() -> Figure:
    """Seconds and memory against N, P and queries, with the fitted powers."""
    figure = Figure(figsize=(11.0, 6.4), layout="constrained")
    panels = figure.subplots(2, 3, sharex="col")
    groups = grouped(rows_of("cost"), lambda row: row["what"])
    for column, (symbol, label) in enumerate(SYMBOLS.items()):
        for row, unit in enumerate(("s", "MiB")):
            ax = panels[row, column]
            for group in groups:
                x, y = points(group, symbol)
                if group[0]["unit"] == unit and len(x) >= 4:
                    draw(ax, group[0]["what"], x, y, symbol)
            if not ax.lines:
                ax.set_visible(False)
                panels[0, column].tick_params(labelbottom=True)
                continue
            ax.set(xscale="log", yscale="log")
            low, high = ax.get_ylim()
            ax.set_ylim(low, high * (high / low) ** 0.5)  # room for the legend
            ax.legend(loc="upper left", fontsize=8, frameon=False)
            ax.grid(which="major", color="0.9", lw=0.6)
            ax.spines[["top", "right"]].set_visible(False)
            ax.set_xlabel(label)
    panels[0, 0].set_ylabel("seconds")
    panels[1, 0].set_ylabel("peak memory (MiB)")
    return figure


def draw(ax: Axes, what: str, x: np.ndarray, y: np.ndarray, symbol: str) -> None:
    """Points, the fitted line, and its power in the legend."""
    power, half, scale = fit(x, y)
    colour, mark, dashes = STYLES[what.removesuffix(", memory")]
    label = f"{what.removesuffix(', memory')}: ${symbol}^{{{power:.2f} \\pm {half:.2f}}}$"
    ax.plot(x, scale * x**power, dashes, color=colour, lw=1.2)
    ax.plot(x, y, mark, color=colour, ms=5)
    ax.plot([], [], dashes, marker=mark, color=colour, lw=1.2, ms=5, label=label)


def main() -> None:
    """Write both."""
    PAGE.write_text(page(PAGE.read_text("utf-8")), "utf-8")
    cost_figure().savefig(HERE / "cost.png", dpi=110)


if __name__ == "__main__":
    main()
