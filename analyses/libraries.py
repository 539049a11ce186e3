"""Other libraries' influence scores on the bench, against models retrained here.

    python analyses/libraries.py [--quick] [--problem digits] [--out libraries/]

Needs the extra `libraries`. Each method of kronfluence, dattri, captum and curvlinops is run with
the dampings that its documentation names, and at the best of a grid, chosen on 200 retrained models
that are none of those that score it; the grid grows where its best is at an end, and stops growing
after five minutes of processor time. Where a method samples it is drawn several times. Every method
runs in a process of its own, which counts its processor time and its peak of memory; what it gave
is kept, so that the same command goes on where it was stopped. The scores then go through
`run(scores=…)`, beside the chain. Leaves `libraries.csv`, `libraries.md`, `libraries.png`, and the
result with its report. `--quick` leaves out the methods that take minutes for every damping.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import importlib.util
import multiprocessing
import os
import resource
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import torch
import xarray as xr
from adapters import captum, curvlinops, dattri, kronfluence, ours
from adapters.method import Method, cross_entropy
from matplotlib.axes import Axes
from tqdm import tqdm

from decomposition import EKFAC, Problem, Settings, run
from decomposition.problems import load_problem
from decomposition.report.drawing import png
from decomposition.report.figures.canvas import axes_or_new, head, report_style
from decomposition.report.names import rung_label
from decomposition.report.palette import rung_styles
from decomposition.results.write import output_folder
from decomposition.retraining import Bank, BankPlan, retrain_bank
from decomposition.scores.bootstrap import Draws
from decomposition.scores.crossfit import fold_lds, mask_folds
from decomposition.scores.lds import lds, predicted_effects
from decomposition.scores.levels import Levels

ALSO = "diagonal"
"""What another library has, too."""
SETTINGS = Settings(lattice=False, matrix_norms=False, also=ALSO)
QUICK = replace(SETTINGS, masks=60, second_order_masks=20, resamples=200)
CHOOSING = BankPlan(masks=200, seed=1, second_order_masks=0)
GRID = np.array([0.1, 1.0, 0.01, 10.0, 0.001, 100.0])
"""Dampings tried, as multiples of a method's unit, in this order; more where an end is best."""
MORE, SECONDS = 6, 300.0
"""Decades that may be added, and the processor time after which no damping is added."""
DRAWS = 3
LIBRARIES = ("kronfluence", "dattri", "captum", "curvlinops")
MEMORY = 8 * 2**30
"""Bytes that a method may take."""


@dataclass(frozen=True)
class Outcome:
    """What a method gave under each setting: default, rule, best."""

    dampings: dict[str, float | None] = field(default_factory=dict)
    scores: dict[str, list[np.ndarray]] = field(default_factory=dict)
    """(queries, train) of every draw."""
    failures: dict[str, str] = field(default_factory=dict)
    """Why there are none."""
    seconds: float = np.nan
    """Of the processor, to build the method and to score at one damping."""
    mebibytes: float = np.nan
    """At the peak of that, beyond what the problem takes."""
    at_end: bool = False
    """Whether the best is the smallest or the largest of them."""


def methods() -> list[Method]:
    """Those of every library, and the rungs of ours that they estimate."""
    return [m for part in (ours, kronfluence, dattri, captum, curvlinops) for m in part.methods()]


def attempt(label: str, problem: Problem, bank: Bank, mean: float, draws: int) -> Outcome:
    """Every setting and draw of the method of this label, in this process."""
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):  # some write there
        return _attempt(label, problem, bank, mean, draws)


def _attempt(label: str, problem: Problem, bank: Bank, mean: float, draws: int) -> Outcome:
    method = next(method for method in methods() if method.label == label)
    soft = _status("VmSize") + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (soft, resource.getrlimit(resource.RLIMIT_AS)[1]))
    dampings = dict(zip(("default", "rule"), method.defaults, strict=False))
    unit = None if method.unit is None else method.unit(problem, mean)
    _scorer(method, problem.of_examples(slice(0, 20)), 0)  # imports are not counted
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    held, start = _status("VmRSS"), time.process_time()
    score = _scorer(method, problem, 0)
    score(next(iter(dampings.values()), unit))
    seconds, peak = time.process_time() - start, _status("VmHWM") - held
    tried, at_end = 0, False
    if unit is not None:
        levels = tried_dampings(lambda d: _level(score(d), bank, problem), unit)
        dampings["best"] = best = max(levels, key=lambda damping: levels[damping])
        tried, at_end = len(levels), best in (min(levels), max(levels))
        if not np.isfinite(levels[best]):
            dampings["best"], at_end = None, False
    found = {setting: score(damping) for setting, damping in dampings.items()}
    if "best" in dampings and dampings["best"] is None:
        found["best"] = f"none at any of {tried} dampings"
    failures = {setting: text for setting, text in found.items() if isinstance(text, str)}
    scores = {setting: [s] for setting, s in found.items() if not isinstance(s, str)}
    for seed in range(1, draws if method.samples and scores else 1):
        other = _scorer(method, problem, seed)
        for setting, drawn in scores.items():
            drawn.append(other(dampings[setting]))
    return Outcome(dampings, scores, failures, seconds, peak / 2**20, at_end)


