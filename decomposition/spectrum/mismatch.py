"""Eigenvalue mismatch: K-FAC's products against the exact curvature along the same eigenvectors.

For a layer with Kronecker eigenvectors q_i, the products p_i = σα, the exact values
e_i = q_iᵀ G_ll q_i (EK-FAC) and h_i = q_iᵀ H_ll q_i. Since both matrices are diagonal in that
basis, ‖E − K‖²_F = Σ (e_i − p_i)². One number can mend part of it:

    trace-matched   c = Σe / Σp      leaves ‖e − cp‖²  (what one scale factor from the trace mends)
    least squares   c* = e·p / p·p   leaves ‖e − c*p‖², and ‖e − p‖² = ‖e − c*p‖² + (1 − c*)² ‖p‖²

What is left is shape. The least-squares split is orthogonal, so that its parts are never
negative; trace matching can make the squared error larger, and then its scale part is negative.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import xarray as xr
from jaxtyping import Float

from decomposition.curvature import Curvature, KroneckerCurvature
from decomposition.errors import DecompositionError
from decomposition.linalg import to_numpy
from decomposition.spectrum.distances import Distances

PARTS = ("scale", "diagonal", "basis")
"""Of ‖B − K‖²: one scale for each layer, the rest of the diagonal, the eigenbasis."""
FLOOR = 1e-12
"""Fraction of the largest value of a block below which a value counts as zero."""

Blocks = Mapping[str, xr.Dataset]
"""Block → values along its Kronecker eigenvectors, from either reader below."""


def kronecker_values(rungs: Mapping[str, Curvature]) -> dict[str, xr.Dataset]:
    """Block → product(vector), exact(vector), true(vector), and hessian(vector) where it is built.

    ``product`` and ``exact`` are paired: entry i belongs to the i-th Kronecker eigenvector.
    ``true`` are the block's eigenvalues, ascending, paired with nothing; absent where the block
    GGN is known by its products.

    Raises:
        DecompositionError: the rungs lack ekfac, kfac or block_ggn.
    """
    missing = [rung for rung in ("ekfac", "kfac", "block_ggn") if rung not in rungs]
    if missing:
        raise DecompositionError(f"the mismatch needs the rungs {', '.join(missing)}")
    found: dict[str, xr.Dataset] = {}
    for name, part in rungs["ekfac"].diagonal_blocks().items():
        product = rungs["kfac"].diagonal_blocks()[name]
        if not (isinstance(part, KroneckerCurvature) and isinstance(product, KroneckerCurvature)):
            continue
        values = {
            "product": to_numpy(product.basis_values()),
            "exact": to_numpy(part.basis_values()),
        }
        block = rungs["block_ggn"].diagonal_blocks().get(name)
        if block is not None:  # products alone have no blocks
            values["true"] = to_numpy(block.eigenvalues())
        if "ekfac_hessian" in rungs:
            of_h = rungs["ekfac_hessian"].diagonal_blocks()[name]
            if isinstance(of_h, KroneckerCurvature):
                values["hessian"] = to_numpy(of_h.basis_values())
        found[name] = _block(values)
    return found


def kronecker_values_of_result(tree: xr.DataTree) -> dict[str, xr.Dataset]:
    """The same from a result file; empty if the result has no paired eigenvalues."""
    if "spectrum" not in tree.children:
        return {}
    found: dict[str, xr.Dataset] = {}
    for name, child in tree["spectrum"].children.items():
        node = child.to_dataset(inherit=True)
        if not {"ekfac_eigenvalues", "kfac_eigenvalues"} <= set(node.data_vars):
            continue
        values = {
            "product": node["kfac_eigenvalues"].values,
            "exact": node["ekfac_eigenvalues"].values,
        }
        if "block_ggn" in node["rung"].values:
            values["true"] = node["eigenvalues"].sel(rung="block_ggn").values
        found[name] = _block(values)
    return found


def mismatch_parts(blocks: Blocks) -> xr.Dataset:
    """How much of ‖E − K‖² is one scale factor and how much is shape, by block and in total.

    Returns:
        With dimension ``scope`` (whole, then blocks): error(scope) = ‖e − p‖² / ‖e‖²;
        factor(match, scope), scale(match, scope) and shape(match, scope) with
        scale + shape = error, for ``match`` trace and least_squares, one factor per layer;
        log_bias, log_spread(scope): mean and standard deviation of log₁₀(p/e) weighted by e;
        true_error(scope) = ‖sort(p) − sort(true)‖² / ‖true‖² and basis_error(scope), the same
        of e: K-FAC's and EK-FAC's distance from the block's true spectrum.

    Raises:
        DecompositionError: there are no blocks.
    """
    if not blocks:
        raise DecompositionError("no block has values along Kronecker eigenvectors")
    names = ["whole", *blocks]
    keys = ("error", "log_bias", "log_spread", "true_error", "basis_error")
    plain = {key: np.full(len(names), np.nan) for key in keys}
    split = {key: np.full((2, len(names)), np.nan) for key in ("factor", "scale", "shape")}
    pairs = [(data["exact"].values, data["product"].values) for data in blocks.values()]
    factors = np.array(
        [
            [_ratio(float(e.sum()), float(p.sum())), _ratio(float(e @ p), _squared(p))]
            for e, p in pairs
        ]
    ).T
    whole = tuple(np.concatenate(side) for side in zip(*pairs, strict=True))
    for column, (e, p) in enumerate([whole, *pairs]):
        norm = _squared(e)
        plain["error"][column] = _ratio(_squared(e - p), norm)
        for m in range(2):
            if column == 0:
                matched = np.concatenate(
                    [c * q for c, (_, q) in zip(factors[m], pairs, strict=True)]
                )
            else:
                split["factor"][m, column] = factors[m, column - 1]
                matched = factors[m, column - 1] * p
            shape = _ratio(_squared(e - matched), norm)
            split["shape"][m, column] = shape
            split["scale"][m, column] = plain["error"][column] - shape
        plain["log_bias"][column], plain["log_spread"][column] = _log_moments(e, p)
    trues = [data["true"].values if "true" in data else None for data in blocks.values()]
    if all(true is not None for true in trues):
        for column, true in enumerate(
            [np.concatenate([t for t in trues if t is not None]), *trues]
        ):
            assert true is not None
            e, p = (np.sort(side) for side in (whole if column == 0 else pairs[column - 1]))
            t = np.sort(true)
            plain["true_error"][column] = _ratio(_squared(p - t), _squared(t))
            plain["basis_error"][column] = _ratio(_squared(e - t), _squared(t))
    return xr.Dataset(
        {key: ("scope", value) for key, value in plain.items()}
        | {key: (("match", "scope"), value) for key, value in split.items()},
        {"scope": names, "match": ["trace", "least_squares"]},
    )


def eigenvalue_error(
    rungs: Mapping[str, Curvature], distances: Distances | None = None
) -> xr.Dataset | None:
    """What K-FAC's error from the block GGN is made of, layer by layer: it adds up exactly.

        ‖B − K‖² = Σ_l (1 − c_l)² ‖p‖² + ‖e − c_l p‖² + ‖B_l − E_l‖²,      c_l = e·p / p·p

    one scale for each layer, the rest of the diagonal in K-FAC's basis, and what no diagonal there
    can have.

    Args:
        rungs: the chain, and others beside it.
        distances: those that are known already.

    Returns:
        squared(part, layer) for part scale, diagonal and basis, in units of curvature²; zero for
        layers that have no Kronecker form. None where the block GGN is known by its products alone.
    """
    distances = distances or Distances()
    blocks, found = rungs["block_ggn"].diagonal_blocks(), {}
    for name, part in rungs["ekfac"].diagonal_blocks().items():
        if name not in blocks or blocks[name].matrix_free:
            return None
        exact, product = part.eigenbasis, rungs["kfac"].diagonal_blocks()[name].eigenbasis
        if exact is None or product is None:
            return None
        e, p = exact.basis_values(), product.basis_values()
        c = float(e @ p) / (float(p @ p) or 1.0)
        basis = blocks[name].eigenbasis
        if basis is None:  # by its Gram matrix: E is a projection of B
            left = float(blocks[name].frobenius_norm()) ** 2 - float(e @ e)
        else:
            left = distances.squared(basis, exact)
        found[name] = [
            (1.0 - c) ** 2 * float(p @ p),
            float((e - c * p).square().sum()),
            max(left, 0.0),
        ]
    return xr.Dataset(
        {"squared": (("part", "layer"), np.transpose(list(found.values())))},
        {"part": list(PARTS), "layer": list(found)},
    )


def mismatch_by_decade(blocks: Blocks) -> xr.Dataset:
    """Over- and under-estimation by decade of the exact value.

    Returns:
        With dimensions ``scope`` and ``decade`` (⌊log₁₀ e⌋): count; median, lower and upper
        quartile of the ratio p / e; over = Σ max(p − e, 0) and under = Σ max(e − p, 0), in units
        of curvature; squared = Σ (e − p)², the decade's part of ‖E − K‖². Vectors whose exact
        value is zero stand in ``over_zero(scope)``, the Σ p that K-FAC puts where there is none.
    """
    scopes = {"whole": tuple(blocks.values())} | {name: (data,) for name, data in blocks.items()}
    rows = {
        name: tuple(np.concatenate([d[key].values for d in parts]) for key in ("exact", "product"))
        for name, parts in scopes.items()
    }
    positive = {name: e > FLOOR * e.max(initial=0.0) for name, (e, _) in rows.items()}
    all_decades = [
        np.floor(np.log10(e[positive[name]])).astype(int) for name, (e, _) in rows.items()
    ]
    seen = np.concatenate(all_decades)
    decades = np.arange(seen.min(), seen.max() + 1) if seen.size else np.array([0])
    keys = ("count", "median", "lower", "upper", "over", "under", "squared")
    out = {key: np.full((len(rows), len(decades)), np.nan) for key in keys}
    over_zero = np.zeros(len(rows))
    for i, ((name, (e, p)), place) in enumerate(zip(rows.items(), all_decades, strict=True)):
        over_zero[i] = p[~positive[name]].sum()
        e, p = e[positive[name]], p[positive[name]]
        for j, decade in enumerate(decades):
            here = place == decade
            out["count"][i, j] = here.sum()
            if not here.any():
                continue
            gap = p[here] - e[here]
            quartiles = np.quantile(p[here] / e[here], [0.25, 0.5, 0.75])
            out["lower"][i, j], out["median"][i, j], out["upper"][i, j] = quartiles
            out["over"][i, j] = np.maximum(gap, 0.0).sum()
            out["under"][i, j] = np.maximum(-gap, 0.0).sum()
            out["squared"][i, j] = _squared(gap)
    return xr.Dataset(
        {key: (("scope", "decade"), value) for key, value in out.items()}
        | {"over_zero": ("scope", over_zero)},
        {"scope": list(rows), "decade": decades},
    )


def _block(values: Mapping[str, Float[np.ndarray, " n"]]) -> xr.Dataset:
    count = len(values["exact"])
    kept = {key: value for key, value in values.items() if len(value) == count}
    return xr.Dataset(
        {key: ("vector", np.asarray(value, float)) for key, value in kept.items()},
        {"vector": np.arange(count)},
    )


def _log_moments(e: np.ndarray, p: np.ndarray) -> tuple[float, float]:
    top = max(e.max(initial=0.0), p.max(initial=0.0))
    keep = (e > FLOOR * top) & (p > FLOOR * top)
    if not keep.any():
        return np.nan, np.nan
    log, weight = np.log10(p[keep] / e[keep]), e[keep] / e[keep].sum()
    mean = float(weight @ log)
    return mean, float(np.sqrt(weight @ (log - mean) ** 2))


def _squared(x: np.ndarray) -> float:
    return float(np.sum(x * x))


def _ratio(above: float, below: float) -> float:
    return above / below if below else np.nan
