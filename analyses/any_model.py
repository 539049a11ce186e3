"""The chain on a convolutional network and on a transformer, with K-FAC's two ways of sharing.

    python analyses/any_model.py [--quick] [--out any_model/]

For the problems ``digits_cnn`` and ``chars``: what stands in for blocks without a Kronecker form;
then, for every rung, its relative Frobenius error against the Hessian and the GGN, and its LDS
(at its own best λ) against models retrained on random subsets. EK-FAC and K-FAC are there with
positions that *expand* and that *reduce*. ``--quick`` takes small networks and 40 subsets; with
``--out`` each problem's result and report are kept.
"""

from __future__ import annotations

import argparse
import math

import xarray as xr

from decomposition import Settings, run
from decomposition.chain.rungs import EKFAC, KFAC
from decomposition.problems import load_problem
from decomposition.results.write import output_folder

PROBLEMS = ("digits_cnn", "chars")
REDUCED = {"ekfac_reduce": EKFAC(sharing="reduce"), "kfac_reduce": KFAC(sharing="reduce")}
SETTINGS = Settings(masks=200, lattice=False)
QUICK = Settings(masks=40, second_order_masks=10, lattice=False, matrix_norms=False, resamples=200)


def table(result: xr.DataTree) -> str:
    """One line for every rung: its errors, and its LDS with the interval."""
    errors = result["spectral_error"].to_dataset().sel(metric="relative_frobenius")
    level = result["shares"].to_dataset()["level"].sel(protocol="tuned")
    lines = [f"{'':14}{'error: H':>10}{'GGN':>8}     LDS"]
    for rung in map(str, level["rung"].values):
        low, value, high = (
            float(level.sel(rung=rung, ci_bound=bound)) for bound in ("lower", "estimate", "upper")
        )
        known = rung in errors["rung"].values
        both = [
            float(errors[name].sel(rung=rung)) if known else math.nan
            for name in ("value", "value_against_ggn")
        ]
        pair = ["" if math.isnan(error) else f"{error:.3f}" for error in both]
        lines.append(f"{rung:14}{pair[0]:>10}{pair[1]:>8}   {value:6.3f} ({low:.3f} to {high:.3f})")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small networks, 40 subsets")
    parser.add_argument("--out", help="folder for results and reports")
    asked = parser.parse_args()
    for name in PROBLEMS:
        problem = load_problem(name, quick=asked.quick)
        print(f"\n{problem.name}: P = {problem.num_parameters:,}, N = {problem.num_examples:,}")
        print("\n".join(f"  {note}" for note in problem.notes))
        result = run(
            problem,
            out=None if asked.out is None else output_folder(asked.out) / name,
            extra=REDUCED,
            settings=QUICK if asked.quick else SETTINGS,
        )
        print(table(result), flush=True)


if __name__ == "__main__":
    main()
