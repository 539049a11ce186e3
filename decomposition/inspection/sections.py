"""The sections of a spectral inspection as one tree of labelled tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr

from decomposition.chain.build import LATTICE, build_lattice
from decomposition.curvature.operator import Curvature
from decomposition.errors import DecompositionError
from decomposition.problem import Problem
from decomposition.scores.gradients import loss_gradients
from decomposition.spectrum.bands import gradient_energy, score_error
from decomposition.spectrum.density import density
from decomposition.spectrum.eigenvectors import cosine_matrix, subspace_overlap
from decomposition.spectrum.gather import estimated_measures, measures_of, measures_of_result
from decomposition.spectrum.large import Estimation
from decomposition.spectrum.measure import WHOLE, Measures
from decomposition.spectrum.mismatch import (
    Blocks,
    kronecker_values,
    kronecker_values_of_result,
    mismatch_by_decade,
    mismatch_parts,
)
from decomposition.spectrum.perturbation import lattice_steps, movements
from decomposition.spectrum.summary import effective_dimensions, outliers, summary
from decomposition.spectrum.tables import by_rank, eigenvalue_table

COSINES = 30
"""Leading eigenvectors in a matrix of squared cosines."""


def inspect_problem(
    problem: Problem,
    rungs: Sequence[str] | None = None,
    blocks: Sequence[str] | None = None,
    multiplier: float = 1.0,
) -> xr.DataTree:
    """Every section, from matrices that are formed and decomposed.

    Args:
        problem: taken at its model's present parameters.
        rungs: nodes of the lattice; default the chain's five. The first present of hessian, ggn,
            block_ggn is the reference of the sections on eigenvectors.
        blocks: blocks to treat on their own; default all.
        multiplier: λ of the score errors as a multiple of trace(G) / P, the same for all rungs.

    Returns:
        Groups spectrum, rank, density, summary, effective_dimension, outliers, kronecker/{block},
        mismatch, mismatch_by_decade, overlap, cosines, gradient_energy, score_error, movement;
        those whose rungs were not asked for are absent.

    Raises:
        DecompositionError: unknown rung or block.
    """
    names = known_rungs(rungs)
    built = build_lattice(problem)
    kept: dict[str, Curvature] = {name: built[name] for name in names}
    measures = measures_of(kept, blocks)
    groups = value_sections(measures, problem.num_outputs)
    if {"block_ggn", "ekfac", "kfac"} <= set(names):
        groups |= mismatch_sections(kronecker_values(kept), blocks)
    reference = next((n for n in ("hessian", "ggn", "block_ggn") if n in names), names[0])
    exact = kept[reference].eigenbasis
    assert exact is not None
    gradients = loss_gradients(problem)
    damping = multiplier * built["ggn"].trace() / problem.num_parameters
    groups["gradient_energy"] = gradient_energy(exact, gradients)
    if len(kept) > 1:
        groups |= _eigenvectors(kept, reference)
        groups["score_error"] = score_error(kept, exact, gradients, damping)
    steps = lattice_steps(names)
    if steps:
        groups["movement"] = movements(kept, steps)
    for name in ("gradient_energy", "score_error"):
        if name in groups:
            groups[name].attrs["reference"] = reference
    return _tree(groups, problem.name)


def estimate_problem(
    problem: Problem,
    rungs: Sequence[str] | None = None,
    blocks: Sequence[str] | None = None,
    plan: Estimation | None = None,
    progress: bool = False,
) -> xr.DataTree:
    """The sections on eigenvalues, no matrix formed: for models too large for the other way.

    Raises:
        DecompositionError: unknown rung or block.
    """
    measures = estimated_measures(problem, known_rungs(rungs), plan, blocks, progress)
    return _tree(value_sections(measures, problem.num_outputs), problem.name)


def inspect_result(
    tree: xr.DataTree, rungs: Sequence[str] | None = None, blocks: Sequence[str] | None = None
) -> xr.DataTree:
    """The sections that follow from the eigenvalues in a result; it holds no eigenvectors.

    Raises:
        DecompositionError: no spectra in the result, or no such rung or block.
    """
    measures = measures_of_result(tree, blocks)
    there = list(measures[WHOLE])
    for rung in rungs or ():
        if rung not in there:
            raise DecompositionError(f"no rung {rung!r} in the result: it has {', '.join(there)}")
    if rungs:
        measures = {s: {r: m for r, m in row.items() if r in rungs} for s, row in measures.items()}
        measures = {scope: row for scope, row in measures.items() if row}
    groups = value_sections(measures, _outputs(tree))
    if rungs is None or {"ekfac", "kfac"} <= set(rungs):
        groups |= mismatch_sections(kronecker_values_of_result(tree), blocks)
    return _tree(groups, str(tree.attrs.get("problem", "result")))


def value_sections(measures: Measures, classes: int | None) -> dict[str, xr.Dataset]:
    """Sections that need eigenvalues alone; outliers only where the number of classes is known."""
    table = eigenvalue_table(measures)
    groups = {
        "spectrum": table,
        "rank": by_rank(table),
        "density": density(measures),
        "summary": summary(measures),
        "effective_dimension": effective_dimensions(measures),
    }
    if classes is not None:
        groups["outliers"] = outliers(table, classes)
    return groups


def mismatch_sections(found: Blocks, blocks: Sequence[str] | None) -> dict[str, xr.Dataset]:
    """Sections on the Kronecker eigenvectors, for the blocks asked for."""
    kept = {name: data for name, data in found.items() if blocks is None or name in blocks}
    if not kept:
        return {}
    groups = {f"kronecker/{name}": data for name, data in kept.items()}
    groups["mismatch"] = mismatch_parts(kept)
    groups["mismatch_by_decade"] = mismatch_by_decade(kept)
    return groups


def known_rungs(rungs: Sequence[str] | None) -> list[str]:
    """The rungs asked for, in the lattice's order; default the chain.

    Raises:
        DecompositionError: unknown rung.
    """
    chain = ("hessian", "ggn", "block_ggn", "ekfac", "kfac")
    for rung in rungs or ():
        if rung not in LATTICE:
            raise DecompositionError(f"no rung {rung!r}: use {', '.join(LATTICE)}")
    return [name for name in LATTICE if name in (rungs or chain)]


def _eigenvectors(rungs: Mapping[str, Curvature], reference: str) -> dict[str, xr.Dataset]:
    exact = rungs[reference].eigenbasis
    assert exact is not None
    bases = {name: rung.eigenbasis for name, rung in rungs.items() if name != reference}
    others = {name: basis for name, basis in bases.items() if basis is not None}
    count = min(COSINES, exact.size)
    rung = xr.IndexVariable("rung", list(others))
    overlap = xr.concat([subspace_overlap(c, exact) for c in others.values()], rung)
    cosines = xr.concat([cosine_matrix(c, exact, count) for c in others.values()], rung)
    attrs = {"reference": reference}
    return {
        "overlap": overlap.to_dataset(name="overlap").assign_attrs(attrs),
        "cosines": cosines.to_dataset(name="squared_cosine").assign_attrs(attrs),
    }


def _outputs(tree: xr.DataTree) -> int | None:
    """C as far as a result tells: the width of the retrained models' outputs."""
    if "bank" not in tree.children:
        return None
    sizes = tree.children["bank"].to_dataset().sizes
    return int(sizes["output"]) if "output" in sizes else None


def _tree(groups: Mapping[str, xr.Dataset], problem: str) -> xr.DataTree:
    for data in groups.values():
        for name in ("scope", "rung"):
            if name in data.coords:
                data[name] = data[name].astype(str)
    tree = xr.DataTree.from_dict({f"/{name}": data for name, data in groups.items()})
    tree.attrs["problem"] = problem
    largest = np.nanmax(np.abs(groups["spectrum"]["eigenvalues"].values))
    tree.attrs["largest_eigenvalue"] = float(largest)
    return tree
