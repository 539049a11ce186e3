"""Everything about the spectra of a problem or a result, as one tree of labelled tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr

from decomposition.chain.build import CHAIN, LATTICE, build_chain, build_lattice
from decomposition.chain.plan import UNLIMITED, Plan, plan_chain
from decomposition.chain.shared_factors import Parts
from decomposition.curvature import BlockDiagonal, Curvature, Diagonalised
from decomposition.curvature.matrix_free import MatrixFreeCurvature
from decomposition.errors import DecompositionError
from decomposition.problem import Problem
from decomposition.scores.gradients import loss_gradients
from decomposition.spectrum.bands import gradient_energy, score_error
from decomposition.spectrum.density import density
from decomposition.spectrum.measure import WHOLE, Spectra
from decomposition.spectrum.mismatch import (
    Blocks,
    kronecker_values,
    kronecker_values_of_result,
    mismatch_by_decade,
    mismatch_parts,
)
from decomposition.spectrum.perturbation import lattice_steps, movements
from decomposition.spectrum.quadrature import Estimation
from decomposition.spectrum.scopes import DiagonalBlock, spectra_of, spectra_of_result
from decomposition.spectrum.subspaces import cosine_matrix, subspace_overlap
from decomposition.spectrum.summary import effective_dimensions, outliers, summary
from decomposition.spectrum.tables import by_rank, eigenvalue_table

COSINES = 30
"""Leading eigenvectors in a matrix of squared cosines."""


def inspect_problem(
    problem: Problem,
    rungs: Sequence[str] | None = None,
    blocks: Sequence[str] | None = None,
    multiplier: float = 1.0,
    plan: Plan | None = None,
    estimation: Estimation | None = None,
    progress: bool = False,
) -> xr.DataTree:
    """Every section that the forms of the rungs tell.

    Args:
        problem: taken at its model's present parameters.
        rungs: nodes of the lattice; default the chain's five. The first present of hessian, ggn,
            block_ggn is the reference of the sections on eigenvectors.
        blocks: blocks to treat on their own; default all.
        multiplier: λ of the score errors as a multiple of trace(G) / P, the same for all rungs.
        plan: the form of each rung; default all dense.
        estimation: the work on rungs that are known by their products.
        progress: show bars.

    Returns:
        Groups spectrum, rank, density, summary, effective_dimension, outliers, kronecker/{block},
        mismatch, mismatch_by_decade, and, where the reference has eigenvectors, overlap, cosines,
        gradient_energy, score_error, movement; those whose rungs were not asked for are absent.

    Raises:
        DecompositionError: unknown rung or block.
    """
    names = known_rungs(rungs)
    built = lattice(problem, names, plan)
    kept = {name: built[name] for name in names}
    spectra = spectra_of(built, blocks, names, problem, estimation, progress)
    groups = value_sections(spectra, problem.num_outputs)
    if {"block_ggn", "ekfac", "kfac"} <= set(names):
        groups |= mismatch_sections(kronecker_values(kept), blocks)
    reference = next((n for n in ("hessian", "ggn", "block_ggn") if n in names), names[0])
    exact = kept[reference].eigenbasis
    if exact is not None:
        damping = multiplier * float(built["ggn"].trace()) / problem.num_parameters
        groups |= _eigenvector_sections(problem, kept, reference, exact, damping)
    return _tree(groups, problem.name)


def lattice(
    problem: Problem, names: Sequence[str], plan: Plan | None = None
) -> dict[str, Curvature]:
    """The chain and the named nodes of the lattice beside it, in the forms of the plan.

    Raises:
        DecompositionError: the plan has no place for the problem's weight decay.
    """
    if plan is None or plan.dense:
        return build_lattice(problem, plan=plan_chain(problem, UNLIMITED))
    built = build_chain(problem, plan=plan)
    if "block_hessian" in names:
        parts = {b.name: DiagonalBlock(built["hessian"], b.slice) for b in problem.blocks}
        built["block_hessian"] = BlockDiagonal(
            {name: MatrixFreeCurvature(part, name=name) for name, part in parts.items()}
        )
    if "ekfac_hessian" in names:
        built["ekfac_hessian"] = Parts(problem, plan).ekfac_hessian()
    return built


def inspect_result(
    tree: xr.DataTree, rungs: Sequence[str] | None = None, blocks: Sequence[str] | None = None
) -> xr.DataTree:
    """The sections that follow from the eigenvalues in a result; it holds no eigenvectors.

    Raises:
        DecompositionError: no spectra in the result, or no such rung or block.
    """
    spectra = spectra_of_result(tree, blocks)
    there = list(spectra[WHOLE])
    for rung in rungs or ():
        if rung not in there:
            raise DecompositionError(f"no rung {rung!r} in the result: it has {', '.join(there)}")
    if rungs:
        chosen = {s: {r: m for r, m in row.items() if r in rungs} for s, row in spectra.items()}
        spectra = {scope: row for scope, row in chosen.items() if row}
    groups = value_sections(spectra, _outputs(tree))
    if rungs is None or {"ekfac", "kfac"} <= set(rungs):
        groups |= mismatch_sections(kronecker_values_of_result(tree), blocks)
    return _tree(groups, str(tree.attrs.get("problem", "result")))


def value_sections(spectra: Spectra, classes: int | None) -> dict[str, xr.Dataset]:
    """Sections that need eigenvalues alone; outliers only where the number of classes is known."""
    table = eigenvalue_table(spectra)
    groups = {
        "spectrum": table,
        "rank": by_rank(table),
        "density": density(spectra),
        "summary": summary(spectra),
        "effective_dimension": effective_dimensions(spectra),
    }
    if classes is not None:
        groups["outliers"] = outliers(spectra, classes)
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
    for rung in rungs or ():
        if rung not in LATTICE:
            raise DecompositionError(f"no rung {rung!r}: use {', '.join(LATTICE)}")
    return [name for name in LATTICE if name in (rungs or CHAIN)]


def _eigenvector_sections(
    problem: Problem,
    rungs: Mapping[str, Curvature],
    reference: str,
    exact: Diagonalised,
    damping: float,
) -> dict[str, xr.Dataset]:
    gradients, attrs = loss_gradients(problem), {"reference": reference}
    groups = {"gradient_energy": gradient_energy(exact, gradients).assign_attrs(attrs)}
    bases = {name: rung.eigenbasis for name, rung in rungs.items() if name != reference}
    others = {name: basis for name, basis in bases.items() if basis is not None}
    if others:
        count, rung = min(COSINES, exact.size), xr.IndexVariable("rung", list(others))
        overlap = xr.concat([subspace_overlap(c, exact) for c in others.values()], rung)
        cosines = xr.concat([cosine_matrix(c, exact, count) for c in others.values()], rung)
        error = score_error(rungs, exact, gradients, damping)
        groups |= {
            "overlap": overlap.to_dataset(name="overlap").assign_attrs(attrs),
            "cosines": cosines.to_dataset(name="squared_cosine").assign_attrs(attrs),
            "score_error": error.assign_attrs(attrs),
        }
    steps = lattice_steps(list(rungs))
    if steps:
        groups["movement"] = movements(rungs, steps)
    return groups


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
