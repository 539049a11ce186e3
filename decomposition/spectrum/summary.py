"""Numbers that sum a spectrum up, its effective dimension against λ, and its outliers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import xarray as xr
from jaxtyping import Float

from decomposition.errors import DecompositionError
from decomposition.spectrum.measure import Measures
from decomposition.spectrum.tables import eigenvalue_table

Array = Float[np.ndarray, " m"]

ROUNDING = 1e-12
"""Fraction of the largest |μ| below which an eigenvalue counts as zero."""


def _trace(mu: Array, w: Array) -> float:
    return float(w @ mu)


def _frobenius(mu: Array, w: Array) -> float:
    return float(np.sqrt(w @ mu**2))


def _nuclear(mu: Array, w: Array) -> float:
    return float(w @ np.abs(mu))


def _spectral(mu: Array, w: Array) -> float:
    return float(np.abs(mu).max())


def _numerical_rank(mu: Array, w: Array) -> float:
    return float(w[np.abs(mu) > ROUNDING * np.abs(mu).max()].sum())


def _effective_rank(mu: Array, w: Array) -> float:
    size = np.abs(mu)
    total = float(w @ size)
    if total == 0:
        return 0.0
    share = size / total
    return float(np.exp(-(w @ np.where(share > 0, share * np.log(np.maximum(share, 1e-300)), 0))))


def _stable_rank(mu: Array, w: Array) -> float:
    top = np.abs(mu).max()
    return float(w @ (mu / top) ** 2) if top > 0 else 0.0


def _negative_count(mu: Array, w: Array) -> float:
    return float(w[mu < -ROUNDING * np.abs(mu).max()].sum())


def _negative_share(mu: Array, w: Array) -> float:
    total = float(w @ np.abs(mu))
    return float(w @ np.maximum(-mu, 0.0)) / total if total else 0.0


QUANTITIES: dict[str, tuple[Callable[[Array, Array], float], str]] = {
    "trace": (_trace, "Σ μ"),
    "frobenius": (_frobenius, "√Σ μ²"),
    "nuclear": (_nuclear, "Σ |μ|"),
    "spectral": (_spectral, "max |μ|"),
    "numerical_rank": (_numerical_rank, "number of |μ| above 10⁻¹² of the largest"),
    "effective_rank": (_effective_rank, "exp(−Σ p log p), p = |μ| / Σ|μ| (Roy & Vetterli 2007)"),
    "stable_rank": (_stable_rank, "Σ μ² / max μ²"),
    "negative_count": (_negative_count, "number of negative eigenvalues, beyond rounding"),
    "negative_share": (_negative_share, "Σ_{μ<0} |μ| / Σ |μ|"),
}
"""Name → statistic and formula."""

COUNTS = ("numerical_rank", "negative_count")
"""Discontinuous at 0, where most eigenvalues lie: quadrature cannot tell them."""


def summary(measures: Measures) -> xr.Dataset:
    """value(quantity, scope, rung) and standard_error (0 where the spectrum is exact).

    ``COUNTS`` are NaN where the spectrum is estimated.
    """
    table = eigenvalue_table(measures)
    rungs = [str(r) for r in table["rung"].values]
    shape = (len(QUANTITIES), table.sizes["scope"], len(rungs))
    value, error = np.full(shape, np.nan), np.full(shape, np.nan)
    for i, row in enumerate(measures.values()):
        for rung, measure in row.items():
            for q, (name, (function, _)) in enumerate(QUANTITIES.items()):
                if name in COUNTS and not measure.exact:
                    continue
                place = (q, i, rungs.index(rung))
                value[place], error[place] = measure.statistic(function)
    dims = ("quantity", "scope", "rung")
    return xr.Dataset(
        {"value": (dims, value), "standard_error": (dims, error)},
        {
            "quantity": list(QUANTITIES),
            "scope": table["scope"],
            "rung": table["rung"],
            "formula": ("quantity", [formula for _, formula in QUANTITIES.values()]),
        },
    )


def effective_dimensions(measures: Measures, dampings: Sequence[float] | None = None) -> xr.Dataset:
    """dimension(scope, rung, damping) = Σ |μ| / (|μ| + λ), and its standard_error.

    The number of directions that the damping leaves alone. Default dampings: 61 points over
    nine decades below the largest |μ| and one above.

    Raises:
        DecompositionError: a damping is not positive.
    """
    table = eigenvalue_table(measures)
    rungs = [str(r) for r in table["rung"].values]
    top = max(float(np.abs(m.nodes).max()) for row in measures.values() for m in row.values())
    grid = top * np.geomspace(1e-9, 10.0, 61) if dampings is None else np.asarray(dampings, float)
    if not (grid > 0).all():
        raise DecompositionError(f"dampings must be > 0, got {grid.min():g}")
    shape = (table.sizes["scope"], len(rungs), len(grid))
    value, error = np.full(shape, np.nan), np.full(shape, np.nan)

    def kept(nodes: np.ndarray) -> np.ndarray:
        size = np.abs(nodes)
        return size / (size + grid[:, None])

    for i, row in enumerate(measures.values()):
        for rung, measure in row.items():
            value[i, rungs.index(rung)], error[i, rungs.index(rung)] = measure.integrate(kept)
    dims = ("scope", "rung", "damping")
    return xr.Dataset(
        {"dimension": (dims, value), "standard_error": (dims, error)},
        {"scope": table["scope"], "rung": table["rung"], "damping": grid},
    )


def outliers(table: xr.Dataset, classes: int) -> xr.Dataset:
    """Where the bulk begins, against the number of classes C.

    The outliers are what lies above the widest gap (in log μ) among the 4C + 1 largest positive
    eigenvalues. Sagun et al. 2017 (arXiv 1706.04454) found about C of them; Papyan 2019 (arXiv
    1901.08244) explains C by class means and up to C² by pairs of classes.

    Args:
        table: from ``eigenvalue_table``.
        classes: C, the number of outputs.

    Returns:
        count(scope, rung); gap(scope, rung), the ratio μ_count / μ_count+1;
        gap_at_classes(scope, rung), μ_C / μ_C+1; share(scope, rung), the curvature Σ|μ| that the
        C largest hold; leading(scope, rung, rank), the 4C + 1 largest. NaN where there are too
        few positive eigenvalues.

    Raises:
        DecompositionError: fewer than one class.
    """
    if classes < 1:
        raise DecompositionError(f"the number of classes must be >= 1, got {classes}")
    window = 4 * classes + 1
    scopes, rungs = table["scope"].values, table["rung"].values
    shape = (len(scopes), len(rungs))
    count, gap, at_classes, share = (np.full(shape, np.nan) for _ in range(4))
    top = np.full((*shape, window), np.nan)
    for i in range(len(scopes)):
        for j in range(len(rungs)):
            mu = table["eigenvalues"].values[i, j]
            mu = np.sort(mu[np.isfinite(mu)])[::-1]
            positive = mu[mu > ROUNDING * np.abs(mu).max(initial=0.0)][:window]
            top[i, j, : len(positive)] = positive
            if len(positive) < 2:
                continue
            ratio = positive[:-1] / positive[1:]
            count[i, j] = ratio.argmax() + 1
            gap[i, j] = ratio.max()
            if len(ratio) >= classes:
                at_classes[i, j] = ratio[classes - 1]
            share[i, j] = positive[:classes].sum() / np.abs(mu).sum()
    dims = ("scope", "rung")
    return xr.Dataset(
        {
            "count": (dims, count),
            "gap": (dims, gap),
            "gap_at_classes": (dims, at_classes),
            "share": (dims, share),
            "leading": ((*dims, "rank"), top),
        },
        {"scope": scopes, "rung": rungs, "rank": np.arange(1, window + 1)},
        {"classes": classes},
    )
