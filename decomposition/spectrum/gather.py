"""Spectral measures of every rung and block: from curvatures, from a result, or from a problem."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import torch
import xarray as xr
from tqdm import tqdm

from decomposition.chain.eigenbasis import in_kronecker_basis
from decomposition.chain.large import check_decay_held
from decomposition.chain.rungs import EKFAC, KFAC
from decomposition.chain.shared_factors import Parts
from decomposition.curvature import Curvature, DenseCurvature
from decomposition.curvature.factors import hessian_diagonals
from decomposition.errors import DecompositionError
from decomposition.problem import Problem
from decomposition.spectrum.dual import dual_eigenvalues
from decomposition.spectrum.large import Estimation, estimated_measure
from decomposition.spectrum.measure import WHOLE, SpectralMeasure, exact_measure, union
from decomposition.spectrum.operators import ggn_operator, hessian_operator

DUAL_SIZE = 8192
"""Largest side N·C of a dual Gram matrix that is decomposed (half a gigabyte)."""


def measures_of(
    rungs: Mapping[str, Curvature], blocks: Sequence[str] | None = None
) -> dict[str, dict[str, SpectralMeasure]]:
    """Exact measures of rungs that are built, whole and for every block they have.

    Args:
        rungs: name → curvature; one that is known by its solver alone is left out.
        blocks: the blocks to take; default all.

    Raises:
        DecompositionError: a block that no rung has.
    """
    measures: dict[str, dict[str, SpectralMeasure]] = {WHOLE: {}}
    there: dict[str, None] = {}
    for rung, curvature in rungs.items():
        try:
            measures[WHOLE][rung] = _exact(curvature)
        except DecompositionError:
            continue
        for block, part in curvature.diagonal_blocks().items():
            there[block] = None
            if blocks is None or block in blocks:
                measures.setdefault(block, {})[rung] = _exact(part)
    check_blocks(blocks, there)
    return measures


def measures_of_result(
    tree: xr.DataTree, blocks: Sequence[str] | None = None
) -> dict[str, dict[str, SpectralMeasure]]:
    """The measures that a result file holds.

    Raises:
        DecompositionError: the result has no spectra, or not that block.
    """
    if "spectrum" not in tree.children or "eigenvalues" not in tree["spectrum"].data_vars:
        raise DecompositionError("the result holds no eigenvalues: run `decompose run` again")
    node = tree.children["spectrum"]
    scopes = {WHOLE: node.to_dataset()}
    for name, child in node.children.items():
        if "eigenvalues" in child.data_vars and (blocks is None or name in blocks):
            scopes[name] = child.to_dataset(inherit=True)
    measures: dict[str, dict[str, SpectralMeasure]] = {}
    for scope, group in scopes.items():
        array = group["eigenvalues"]
        for rung in map(str, array["rung"].values):
            values = array.sel(rung=rung).values
            known = values[np.isfinite(values)]
            if known.size:
                measures.setdefault(scope, {})[rung] = exact_measure(known, "result")
    check_blocks(blocks, node.children)
    return measures


ESTIMATED = ("hessian", "ggn", "block_hessian", "block_ggn", "ekfac_hessian", "ekfac", "kfac")
"""Rungs whose spectra can be had without forming a matrix."""


def estimated_measures(
    problem: Problem,
    rungs: Sequence[str] = ESTIMATED,
    plan: Estimation | None = None,
    blocks: Sequence[str] | None = None,
    progress: bool = False,
) -> dict[str, dict[str, SpectralMeasure]]:
    """Measures of rungs that are never formed.

    H and G through their products; G exactly through its dual Gram matrix where N·C is the
    smaller side; EK-FAC and K-FAC exactly from their factors.

    Raises:
        DecompositionError: unknown rung or block.
    """
    check_decay_held(problem)
    plan = plan or Estimation()
    for rung in rungs:
        if rung not in ESTIMATED:
            raise DecompositionError(f"no rung {rung!r}: use {', '.join(ESTIMATED)}")
    names = [block.name for block in problem.blocks]
    check_blocks(blocks, names)
    measures: dict[str, dict[str, SpectralMeasure]] = {WHOLE: {}}
    kept = names if blocks is None else [name for name in names if name in blocks]
    structured = _structured(problem, rungs)
    for source in ("hessian", "ggn"):
        if source in rungs:
            measures[WHOLE][source] = _of_operator(problem, source, None, plan)
        block_rung = f"block_{source}"
        if block_rung not in rungs and (source not in rungs or not kept):
            continue
        wanted = names if block_rung in rungs else kept
        parts = {}
        for name in tqdm(wanted, desc=f"blocks of {source}", disable=not progress):
            parts[name] = _of_operator(problem, source, name, plan)
        if block_rung in rungs:
            measures[WHOLE][block_rung] = union(list(parts.values()))
        for name in kept:
            both = {source: parts[name], block_rung: parts[name]}
            measures.setdefault(name, {}).update({r: m for r, m in both.items() if r in rungs})
    for rung, curvature in structured.items():
        measures[WHOLE][rung] = _exact(curvature)
        for name in kept:
            part = curvature.diagonal_blocks()[name]
            measures.setdefault(name, {})[rung] = _exact(part)
    return {
        scope: {rung: row[rung] for rung in rungs if rung in row} for scope, row in measures.items()
    }


def _structured(problem: Problem, rungs: Sequence[str]) -> dict[str, Curvature]:
    wanted = [rung for rung in rungs if rung in ("ekfac_hessian", "ekfac", "kfac")]
    if not wanted:
        return {}
    parts = Parts(problem)
    make = {
        "ekfac_hessian": lambda: in_kronecker_basis(
            parts.bases(), hessian_diagonals(problem, parts.bases())
        ),
        "ekfac": lambda: EKFAC().build(parts),
        "kfac": lambda: KFAC().build(parts),
    }
    return {rung: make[rung]() for rung in wanted}


def _of_operator(
    problem: Problem, source: str, block: str | None, plan: Estimation
) -> SpectralMeasure:
    size = problem.num_parameters
    if block is not None:
        size = next(b.size for b in problem.blocks if b.name == block)
    outputs = problem.num_outputs
    if source == "ggn" and problem.num_examples * outputs <= min(size, DUAL_SIZE):
        return exact_measure(dual_eigenvalues(problem, None if block is None else [block]), "dual")
    make = ggn_operator if source == "ggn" else hessian_operator
    operator = make(problem, block)
    if size <= plan.steps:  # small enough to be written out
        matrix = operator.matvec(torch.eye(size, dtype=torch.float64, device=operator.device))
        return _exact(DenseCurvature(0.5 * (matrix + matrix.T)))
    return estimated_measure(operator, plan)


def _exact(curvature: Curvature) -> SpectralMeasure:
    method = "dense" if isinstance(curvature, DenseCurvature) else "structured"
    return exact_measure(curvature.eigenvalues(), method)


def check_blocks(blocks: Sequence[str] | None, known: Iterable[str]) -> None:
    """Nothing, if every block asked for is known.

    Raises:
        DecompositionError: unknown block.
    """
    there = list(known)
    for name in blocks or ():
        if name not in there:
            raise DecompositionError(f"no block {name!r}: the blocks are {', '.join(there)}")
