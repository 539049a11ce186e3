"""What each choice of a K-FAC implementation costs, next to what each step of the chain costs.

    python analyses/choices.py [--problem digits] [--bank out/result.nc] [--quick] [--out choices/]

Crosses how labels enter the factors (exact, 1 or 10 samples, those of the data), whether biases lie
within their layer, whether the product or its factors are damped, and the rule that says λ. Every
sampled cell is drawn several times. Costs are differences of the LDS over models retrained here (or
of a bank), and of log10 of the residual ‖H C⁻¹ v − v‖² / ‖v‖² over training gradients v. Leaves
`choices.csv`, `choices.md` and `choices.png`.
"""

from __future__ import annotations

import argparse
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from decomposition import EKFAC, KFAC, Curvature, Problem, Settings
from decomposition.base_model import BaseModel, Clock, prepare
from decomposition.chain.build import Approximation
from decomposition.chain.rungs import Rung
from decomposition.chain.shared_factors import Parts
from decomposition.curvature import EXACT, BlockDiagonal, Empirical, Fisher, Sampled
from decomposition.curvature.inversion import ScaledDamping
from decomposition.linalg import to_numpy
from decomposition.names import CHAIN, STEPS
from decomposition.problems import load_problem
from decomposition.report.drawing import png
from decomposition.report.figures.canvas import axes_or_new, head, report_style
from decomposition.report.names import step_label
from decomposition.report.palette import step_style
from decomposition.results.write import output_folder
from decomposition.retraining.supplied import as_supplied
from decomposition.scores.attribution import Design, Scored, combine, score
from decomposition.scores.bootstrap import Draws
from decomposition.scores.gradients import Gradients
from decomposition.scores.levels import Levels
from decomposition.shares.factorial import Drawn, Factor, Factorial, over_draws
from decomposition.shares.lattice import lattice_shares
from decomposition.shares.steps import drops
from decomposition.spectrum.residuals import VECTORS, drawn, residuals
from decomposition.targets.truth import settings_of

DRAWS = 5
SAMPLING = Factor("sampling", ("exact", "1 sample", "10 samples", "empirical"))
BIAS = Factor("bias", ("together", "apart"))
DAMPING = Factor("damping", ("exact", "factored"))
RULE = Factor("rule", ("tuned", "fixed 1e-4", "layer mean 0.1"))
FACTORIALS = {
    "kfac": Factorial((SAMPLING, BIAS, DAMPING, RULE)),
    "ekfac": Factorial((SAMPLING, BIAS, RULE)),
}
TARGETS = {
    "kfac": ("1 sample", "apart", "factored", "fixed 1e-4"),
    "ekfac": ("1 sample", "apart", "fixed 1e-4"),
}
"""Where Shapley values lead from exact factors: the choices of the code published with Hong et al.
2025, which damps the factors of K-FAC and the product of EK-FAC."""
PROTOCOLS = {"tuned": "tuned", "fixed 1e-4": "fixed:1e-4", "layer mean 0.1": "layer_mean:0.1"}
"""Rule → the protocol of ``decomposition`` under which a rung is read."""
OWN_MEAN = "fixed:0.1"
"""The same for a rung that has every layer's mean in it already."""
SETTINGS = Settings(
    rules=f"fixed:1e-4,layer_mean:0.1,{OWN_MEAN}",
    lattice=False,
    matrix_norms=False,
    detail=False,
)
QUICK = replace(SETTINGS, masks=60, second_order_masks=20, damping_points=5, resamples=400)


@dataclass(frozen=True)
class FactoredLayerMean(Rung):
    """Factors damped by c times their layer's mean eigenvalue, with c in place of λ."""

    kfac: KFAC
    """With factored damping."""

    def build(self, parts: Parts) -> Curvature:
        """In the bases of K-FAC."""
        blocks = self.kfac.build(parts).diagonal_blocks()
        return BlockDiagonal(
            {name: ScaledDamping(b, float(b.trace()) / b.size) for name, b in blocks.items()}
        )


