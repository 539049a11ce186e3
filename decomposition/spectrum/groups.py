"""The groups of a result that hold spectra and spectral errors, of every run alike."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import xarray as xr
from torch import Tensor
from tqdm import tqdm

from decomposition.chain.build import same_as
from decomposition.chain.plan import Plan
from decomposition.curvature import Curvature, KroneckerCurvature, NotAvailableError
from decomposition.linalg import to_numpy
from decomposition.problem import Problem
from decomposition.spectrum.density import density
from decomposition.spectrum.errors import (
    DAMPED,
    UNKNOWN,
    Comparisons,
    ErrorPlan,
    relative_frobenius,
    spectral_errors,
)
from decomposition.spectrum.known import Known
from decomposition.spectrum.measure import WHOLE
from decomposition.spectrum.scopes import blocks_of
from decomposition.spectrum.summary import effective_dimensions, summary
from decomposition.spectrum.tables import ends_table

ERRORS = "/spectral_error"
REFERENCES = ("hessian", "ggn")
FROM_HESSIAN = ("block_hessian", "ekfac_hessian")
"""Approximations of H itself are no approximations of the GGN."""
DAMPINGS = (0.01, 0.1, 1.0, 10.0, 100.0)
"""Of effective dimensions, as multiples of the mean non-zero eigenvalue of G."""
LISTED = 100_000
"""P up to which eigenvalues are listed one by one; above, densities and counts tell them."""


def spectral_groups(
    known: Known,
    problem: Problem,
    plan: Plan,
    errors: ErrorPlan | None,
    queries: Tensor | None = None,
    progress: bool = False,
) -> dict[str, xr.Dataset]:
    """Group path → forms, spectra and spectral errors, each number with its error.

    Args:
        known: what the rungs' forms tell of them.
        problem: whose N·C and blocks they have.
        plan: the form of each rung.
        errors: dampings and options of the spectral errors; None: no more is told than the forms
            and the relative Frobenius errors from H, which cost little.
        queries: query gradients (P, Q), where they are in memory.
        progress: show a bar over the tables of errors.
    """
    if errors is None:
        return {"/forms": forms_group(known, plan), "/spectral_error": _frobenius_group(known)}
    found = error_groups(known, problem, errors, queries, progress)
    return {
        "/forms": forms_group(known, plan),
        **value_groups(known, problem),
        **eigenvalue_groups(known.rungs, known),
        **found,
    }


def value_groups(known: Known, problem: Problem) -> dict[str, xr.Dataset]:
    """Density, summary, ends and effective dimensions of every rung, exact or estimated."""
    spectra = {WHOLE: known.spectra}
    rows = problem.num_examples * problem.num_outputs
    scale = known.frobenius.traces["ggn"] / min(problem.num_parameters, rows)
    drawn = density(spectra).assign(
        products=(("scope", "rung"), [[known.products[name] for name in known.spectra]])
    )
    drawn["estimated"] = drawn["estimated"].astype(int)
    told = summary(spectra).drop_sel(quantity=["trace", "frobenius"])  # they stand in /forms
    dimensions = effective_dimensions(spectra, [m * scale for m in DAMPINGS])
    groups = {
        "/spectral_density": drawn.reset_coords("eigenvalue"),
        "/spectral_summary": told.transpose("quantity", ...),
        "/spectral_ends": ends_table(spectra),
        "/effective_dimension": dimensions,
    }
    return {
        path: data.transpose("scope", ...).isel(scope=0, drop=True) for path, data in groups.items()
    }


def eigenvalue_groups(rungs: Mapping[str, Curvature], known: Known) -> dict[str, xr.Dataset]:
    """Eigenvalues of the rungs that have them, and of their diagonal blocks."""
    exact = {name: rung for name, rung in rungs.items() if name in known.spectra}
    exact = {name: rung for name, rung in exact.items() if known.spectra[name].exact}
    if not exact or next(iter(exact.values())).size > LISTED:
        return {}
    groups = {"/spectrum": _eigenvalues(exact, "index")}
    for block, parts in by_block(exact).items():
        data = _eigenvalues(parts, "block_index").reindex(rung=list(exact))
        for rung in ("ekfac", "kfac"):
            part = parts.get(rung)
            if isinstance(part, KroneckerCurvature):
                data[f"{rung}_eigenvalues"] = ("block_index", to_numpy(part.basis_values()))
        groups[f"/spectrum/{block}"] = data
    return groups


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


def error_groups(
    known: Known,
    problem: Problem,
    plan: ErrorPlan,
    queries: Tensor | None = None,
    progress: bool = False,
) -> dict[str, xr.Dataset]:
    """Spectral errors against the Hessian and against the GGN, whole and by block.

    Blocks are compared where both references have theirs as matrices. What needs eigenvectors is
    absent where no rung can tell it.
    """
    rungs = {name: rung for name, rung in known.rungs.items() if name in known.spectra}
    everyone = list(known.rungs)
    matrices = all(known.rungs[name].eigenbasis is not None for name in REFERENCES)
    scopes = by_block(known.rungs) if matrices else {}
    slices = {block.name: block.slice for block in problem.blocks}
    groups: dict[str, xr.Dataset] = {}
    with tqdm(
        total=1 + len(scopes), desc="spectral errors", unit="table", disable=not progress
    ) as bar:
        whole = _against_both(rungs, Comparisons(plan, queries, known, known.distances))
        groups["/spectral_error"] = _told(whole.reindex(rung=everyone))
        bar.update()
        for name, parts in scopes.items():
            size = next(iter(parts.values())).size
            inner = replace(plan, protocols={}, leading=min(plan.leading, size))
            part = None if queries is None else queries[slices[name]]
            comparisons = Comparisons(inner, part, distances=known.distances)
            data = _against_both(parts, comparisons).drop_dims(["damping", "protocol"])
            # A child group shares its parent's rungs: those without blocks are NaN.
            groups[f"/spectral_error/{name}"] = data.reindex(rung=everyone)
            bar.update()
    return groups


def add_metrics(groups: dict[str, xr.Dataset], rows: Mapping[str, xr.Dataset]) -> None:
    """Put more metrics behind those of ``/spectral_error`` and its blocks, which share one list.

    Args:
        groups: path → group, ``/spectral_error`` among them.
        rows: path → what is told of the new metrics, ``/spectral_error`` among them; a block that
            is not among the groups joins them.
    """
    errors, added = groups[ERRORS], rows[ERRORS]
    order = {
        "metric": [*errors["metric"].values.tolist(), *added["metric"].values.tolist()],
        "rung": errors["rung"].values,
    }
    if "protocol" in added.coords:
        order["protocol"] = added["protocol"].values
    for path in {path: None for path in (*groups, *rows) if path.startswith(ERRORS)}:
        parts = [found[path] for found in (groups, rows) if path in found]
        data = parts[0].combine_first(parts[-1])
        data = data.reindex({dim: order[dim] for dim in order if dim in data.dims})
        counts = (one for part in parts for one in part.data_vars.items() if not one[1].dims)
        groups[path] = data.assign(dict(counts))  # whole numbers, which combining made floats


def _frobenius_group(known: Known) -> xr.Dataset:
    """The errors that cost little."""
    found = relative_frobenius(known)
    numbers = [found.get(name, UNKNOWN) for name in known.rungs]
    dims = ("metric", "rung")
    return xr.Dataset(
        {
            "value": (dims, [[float(one) for one in numbers]]),
            "standard_error": (dims, [[one.error for one in numbers]]),
        },
        {"metric": ["relative_frobenius"], "rung": list(known.rungs)},
    )


def _against_both(rungs: Mapping[str, Curvature], comparisons: Comparisons) -> xr.Dataset:
    tables = []
    for reference in REFERENCES:
        left_out = () if reference == "hessian" else FROM_HESSIAN
        candidates = {name: rung for name, rung in rungs.items() if name not in left_out}
        tables.append(spectral_errors(candidates, reference, comparisons.plan, None, comparisons))
    hessian, ggn = tables
    against = ggn[["value", "standard_error", "damped_value"]]
    against = against.rename({name: f"{name}_against_ggn" for name in against.data_vars})
    return hessian.merge(against.reindex(rung=hessian["rung"].values))


def _told(data: xr.Dataset) -> xr.Dataset:
    """Without the errors of damped inverses where none is known."""
    if bool(data["damped_value"].sel(metric=list(DAMPED)).notnull().any()):
        return data
    return data.drop_dims(["damping", "protocol"])


def by_block(rungs: Mapping[str, Curvature]) -> dict[str, dict[str, Curvature]]:
    """Block name → rung → that rung's diagonal block, where it has one."""
    blocks = {name: blocks_of(name, rungs) for name in rungs}
    names = blocks.get("ggn") or blocks.get("ekfac") or {}
    return {
        name: {rung: parts[name] for rung, parts in blocks.items() if name in parts}
        for name in names
    }


def forms_group(known: Known, plan: Plan) -> xr.Dataset:
    """How each rung was held, what its solves cost, its norm and its trace."""
    rungs = known.rungs
    held = [same_as(rungs, name) for name in rungs]
    records = [rung.record for rung in rungs.values()]
    numbers = {
        key: [found.get(name) for name in rungs]
        for key, found in (
            ("squared_norm", known.frobenius.norms),
            ("trace", known.frobenius.traces),
        )
    }
    columns = {
        "form": [plan.choices[one].way if one in plan.choices else "given" for one in held],
        "products": [sum(one.products for one in record) for record in records],
        "systems": [sum(one.columns for one in record) for record in records],
        "residual": [max((one.residual for one in record), default=0.0) for record in records],
    }
    for key, found in numbers.items():
        columns[key] = [np.nan if one is None else float(one) for one in found]
        columns[f"{key}_error"] = [np.nan if one is None else one.error for one in found]
    return xr.Dataset(
        {key: ("rung", values) for key, values in columns.items()}, {"rung": list(rungs)}
    )
