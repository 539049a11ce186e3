"""Groups /spectrum and /spectral_error: eigenvalues and spectral errors, whole and per block."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import xarray as xr
from torch import Tensor
from tqdm import tqdm

from decomposition.curvature import Curvature, KroneckerCurvature, NotAvailableError
from decomposition.linalg import to_numpy
from decomposition.spectrum.comparisons import Comparisons, ErrorPlan
from decomposition.spectrum.errors import spectral_errors

REFERENCES = ("hessian", "ggn")
FROM_HESSIAN = ("block_hessian", "ekfac_hessian")


def spectra(rungs: Mapping[str, Curvature]) -> dict[str, xr.Dataset]:
    """Group path → eigenvalues of every rung, and of every rung's diagonal blocks."""
    groups = {"/spectrum": _eigenvalues(rungs, "index")}
    for name, blocks in _by_block(rungs).items():
        data = _eigenvalues(blocks, "block_index").reindex(rung=groups["/spectrum"]["rung"].values)
        for rung in ("ekfac", "kfac"):
            block = blocks.get(rung)
            if isinstance(block, KroneckerCurvature):
                data[f"{rung}_eigenvalues"] = ("block_index", to_numpy(block.basis_values()))
        groups[f"/spectrum/{name}"] = data
    return groups


def errors(
    rungs: Mapping[str, Curvature],
    plan: ErrorPlan,
    queries: Tensor,
    blocks: Mapping[str, slice],
    progress: bool = False,
) -> dict[str, xr.Dataset]:
    """Group path → spectral errors against the Hessian and against the GGN."""
    by_block = _by_block(rungs)
    groups: dict[str, xr.Dataset] = {}
    with tqdm(
        total=2 * (1 + len(by_block)), desc="spectral errors", unit="table", disable=not progress
    ) as bar:
        whole, comparisons = [], Comparisons(plan, queries)
        for reference in REFERENCES:
            candidates = _candidates(rungs, reference)
            whole.append(spectral_errors(candidates, reference, plan, queries, comparisons))
            bar.update()
        groups["/spectral_error"] = _merge(*whole)
        for name, parts in by_block.items():
            pair = []
            inner = replace(plan, protocols={}, leading=min(plan.leading, _size(parts)))
            comparisons = Comparisons(inner, queries[blocks[name]])
            for reference in REFERENCES:
                candidates = _candidates(parts, reference)
                pair.append(
                    spectral_errors(candidates, reference, inner, comparisons.queries, comparisons)
                )
                bar.update()
            merged = _merge(*pair).drop_dims(["damping", "protocol"])
            # A child group shares its parent's rungs: those without blocks are NaN.
            groups[f"/spectral_error/{name}"] = merged.reindex(rung=list(rungs))
    return groups


def _candidates(rungs: Mapping[str, Curvature], reference: str) -> dict[str, Curvature]:
    """Rungs to compare: approximations of H itself are no approximations of the GGN."""
    left_out = () if reference == "hessian" else FROM_HESSIAN
    return {name: rung for name, rung in rungs.items() if name not in left_out}


def _size(parts: Mapping[str, Curvature]) -> int:
    return next(iter(parts.values())).size


def _merge(hessian: xr.Dataset, ggn: xr.Dataset) -> xr.Dataset:
    names = ("value", "standard_error", "damped_value")
    against = ggn[list(names)].rename({name: f"{name}_against_ggn" for name in names})
    return xr.merge([hessian, against.reindex(rung=hessian["rung"].values)])


def _eigenvalues(rungs: Mapping[str, Curvature], index: str) -> xr.Dataset:
    values = {}
    for name, curvature in rungs.items():
        try:
            values[name] = to_numpy(curvature.eigenvalues())
        except NotAvailableError:  # known by its solver alone
            continue
    return xr.Dataset(
        {"eigenvalues": (("rung", index), np.stack(list(values.values())))},
        {"rung": list(values), index: np.arange(len(next(iter(values.values()))))},
    )


def _by_block(rungs: Mapping[str, Curvature]) -> dict[str, dict[str, Curvature]]:
    """Block name → rung → that rung's diagonal block, where it has one."""
    names = rungs["ggn"].diagonal_blocks()
    return {
        name: {
            rung: curvature.diagonal_blocks()[name]
            for rung, curvature in rungs.items()
            if name in curvature.diagonal_blocks()
        }
        for name in names
    }


def decompose_all(rungs: Mapping[str, Curvature], progress: bool = False) -> None:
    """Make every eigendecomposition now, once, under a progress bar."""
    for curvature in tqdm(
        rungs.values(), desc="eigendecompositions", unit="rung", disable=not progress
    ):
        if curvature.eigenbasis is not None:
            curvature.eigenbasis.basis_values()