def fishers(sampling: str, draws: int) -> list[Fisher]:
    """One for every draw; the labels of ten samples are none of those of one."""
    if sampling == "1 sample":
        return [Sampled(1, seed) for seed in range(draws)]
    if sampling == "10 samples":
        return [Sampled(10, draws + seed) for seed in range(draws)]
    return [EXACT if sampling == "exact" else Empirical()]


@dataclass(frozen=True)
class Place:
    """Where the value of one draw of a cell stands."""

    rung: str
    protocol: str


def places(structure: str, cell: Sequence[str], draws: int) -> list[Place]:
    """Of every draw of a cell."""
    sampling, bias, *damping, rule = cell
    inside = [structure, sampling, bias, *damping]
    protocol = PROTOCOLS[rule]
    if "factored" in damping and rule == "layer mean 0.1":
        inside, protocol = [*inside, "of layers"], OWN_MEAN
    count = len(fishers(sampling, draws))
    return [Place(", ".join([*inside, str(draw)]), protocol) for draw in range(count)]


def rungs(draws: int) -> dict[str, Approximation]:
    """Every rung of both factorials, by name."""
    found: dict[str, Approximation] = {}
    for structure, factorial in FACTORIALS.items():
        for cell in factorial.cells:
            apart, factored = "apart" in cell, "factored" in cell
            for fisher, place in zip(
                fishers(cell[0], draws), places(structure, cell, draws), strict=True
            ):
                if structure == "ekfac":
                    found[place.rung] = EKFAC(fisher, apart)
                elif place.protocol == OWN_MEAN:
                    found[place.rung] = FactoredLayerMean(KFAC(fisher, apart, True))
                else:
                    found[place.rung] = KFAC(fisher, apart, factored)
    return found


@dataclass(frozen=True)
class Table:
    """Values, larger being better, of every draw of every cell, and of the chain."""

    levels: Mapping[Place, int]
    values: Draws
    """(places,)."""

    def of(self, structure: str, draws: int) -> Draws:
        """Values of the cells of a factorial, whose resamples vary with the draws too."""
        cells = []
        for cell in FACTORIALS[structure].cells:
            columns = tuple(self.levels[place] for place in places(structure, cell, draws))
            cells.append(Drawn(columns, cell[0] if len(columns) > 1 else ""))
        return over_draws(self.values, cells)

    def chain(self) -> Draws:
        """Drops of the steps, every rung at its own best damping."""
        columns = [self.levels[Place(rung, "tuned")] for rung in CHAIN]
        return drops(Draws(self.values.estimate[columns], self.values.draws[:, columns]), CHAIN)


def of_lds(levels: Levels) -> Table:
    """LDS."""
    found = [Place(rung, protocol) for protocol in levels.protocols for rung in levels.nodes]
    count = len(levels.draws.draws)
    values = Draws(levels.draws.estimate.ravel(), levels.draws.draws.reshape(count, -1))
    return Table({place: i for i, place in enumerate(found)}, values)


def of_residuals(
    base: BaseModel, scored: Scored, wanted: Sequence[Place], settings: Settings
) -> Table:
    """−log10 of the mean residual over gradients of some training examples, resampled over them."""
    assert base.effects is not None
    assert isinstance(base.gradients, Gradients)  # of problems whose matrices fit
    v = drawn("train", base.gradients.train, VECTORS, settings.seed).columns
    hessian, rows = base.rungs["hessian"], []
    for place in wanted:
        rung, damping = base.rungs[place.rung], scored.selection.dampings["tuned"].get(place.rung)
        if place.protocol != "tuned":
            ruled = base.effects.rules[place.protocol]
            rung, damping = ruled.rungs[place.rung], ruled.strengths[place.rung]
        assert damping is not None
        found = residuals(rung, hessian, v, [damping], [np.nan], settings.negative)
        rows.append(to_numpy(found[0, 0]))
    each = np.stack(rows, axis=1)
    count, generator = len(each), np.random.default_rng(settings.seed)
    weights = generator.multinomial(count, np.full(count, 1.0 / count), settings.resamples)
    values = Draws(-np.log10(each.mean(0)), -np.log10(weights @ each / count))
    return Table({place: i for i, place in enumerate(wanted)}, values)


