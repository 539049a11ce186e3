"""Cost against N and against P, over a decade and more of each, with the powers that it follows.

`OMP_NUM_THREADS=1 python tests/benchmarks/bench_cost.py docs/cost.png` (minutes) measures on
networks 64-w-w-2 with random data: processor seconds of one Hessian-vector product, of building
EK-FAC, of building the dual forms of G and block-G, and of a damped solve with H (20 steps of
MINRES, preconditioned by EK-FAC: how many it takes depends on the problem and on λ); and the peak
memory of the matrix-free path (EK-FAC and the solve) and of the dual forms, each in a process of
its own. A table, and the figure.

Powers are least-squares slopes of log cost against log size, with 95% intervals over the points.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from PIL import Image
from scipy import stats
from torch import nn

from decomposition.chain.rungs import EKFAC
from decomposition.chain.shared_factors import Parts
from decomposition.curvature import Curvature
from decomposition.curvature.dual import dual_rungs
from decomposition.curvature.minres import minres
from decomposition.curvature.products import Product, hessian_product
from decomposition.curvature.solution import Solution, Stopping
from decomposition.problem import Problem
from decomposition.problems.networks import mlp

WIDTH, EXAMPLES, FEW_EXAMPLES = 128, (500, 1000, 2000, 4000, 8000), (100, 200, 400, 800, 1600)
WIDTHS, MANY, FEW = (64, 108, 181, 304, 512), 2000, 200
"""Sizes of the two sweeps; few examples for the dual forms, whose matrices have the side N·C."""
ROUNDS, ENOUGH, STEPS, SHARE = 5, 3.0, 20, 10.0
"""Most repetitions, of which the best counts, and seconds after which there are no more; steps of
a solve, and its λ as a multiple of tr E / P."""
MIB = 2**20
TIMES = {
    "product": "one H product",
    "ekfac": "building EK-FAC",
    "dual": "building the dual GGN",
    "solve": f"damped H solve ({STEPS} steps)",
}
MEMORIES = {"solve": "EK-FAC and H solve", "dual": "dual GGN"}
STYLES = {
    "product": ("#0072B2", "o", "-"),
    "ekfac": ("#E69F00", "s", "--"),
    "dual": ("#009E73", "^", "-."),
    "solve": ("#000000", "D", ":"),
}
"""Of Okabe and Ito's colours; marks and dashes tell them apart in grey."""


