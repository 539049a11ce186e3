"""How much of K-FAC's eigenvalue error is one scale factor per layer, and does mending it help?

    python analyses/eigen_spectra.py [--quick]

Prints, for the digits network: the mismatch ‖E − K‖² by layer with its scale and shape parts; the
score error against the Hessian of K-FAC, trace-matched K-FAC and EK-FAC at the λ of one effective
dimension; and the band of H's spectrum that each error comes from.
"""

from __future__ import annotations

import sys

import numpy as np
import torch

from decomposition import build_lattice, influence_scores
from decomposition.curvature import BlockDiagonal, Diagonalised, KroneckerCurvature
from decomposition.damping import damping_for_effective_dimension, effective_dimension
from decomposition.problems import load_problem
from decomposition.scores.gradients import loss_gradients
from decomposition.spectrum.bands import score_error
from decomposition.spectrum.mismatch import kronecker_values, mismatch_parts


def trace_matched(kfac: BlockDiagonal, factors: dict[str, float]) -> BlockDiagonal:
    """K-FAC with every layer's eigenvalues multiplied by tr E_l / tr K_l."""
    blocks = {}
    for name, block in kfac.diagonal_blocks().items():
        assert isinstance(block, KroneckerCurvature)
        blocks[name] = KroneckerCurvature(block.basis, factors[name] * block.values)
    return BlockDiagonal(blocks)


def main(quick: bool) -> None:
    problem = load_problem("digits", quick=quick).trained()
    rungs = build_lattice(problem)
    parts = mismatch_parts(kronecker_values(rungs)).sel(match="trace")
    columns = ["error", "factor", "scale", "shape", "log_spread", "true_error", "basis_error"]
    print("Mismatch, relative to ‖E‖²; log_spread in decades\n")
    print(parts[columns].to_dataframe()[columns].round(3).to_string(), "\n")

    names = [str(scope) for scope in parts["scope"].values if scope != "whole"]
    factors = {name: float(parts["factor"].sel(scope=name)) for name in names}
    compared = {name: rungs[name] for name in ("ggn", "block_ggn", "ekfac", "kfac")}
    assert isinstance(rungs["kfac"], BlockDiagonal)
    compared["kfac, traces matched"] = trace_matched(rungs["kfac"], factors)
    hessian = rungs["hessian"]
    assert isinstance(hessian, Diagonalised)
    base = rungs["ggn"].trace() / problem.num_parameters
    target = effective_dimension(hessian.eigenvalues(), base)
    dampings = {
        name: damping_for_effective_dimension(rung.eigenvalues(), target)
        for name, rung in compared.items()
    } | {"reference": base}
    data = score_error(compared, hessian, loss_gradients(problem), dampings)
    reference = influence_scores(problem, hessian, base)
    print(f"Scores against the Hessian's at effective dimension {target:.0f}\n")
    for name, rung in compared.items():
        scores = influence_scores(problem, rung, dampings[name])
        cosine = float((scores * reference).sum() / (torch.norm(scores) * torch.norm(reference)))
        share = data["share"].sel(rung=name)
        worst = str(share["band"].values[int(np.nanargmax(share.values))])
        print(
            f"{name:22} relative error {float(data['relative'].sel(rung=name)):6.3f}   "
            f"cosine {cosine:.3f}   most of it in the band {worst} "
            f"({float(share.sel(band=worst)):.0%})"
        )


if __name__ == "__main__":
    main("--quick" in sys.argv[1:])