def rows_of(measure: str, table: Table, draws: int, level: float) -> list[dict[str, object]]:
    """Costs of steps, levels of factors, pairs and shares, each with its interval."""
    found: list[dict[str, object]] = []

    def add(structure: str, kind: str, names: Sequence[str], values: np.ndarray) -> None:
        for name, (low, estimate, high) in zip(names, values, strict=True):
            row = {"measure": measure, "rung": structure, "kind": kind, "name": name}
            found.append(row | {"lower": low, "cost": estimate, "upper": high})

    add("chain", "step", STEPS, table.chain().interval(level))
    for structure, factorial in FACTORIALS.items():
        cells = table.of(structure, draws)
        for kind, weights in (
            ("main effect", factorial.main_effects()),
            ("alone", factorial.alone()),
            ("interaction", factorial.interactions()),
        ):
            costs = cells.combine(np.stack(list(weights.values())))
            add(structure, kind, list(weights), costs.interval(level))
        lattice, where = factorial.ways(TARGETS[structure])
        nodes = Draws(cells.estimate[list(where)], cells.draws[:, list(where)])
        shares = lattice_shares(nodes, tuple(lattice.taken), lattice, level)
        add(structure, "Shapley value", shares.steps, shares.shapley)
        add(structure, "Shapley value", ["together"], shares.total[None])
    return found