def stack(width: int, examples: int) -> Problem:
    """64-w-w-2 on normal inputs with random labels."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(examples + 1, 64, generator=generator)
    y = torch.randint(0, 2, (examples + 1,), generator=generator)
    model = mlp((64, width, width, 2), nn.GELU, 0)
    n = examples
    return Problem(model, nn.CrossEntropyLoss(), (x[:n], y[:n]), (x[n:], y[n:]), name="stack")


def ekfac_of(problem: Problem) -> Curvature:
    return EKFAC().build(Parts(problem))


def solve(problem: Problem, product: Product, ekfac: Curvature) -> Solution:
    """(H + λI) x = 1, as far as it gets."""
    damping = SHARE * ekfac.trace() / problem.num_parameters
    return minres(
        lambda v: product(v) + damping * v,
        torch.ones(problem.num_parameters, 1, dtype=torch.float64),
        lambda v: ekfac.solve(v, damping),
        Stopping(1e-12, STEPS, required=False),
    )


def seconds(width: int, examples: int, few: int) -> dict[str, float]:
    """Processor seconds of everything in TIMES, the dual forms with ``few`` examples."""
    problem, small = stack(width, examples), stack(width, few)
    product, ekfac = hessian_product(problem), ekfac_of(problem)
    v = torch.ones(problem.num_parameters, 1, dtype=torch.float64)
    found = {
        "product": best(lambda: product(v)),
        "ekfac": best(lambda: ekfac_of(problem)),
        "dual": best(lambda: dual_rungs(small)),
        "solve": best(lambda: solve(problem, product, ekfac)),
    }
    print(
        f"  N = {examples:>5,} ({few:>5,})  P = {problem.num_parameters:>8,}  "
        + "  ".join(f"{name} {value:8.4f}" for name, value in found.items())
        + " s",
        flush=True,
    )
    return found


def best(work: Callable[[], object]) -> float:
    """Least processor seconds of one call."""
    spent: list[float] = []
    while len(spent) < ROUNDS and sum(spent) < ENOUGH:
        start = time.process_time()
        work()
        spent.append(time.process_time() - start)
    return min(spent)


def memory(what: str, width: int, examples: int) -> int:
    """Peak resident bytes beyond what a small problem has taken."""

    def once(problem: Problem) -> object:
        if what == "dual":
            return dual_rungs(problem)
        return solve(problem, hessian_product(problem), ekfac_of(problem))

    once(stack(16, 16))
    problem = stack(width, examples)
    before = high_water_mark()
    once(problem)
    return high_water_mark() - before


def memories(width: int, examples: int, few: int) -> dict[str, float]:
    """MiB of everything in MEMORIES, each measured in a process of its own."""
    found = {}
    for what in MEMORIES:
        count = few if what == "dual" else examples
        command = [sys.executable, __file__, "--memory", what, str(width), str(count)]
        out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        found[what] = int(out) / MIB
    print("    " + "  ".join(f"{name} {value:.0f} MiB" for name, value in found.items()))
    return found


def high_water_mark() -> int:
    """Peak resident bytes of this program (ru_maxrss would include the parent's before exec)."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.partition("VmHWM:")[2].split()[0])


@dataclass(frozen=True)
class Power:
    """y ∝ x^b."""

    exponent: float
    half: float
    """Half of the 95% interval."""
    scale: float

    @staticmethod
    def fit(x: np.ndarray, y: np.ndarray) -> Power:
        """By least squares of the logarithms."""
        line = stats.linregress(np.log(x), np.log(y))
        half = stats.t.ppf(0.975, len(x) - 2) * line.stderr
        return Power(float(line.slope), float(half), float(np.exp(line.intercept)))

    def __str__(self) -> str:
        return f"{self.exponent:.2f} ± {self.half:.2f}"


def draw(
    axes: Axes,
    sizes: dict[str, list[int]],
    rows: list[dict[str, float]],
    names: dict[str, str],
    symbol: str,
) -> None:
    """Points, fitted lines, and the powers in the legend."""
    for key, name in names.items():
        x = np.array(sizes.get(key, sizes["other"]), float)
        y = np.array([row[key] for row in rows])
        power, (colour, mark, dashes) = Power.fit(x, y), STYLES[key]
        label = f"{name}: ${symbol}^{{{power.exponent:.2f} \\pm {power.half:.2f}}}$"
        axes.plot(x, power.scale * x**power.exponent, dashes, color=colour, lw=1.2)
        axes.plot(x, y, mark, color=colour, ms=5)
        axes.plot([], [], dashes, marker=mark, color=colour, lw=1.2, ms=5, label=label)
        print(f"  {name} ∝ {symbol}^({power})")
    axes.set(xscale="log", yscale="log")
    low, high = axes.get_ylim()
    axes.set_ylim(low, high * (high / low) ** 0.4)  # room for the legend
    axes.legend(loc="upper left", fontsize=8, frameon=False)
    axes.grid(which="major", color="0.9", lw=0.6)
    axes.spines[["top", "right"]].set_visible(False)


def main(path: Path) -> None:
    print(f"processor seconds, {torch.get_num_threads()} thread(s), best of {ROUNDS}")
    sweeps = {
        "N": [(WIDTH, n, few) for n, few in zip(EXAMPLES, FEW_EXAMPLES, strict=True)],
        "P": [(width, MANY, FEW) for width in WIDTHS],
    }
    titles = {
        "N": f"P = {stack(WIDTH, 8).num_parameters:,} parameters",
        "P": f"N = {MANY:,} training examples (dual forms: {FEW})",
    }
    mpl.rcParams["font.size"] = 9
    figure, panels = plt.subplots(2, 2, figsize=(8.6, 7.0), sharex="col", layout="constrained")
    for column, (symbol, points) in enumerate(sweeps.items()):
        print(f"\nagainst {symbol}")
        spent, held = [], []
        for point in points:
            spent.append(seconds(*point))
            held.append(memories(*point))
        parameters = [stack(width, 8).num_parameters for width, _, _ in points]
        sizes = {"other": parameters}
        if symbol == "N":
            sizes = {"other": [n for _, n, _ in points], "dual": [few for *_, few in points]}
        above, below = panels[:, column]
        draw(above, sizes, spent, TIMES, symbol)
        draw(below, sizes, held, MEMORIES, symbol)
        above.set_title(titles[symbol], fontsize=9)
        names = {"N": "training examples N", "P": "parameters P"}
        below.set_xlabel(names[symbol])
    panels[0, 0].set_ylabel("processor seconds")
    panels[1, 0].set_ylabel("peak memory (MiB)")
    figure.savefig(path, dpi=110)
    with Image.open(path) as image:  # a third of the size, and no difference to be seen
        image.convert("RGB").quantize(128).save(path, optimize=True)
    print(f"\nwrote {path} ({path.stat().st_size // 1000} kB)")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--memory"]:
        print(memory(sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
    elif len(sys.argv) == 2:
        main(Path(sys.argv[1]))
    else:
        sys.exit("usage: python tests/benchmarks/bench_cost.py FIGURE.png")
