"""Numbers that sum a spectrum up, its effective dimension against λ, and its outliers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr
from jaxtyping import Float
from numpy.typing import ArrayLike

from decomposition.curvature.estimate import Estimate
from decomposition.errors import DecompositionError
from decomposition.spectrum.counts import Counts, counts_below
from decomposition.spectrum.measure import ROUNDING, Spectra, Spectrum, Statistic
from decomposition.spectrum.tables import by_rung

Array = Float[np.ndarray, " m"]


def _trace(mu: Array, w: Array) -> float:
    return float(w @ mu)


def _frobenius(mu: Array, w: Array) -> float:
    return float(np.sqrt(w @ mu**2))


def _nuclear(mu: Array, w: Array) -> float:
    return float(w @ np.abs(mu))


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


def _negative_mass(mu: Array, w: Array) -> float:
    return float(w @ np.maximum(-mu, 0.0))


def _negative_share(mu: Array, w: Array) -> float:
    total = float(w @ np.abs(mu))
    return _negative_mass(mu, w) / total if total else 0.0


STATISTICS: dict[str, tuple[Statistic, str]] = {
    "trace": (_trace, "Σ μ"),
    "frobenius": (_frobenius, "√Σ μ²"),
    "nuclear": (_nuclear, "Σ |μ|"),
    "effective_rank": (_effective_rank, "exp(−Σ p log p), p = |μ| / Σ|μ| (Roy & Vetterli 2007)"),
    "stable_rank": (_stable_rank, "Σ μ² / max μ²"),
    "numerical_rank": (_numerical_rank, "number of |μ| above 10⁻¹² of the largest"),
    "negative_mass": (_negative_mass, "Σ_{μ<0} |μ|"),
    "negative_share": (_negative_share, "Σ_{μ<0} |μ| / Σ |μ|"),
}
"""Name → functional of the measure, and its formula."""
QUANTITIES = {
    "lowest": "min μ",
    "highest": "max μ",
    "spectral": "max |μ|",
    **{name: formula for name, (_, formula) in STATISTICS.items()},
    "negative_count": "number of negative eigenvalues, beyond rounding",
}
"""Name → formula of all that ``summary`` tells."""


def summary(spectra: Spectra) -> xr.Dataset:
    """value(scope, rung, quantity) with standard_error, 0 where the spectrum is exact.

    Counts are discontinuous at 0, where most eigenvalues lie, and no quadrature tells them: of an
    estimated spectrum the numerical rank is NaN, and the number of negative eigenvalues has the
    bounds ``lower`` and ``upper``, which are NaN of everything that is no count.
    """

    def tell(one: Spectrum) -> dict[str, list[float]]:
        below = counts_below(one, np.zeros(1))
        found = _summary(one, below)
        bounds = dict.fromkeys(QUANTITIES, np.nan)
        lower = bounds | {"negative_count": float(below.lower[0])}
        upper = bounds | {"negative_count": float(below.upper[0])}
        return {
            "value": [float(found[name]) for name in QUANTITIES],
            "standard_error": [found[name].error for name in QUANTITIES],
            "lower": list(lower.values()),
            "upper": list(upper.values()),
        }

    data = by_rung(spectra, tell, {"quantity": list(QUANTITIES)})
    return data.assign(formula=("quantity", list(QUANTITIES.values())))


def _summary(one: Spectrum, below: Counts) -> dict[str, Estimate]:
    lowest, highest = one.ends.lowest, one.ends.highest
    top = max(lowest, highest, key=abs)
    known = bool(below.lower[0] == below.upper[0])
    found = {
        "lowest": lowest,
        "highest": highest,
        "spectral": Estimate(abs(top), top.error),
        "negative_count": Estimate(float(below.value[0]), 0.0 if known else np.nan),
    }
    for name, (function, _) in STATISTICS.items():
        told = one.exact or name != "numerical_rank"
        found[name] = one.statistic(function) if told else Estimate(np.nan, np.nan)
    return found


def effective_dimensions(spectra: Spectra, dampings: Sequence[float] | None = None) -> xr.Dataset:
    """dimension(scope, rung, damping) = Σ |μ| / (|μ| + λ), and its standard_error.

    The number of directions that the damping leaves alone. Default dampings: 61 points over
    nine decades below the largest |μ| and one above.

    Raises:
        DecompositionError: a damping is not positive.
    """
    top = max(one.norm for row in spectra.values() for one in row.values())
    grid = top * np.geomspace(1e-9, 10.0, 61) if dampings is None else np.asarray(dampings, float)
    if not (grid > 0).all():
        raise DecompositionError(f"dampings must be > 0, got {grid.min():g}")

    def kept(nodes: np.ndarray) -> np.ndarray:
        size = np.abs(nodes)
        return size / (size + grid[:, None])

    def tell(one: Spectrum) -> dict[str, np.ndarray]:
        return dict(zip(("dimension", "standard_error"), one.integrate(kept), strict=True))

    return by_rung(spectra, tell, {"damping": grid})


def outliers(spectra: Spectra, classes: int) -> xr.Dataset:
    """Where the bulk begins, against the number of classes C.

    The outliers are what lies above the widest gap (in log μ) among the 4C + 1 largest positive
    eigenvalues. Sagun et al. 2017 (arXiv 1706.04454) found about C of them; Papyan 2019 (arXiv
    1901.08244) explains C by class means and up to C² by pairs of classes.

    Args:
        spectra: scope → rung → spectrum; of an estimated one, the quantiles are looked at.
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

    def tell(one: Spectrum) -> dict[str, ArrayLike]:
        mu = one.measure.eigenvalues()[::-1]
        positive = mu[mu > ROUNDING * np.abs(mu).max(initial=0.0)][:window]
        top = np.pad(positive, (0, window - len(positive)), constant_values=np.nan)
        found = dict.fromkeys(("count", "gap", "gap_at_classes", "share"), np.nan)
        if len(positive) >= 2:
            ratio = positive[:-1] / positive[1:]
            found["count"], found["gap"] = float(ratio.argmax() + 1), float(ratio.max())
            if len(ratio) >= classes:
                found["gap_at_classes"] = float(ratio[classes - 1])
            found["share"] = float(positive[:classes].sum() / np.abs(mu).sum())
        return {**found, "leading": top}

    data = by_rung(spectra, tell, {"rank": np.arange(1, window + 1)})
    return data.assign_attrs(classes=classes)