def figure(rows: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Costs in LDS of the chain's steps, and of the choices in K-FAC and EK-FAC."""
    lds = rows[rows["measure"] == "lds"]
    steps = lds[lds["kind"] == "step"]
    mains = lds[lds["kind"] == "main effect"]
    names = list(dict.fromkeys(mains["name"]))
    with report_style():
        ax = axes_or_new(ax, 7.2, 0.33 * (len(steps) + len(names)) + 1.2)
        for y, row in enumerate(steps.itertuples()):
            color = step_style(str(row.name)).color
            ax.barh(y, row.cost, color=color, height=0.6, alpha=0.35)
            _interval(ax, y, row, color, "o")
        for structure, shift, marker in (("kfac", -0.15, "v"), ("ekfac", 0.15, "D")):
            color = step_style(STEPS[3] if structure == "kfac" else STEPS[2]).color
            some = mains[mains["rung"] == structure]
            label = "K-FAC" if structure == "kfac" else "EK-FAC"
            for row in some.itertuples():
                y = len(steps) + names.index(str(row.name)) + shift
                _interval(ax, y, row, color, marker, label)
                label = ""
        ax.axvline(0.0, color="#5b626e", lw=0.8)
        ax.axhline(len(steps) - 0.5, color="#5b626e", lw=0.8)
        ax.set_yticks(
            range(len(steps) + len(names)),
            [f"step: {step_label(str(name))}" for name in steps["name"]] + names,
        )
        ax.invert_yaxis()
        ax.set_xlabel("LDS lost, 95% intervals; a choice against the first level, others averaged")
        largest = mains.loc[mains["cost"].idxmax()]
        step = steps.loc[steps["cost"].idxmax()]
        head(
            ax,
            f"Largest cost of a choice: {largest['name']}, {largest['cost']:.3f}; of a step: "
            f"{step_label(step['name'])}, {step['cost']:.3f}",
        )
        ax.legend(loc="lower right")
    return ax


def _interval(ax: Axes, y: float, row: object, color: str, marker: str, label: str = "") -> None:
    low, cost, high = (getattr(row, name) for name in ("lower", "cost", "upper"))
    ax.plot([low, high], [y, y], color=color, lw=1.2)
    ax.plot([cost], [y], marker, color=color, label=label or None)


def markdown(rows: pd.DataFrame) -> str:
    """Steps, main effects and Shapley values, in LDS and in decades of the residual."""
    lines = []
    for kind, rung, title in (
        ("step", "chain", "Step of the chain"),
        ("main effect", "kfac", "Choice in K-FAC, others averaged"),
        ("alone", "kfac", "Choice in K-FAC alone, all else exact and tuned"),
        ("main effect", "ekfac", "Choice in EK-FAC, others averaged"),
        ("alone", "ekfac", "Choice in EK-FAC alone, all else exact and tuned"),
        ("Shapley value", "kfac", f"K-FAC to {', '.join(TARGETS['kfac'])}"),
        ("Shapley value", "ekfac", f"EK-FAC to {', '.join(TARGETS['ekfac'])}"),
    ):
        lines += [f"| {title} | LDS lost | decades of the residual |", "|---|---|---|"]
        some = rows[(rows["kind"] == kind) & (rows["rung"] == rung)]
        for name in dict.fromkeys(some["name"]):
            cells = [
                f"{row.cost:+.{digits}f} [{row.lower:+.{digits}f}, {row.upper:+.{digits}f}]"
                for measure, digits in (("lds", 3), ("residual", 2))
                for row in some[(some["name"] == name) & (some["measure"] == measure)].itertuples()
            ]
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
        lines.append("")
    pairs = rows[(rows["kind"] == "interaction") & (rows["measure"] == "lds")]
    sure = pairs[(pairs["lower"] > 0) | (pairs["upper"] < 0)]
    largest = sure.reindex(sure["cost"].abs().sort_values(ascending=False).index).head(8)
    lines += [
        f"| Pairs that cost more (+) or less (−) than each for itself: the largest of {len(sure)} "
        f"resolved, of {len(pairs)} | LDS |",
        "|---|---|",
    ]
    for row in largest.itertuples():
        lines.append(
            f"| {row.rung}: {row.name} | {row.cost:+.3f} [{row.lower:+.3f}, {row.upper:+.3f}] |"
        )
    return re.sub(r"(?<!\w)-(?=\d)", "−", "\n".join(lines)) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--problem", default="digits", help="see `decompose problems`")
    parser.add_argument(
        "--bank", help="models retrained elsewhere: a result.nc, or as --bank of run"
    )
    parser.add_argument("--quick", action="store_true", help="60 subsets, 2 draws")
    parser.add_argument("--draws", type=int, default=None, help=f"of sampled labels ({DRAWS})")
    parser.add_argument("--out", default="choices", help="folder")
    asked = parser.parse_args()
    out = output_folder(asked.out)
    draws = asked.draws or (2 if asked.quick else DRAWS)
    settings, bank = QUICK if asked.quick else SETTINGS, None
    problem = load_problem(asked.problem).trained()
    if asked.bank is not None:
        bank = as_supplied(asked.bank, problem)
        settings = settings_of(bank, settings)
    rows = computed(problem, settings, draws, out, bank)
    out.mkdir(parents=True, exist_ok=True)
    rows.to_csv(out / "choices.csv", index=False, float_format="%.5g")
    (out / "choices.md").write_text(markdown(rows), "utf-8")
    (out / "choices.png").write_bytes(png(figure(rows)))
    print(markdown(rows))
    print(shlex.join(["python", *sys.argv]))


def computed(
    problem: Problem, settings: Settings, draws: int, out: Path, bank=None
) -> pd.DataFrame:
    """Every cost of every choice and step."""
    base = prepare(problem, out, rungs(draws), settings, Clock(), True, bank)
    assert base.effects is not None
    design = Design.of(base.effects, settings)
    scored = score(base, base.effects, design, False, True)
    lds = of_lds(combine([scored], design))
    wanted = [Place(rung, "tuned") for rung in CHAIN]
    for structure, factorial in FACTORIALS.items():
        wanted += [p for cell in factorial.cells for p in places(structure, cell, draws)]
    residuals = of_residuals(base, scored, wanted, settings)
    return pd.DataFrame(
        rows_of("lds", lds, draws, settings.level)
        + rows_of("residual", residuals, draws, settings.level)
    )


if __name__ == "__main__":
    main()