def tried_dampings(level: Callable[[float], float], unit: float) -> dict[float, float]:
    """Damping → level: the grid, decades beyond it while an end is best, half decades at the best.

    Nothing is added after ``SECONDS`` of processor time, nor where no damping gives scores.
    """
    start = time.process_time()
    levels: dict[float, float] = {}

    def add(*dampings: float) -> None:
        for damping in dampings:
            if len(levels) < 2 or time.process_time() - start < SECONDS:
                levels[damping] = level(damping)

    add(*(unit * GRID))
    for _ in range(MORE):
        best, low, high = max(levels, key=lambda d: levels[d]), min(levels), max(levels)
        if not np.isfinite(levels[best]) or low < best < high:
            break
        add(best / 10 if best == low else best * 10)
    best = max(levels, key=lambda d: levels[d])
    if np.isfinite(levels[best]):
        add(best / 10**0.5, best * 10**0.5)
    return levels


def _scorer(
    method: Method, problem: Problem, seed: int
) -> Callable[[float | None], np.ndarray | str]:
    """Scores at a damping, each computed once; or why there are none."""
    try:
        made = method.build(problem, seed)
    except Exception as error:
        said = _said(error)
        return lambda damping: said

    @functools.cache
    def scores(damping: float | None) -> np.ndarray | str:
        try:
            found = np.asarray(made(damping), np.float64)
        except Exception as error:
            return _said(error)
        if not np.isfinite(found).all():
            return "not finite"
        return found if np.ptp(found, axis=1).all() else "one score for all examples of a query"

    return scores


def _said(error: Exception) -> str:
    first = (str(error).splitlines() or [""])[0]
    return f"{type(error).__name__}: {first}"[:120]


def _level(scores: np.ndarray | str, bank: Bank, problem: Problem) -> float:
    """LDS over the models of a bank; −∞ where there are no scores."""
    if isinstance(scores, str):
        return -np.inf
    truth = bank.measurements(problem).mean(1)
    return float(lds(predicted_effects(bank.masks, scores), truth).mean)


