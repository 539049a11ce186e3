"""Spectra of every rung, whole and by block: of curvatures, or of a result that holds them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import xarray as xr
from torch import Tensor
from tqdm import tqdm

from decomposition.curvature import Curvature
from decomposition.errors import DecompositionError
from decomposition.problem import Problem
from decomposition.spectrum.known import DEFINITE, spectrum_of
from decomposition.spectrum.measure import WHOLE, Spectrum, exact_spectrum
from decomposition.spectrum.quadrature import Estimation


class DiagonalBlock:
    """The block C_ll of a curvature that is known by its products: C v of v zero elsewhere."""

    def __init__(self, whole: Curvature, part: slice) -> None:
        """Nothing is multiplied yet."""
        self.size, self.device = part.stop - part.start, whole.device
        self.notes: tuple[str, ...] = ()
        self._whole, self._part = whole, part

    def matvec(self, v: Tensor) -> Tensor:
        """C_ll v."""
        padded = v.new_zeros(self._whole.size, v.shape[1])
        padded[self._part] = v
        return self._whole.matvec(padded)[self._part]


def spectra_of(
    rungs: Mapping[str, Curvature],
    blocks: Sequence[str] | None = None,
    names: Sequence[str] | None = None,
    problem: Problem | None = None,
    plan: Estimation | None = None,
    progress: bool = False,
) -> dict[str, dict[str, Spectrum]]:
    """Scope → rung → spectrum, exact where the rung's form gives it, else by quadrature.

    Args:
        rungs: name → curvature; one that is known by its solver alone is left out.
        blocks: those to take beside the whole; default all.
        names: the rungs to tell; default all.
        problem: whose blocks are taken of a rung that is known by its products; without it such a
            rung has none.
        plan: the work of a quadrature.
        progress: show a bar.

    Raises:
        DecompositionError: a block that no rung has.
    """
    plan = plan or Estimation()
    found: dict[str, dict[str, Spectrum]] = {WHOLE: {}}
    there: dict[str, None] = {}
    for rung in tqdm(names or list(rungs), desc="spectra", unit="rung", disable=not progress):
        curvature = rungs[rung]
        definite = curvature.definite or rung in DEFINITE
        whole = spectrum_of(curvature, plan, definite)
        if whole is None:
            continue
        found[WHOLE][rung] = whole
        parts: dict[str, Curvature | DiagonalBlock] = dict(blocks_of(rung, rungs))
        if not parts and not whole.exact and problem is not None:
            parts = {b.name: DiagonalBlock(curvature, b.slice) for b in problem.blocks}
        there |= dict.fromkeys(parts)
        for block, part in parts.items():
            if blocks is None or block in blocks:
                spectrum = spectrum_of(part, plan, definite)
                if spectrum is not None:
                    found.setdefault(block, {})[rung] = spectrum
    check_blocks(blocks, there)
    return found


def blocks_of(rung: str, rungs: Mapping[str, Curvature]) -> Mapping[str, Curvature]:
    """Block name → diagonal block of a rung; a GGN held whole alone has those of the block GGN."""
    found = rungs[rung].diagonal_blocks()
    if not found and rung == "ggn" and "block_ggn" in rungs:
        return rungs["block_ggn"].diagonal_blocks()
    return found


def spectra_of_result(
    tree: xr.DataTree, blocks: Sequence[str] | None = None
) -> dict[str, dict[str, Spectrum]]:
    """The spectra that a result file lists.

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
    found: dict[str, dict[str, Spectrum]] = {}
    for scope, group in scopes.items():
        array = group["eigenvalues"]
        for rung in map(str, array["rung"].values):
            values = array.sel(rung=rung).values
            known = values[np.isfinite(values)]
            if known.size:
                found.setdefault(scope, {})[rung] = exact_spectrum(known, method="result")
    check_blocks(blocks, node.children)
    return found


def check_blocks(blocks: Sequence[str] | None, known: Iterable[str]) -> None:
    """Nothing, if every block asked for is known.

    Raises:
        DecompositionError: unknown block.
    """
    there = list(known)
    for name in blocks or ():
        if name not in there:
            raise DecompositionError(f"no block {name!r}: the blocks are {', '.join(there)}")