def _status(field: str) -> int:
    """Bytes of this process, by /proc."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.partition(f"{field}:")[2].split()[0])


def outcomes(problem: Problem, chosen: list[Method], draws: int, kept: Path) -> dict[str, Outcome]:
    """Label → outcome, each method in a process of its own, one after the other; done once."""
    bank = retrain_bank(problem, CHOOSING, progress=False)
    mean = EKFAC()(problem).trace() / problem.num_parameters
    sources = [path.read_text() for path in sorted(Path(__file__).parent.glob("adapters/*.py"))]
    kept.mkdir(parents=True, exist_ok=True)
    found = {}
    for method in (bar := tqdm(chosen, unit="method", leave=False)):
        bar.set_description(method.label)
        arrays = (problem.theta(), *problem.train, *problem.query)
        data = [np.asarray(array) for array in arrays]  # tensors have another hash each time
        path = kept / f"{joblib.hash((method.label, draws, *data, *sources))}.joblib"
        if not path.exists():
            os.environ["TQDM_DISABLE"] = "1"  # of the process: some libraries have bars of theirs
            with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
                work = pool.submit(attempt, method.label, problem, bank, mean, draws)
                joblib.dump(work.result(), path)
        found[method.label] = joblib.load(path)
    return found


def table(result: xr.DataTree, chosen: list[Method], found: dict[str, Outcome]) -> pd.DataFrame:
    """A row for every method and setting: levels and differences with intervals, draws, costs."""
    levels = Levels.read(result["levels"].to_dataset())
    rows = []
    for method in chosen:
        outcome = found[method.label]
        for setting, damping in outcome.dampings.items():
            row = {
                "library": method.library,
                "method": method.name,
                "setting": setting,
                "damping": "" if damping is None else f"{damping:.2g}",
                "failure": outcome.failures.get(setting, ""),
                "seconds": outcome.seconds,
                "mebibytes": outcome.mebibytes,
                "at_end": outcome.at_end and setting == "best",
            }
            drawn = outcome.scores.get(setting)
            if drawn:
                level = levels.of("tuned", [entry(method, setting)])
                row |= _bounds("lds", level)
                if method.ours in levels.nodes:
                    row |= _bounds("difference", level.minus(levels.of("tuned", [method.ours])))
                each = [_on(result, scores) for scores in drawn]
                row |= {"draws": len(each), "lowest": min(each), "highest": max(each)}
            rows.append(row)
    return pd.DataFrame(rows)


def entry(method: Method, setting: str) -> str:
    """Its name on the bench."""
    return f"{method.label}, {setting}"


def _bounds(name: str, value: Draws) -> dict[str, float]:
    low, estimate, high = value.interval()[0]
    return {name: estimate, f"{name}_lower": low, f"{name}_upper": high}


def _on(result: xr.DataTree, scores: np.ndarray) -> float:
    """LDS of a draw that is not on the bench itself: over the same models, in the same parts."""
    bank = result["bank"].to_dataset()
    outputs, targets = torch.from_numpy(bank["outputs"].values), bank["targets"].values
    flat = outputs.flatten(0, 2).double()
    losses = cross_entropy(
        flat, torch.from_numpy(targets).repeat(len(flat) // len(targets)), "none"
    )
    truth = losses.view(outputs.shape[:3]).mean(1).numpy()
    masks = bank["masks"].values > 0
    folds = mask_folds(len(masks), seed=(SETTINGS.seed, 2))
    return float(fold_lds(predicted_effects(masks, scores), truth, folds).mean())


def markdown(rows: pd.DataFrame) -> str:
    """The table as the documentation has it."""
    lines = [
        "| | damping | LDS [95%] | over draws | minus the exact rung | processor | memory |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows.itertuples():
        damping = f"{row.setting}{f': {row.damping}' if row.damping else ''}"
        damping += " (end of the grid)" * row.at_end
        peak = "" if np.isnan(row.mebibytes) else f"{row.mebibytes:.0f} MiB"
        cost = f"{row.seconds:.1f} s | {peak}"
        if row.failure:
            lines.append(f"| {row.library} {row.method} | {damping} | {row.failure} | | | {cost} |")
            continue
        level = f"{row.lds:.3f} [{row.lds_lower:.3f}, {row.lds_upper:.3f}]"
        drawn = f"{row.lowest:.3f} to {row.highest:.3f}" if row.draws > 1 else ""
        gap = ""
        if np.isfinite(row.difference):
            gap = (
                f"{row.difference:+.3f} [{row.difference_lower:+.3f}, {row.difference_upper:+.3f}]"
            )
        name = f"{row.library} {row.method}"
        lines.append(f"| {name} | {damping} | {level} | {drawn} | {gap} | {cost} |")
    return "\n".join(lines).replace("-0.", "−0.") + "\n"


def figure(rows: pd.DataFrame, result: xr.DataTree) -> Axes:
    """LDS of every method: at its default and rule, and at its best damping."""
    rows = rows[rows["failure"] == ""]
    names = list(dict.fromkeys(rows["library"] + " " + rows["method"]))
    looks = {"default": ("o", "white"), "rule": ("D", "white"), "best": ("o", None)}
    levels = result["shares"]["level"].sel(protocol="tuned", ci_bound="estimate")
    with report_style():
        ax = axes_or_new(None, 7.2, 0.27 * len(names) + 1.2)
        for rung, style in rung_styles(["kfac", "ekfac"]).items():
            level = float(levels.sel(rung=rung))
            ax.axvline(
                level, color=style.color, lw=1.2, ls=style.dash, label=f"exact {rung_label(rung)}"
            )
        for (setting, (marker, face)), shift in zip(looks.items(), (-0.2, 0, 0.2), strict=True):
            some = rows[rows["setting"] == setting]
            y = [names.index(f"{r.library} {r.method}") + shift for r in some.itertuples()]
            ax.errorbar(
                some["lds"],
                y,
                xerr=np.abs(some[["lds_lower", "lds_upper"]].to_numpy().T - some["lds"].to_numpy()),
                fmt=marker,
                color="#333333",
                markerfacecolor=face,
                markersize=4.5,
                elinewidth=1,
                label={"default": "its default", "rule": "its rule", "best": "its best"}[setting],
            )
        ax.set_yticks(range(len(names)), names)
        ax.invert_yaxis()
        ax.set_xlabel("LDS, 95% intervals; lines: the exact rungs at their best λ")
        theirs = rows[~rows["library"].isin(["exact", "one sample"])]
        best = theirs.loc[theirs["lds"].idxmax()]
        name = f"{best.library} {best.method}"
        head(ax, f"Best of the libraries: {name} at its {best.setting}, {best.lds:.3f}")
        ax.legend(loc="lower left")
    return ax


def check_installed() -> None:
    """Say what is missing before anything is computed."""
    missing = [name for name in LIBRARIES if importlib.util.find_spec(name) is None]
    if missing:
        raise SystemExit(f"{', '.join(missing)} not installed: pip install '.[libraries]'")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a small network, 60 subsets, 2 draws")
    parser.add_argument("--problem", default="digits", help="classification by linear layers")
    parser.add_argument("--out", default="libraries", help="folder")
    asked = parser.parse_args()
    check_installed()
    out = output_folder(asked.out)
    problem = load_problem(asked.problem, quick=asked.quick).trained()
    chosen = [method for method in methods() if not (asked.quick and method.slow)]
    found = outcomes(problem, chosen, 2 if asked.quick else DRAWS, out / "methods")
    scores = {
        entry(method, setting): drawn[0]
        for method in chosen
        for setting, drawn in found[method.label].scores.items()
    }
    result = run(problem, out=out, scores=scores, settings=QUICK if asked.quick else SETTINGS)
    rows = table(result, chosen, found)
    rows.to_csv(out / "libraries.csv", index=False)
    (out / "libraries.md").write_text(markdown(rows), "utf-8")
    (out / "libraries.png").write_bytes(png(figure(rows, result)))
    print(markdown(rows))


if __name__ == "__main__":
    main()
