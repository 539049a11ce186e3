"""Result groups of spectra that are partly exact, partly estimated."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float

from decomposition.chain.names import CHAIN
from decomposition.curvature.estimate import Estimate
from decomposition.spectrum.cumulative import Counts, counts_below
from decomposition.spectrum.density import DECADES, density, inverse_symlog, symlog
from decomposition.spectrum.large import Spectrum
from decomposition.spectrum.measure import WHOLE, Measures, SpectralMeasure
from decomposition.spectrum.overlap import eigenvalue_overlap
from decomposition.spectrum.summary import COUNTS, QUANTITIES, effective_dimensions

Spectra = Mapping[str, Spectrum]
WIDTH = 0.3
"""Width of the density's kernel in decades: a quadrature of few nodes tells no more."""
POSITIONS = 240
NODES = 20_000
"""Known eigenvalues up to which each gets its own kernel."""
DEFINITE = CHAIN[1:]
"""Rungs without negative eigenvalues, by what they are."""


def density_group(spectra: Spectra, products: Mapping[str, int]) -> xr.Dataset:
    """``/spectral_density``: eigenvalues per decade and counts below μ on a common axis of μ.

    An estimated density is NaN nearer to zero than the innermost nodes of the quadrature, in the
    median over probes and steps: what lies there, it counts but does not tell apart.
    """

    def drawn(measures: Measures) -> xr.Dataset:
        row = {rung: thinned(measure) for rung, measure in measures[WHOLE].items()}
        return density({WHOLE: row}, width=WIDTH, points=POSITIONS)

    data = _errors(spectra, drawn, "density")
    rungs, dims = list(spectra), ("rung", "position")
    for rung, one in spectra.items():
        if not one.measure.exact:
            low, high = _unresolved(one, float(data.attrs["threshold"]))
            hidden = (data["position"].values > low) & (data["position"].values < high)
            for name in ("density", "standard_error"):
                data[name].loc[{"rung": rung, "position": hidden}] = np.nan
    mu = data["eigenvalue"].values
    counts = [_counts(rung, one, mu) for rung, one in spectra.items()]
    data["count"] = (dims, np.stack([one.value for one in counts]))
    data["count_lower"] = (dims, np.stack([one.lower for one in counts]))
    data["count_upper"] = (dims, np.stack([one.upper for one in counts]))
    data["estimated"] = ("rung", [int(not one.measure.exact) for one in spectra.values()])
    data["products"] = ("rung", [products[name] for name in rungs])
    return data.reset_coords("eigenvalue")


def dimension_group(spectra: Spectra, dampings: Sequence[float]) -> xr.Dataset:
    """``/effective_dimension``: Σ |μ| / (|μ| + λ)."""
    return _errors(spectra, lambda m: effective_dimensions(m, dampings), "dimension")


def _unresolved(one: Spectrum, threshold: float) -> tuple[float, float]:
    """Positions on either side of zero between which the quadratures have no nodes.

    Where all nodes lie on one side, zero itself is smeared by the kernel over the other.
    """
    reach = []
    for side in (-1.0, 1.0):
        innermost = []
        for measure in (one.measure, *one.earlier):
            for nodes, weights in zip(side * measure.nodes, measure.weights, strict=True):
                innermost += [n[n > 0].min() for n in (nodes[weights > 0],) if (n > 0).any()]
        met = float(symlog(np.median(innermost), threshold)) if innermost else 0.0
        reach.append(side * max(met, 4.0 * WIDTH))
    return reach[0], reach[1]


def thinned(measure: SpectralMeasure) -> SpectralMeasure:
    """Many known eigenvalues as fewer nodes, none moved by more than a hundredth of the kernel.

    A density of P = 10⁶ eigenvalues would take a kernel of each at every position.
    """
    nodes = measure.nodes[0]
    if not measure.exact or len(nodes) <= NODES:
        return measure
    threshold = 10.0**-DECADES * float(np.abs(nodes).max()) / 10
    cells = np.round(symlog(nodes, threshold) / (WIDTH / 100)) * (WIDTH / 100)
    kept, count = np.unique(cells, return_counts=True)
    return SpectralMeasure(
        inverse_symlog(kept, threshold)[None], count.astype(float)[None], measure.method
    )


def _errors(spectra: Spectra, table: Callable[[Measures], xr.Dataset], name: str) -> xr.Dataset:
    """A table of all rungs, as ``Spectrum.statistic``: means and errors over quadratures."""
    measures = {rung: one.measure for rung, one in spectra.items()}
    earlier = {r: [f"{r} {i}" for i in range(len(s.earlier))] for r, s in spectra.items()}
    for rung, one in spectra.items():
        measures |= dict(zip(earlier[rung], one.earlier, strict=True))
    every = table({WHOLE: measures}).isel(scope=0, drop=True)
    data = every.sel(rung=list(spectra))
    for rung, others in earlier.items():
        values = every[name].sel(rung=[rung, *others]).values
        spread = data["standard_error"].sel(rung=rung).values
        data[name].loc[{"rung": rung}] = values.mean(0)
        data["standard_error"].loc[{"rung": rung}] = np.hypot(spread, 0.5 * np.ptp(values, axis=0))
    return data


def _negative_mass(mu: np.ndarray, w: np.ndarray) -> float:
    return float(w @ np.maximum(-mu, 0.0))


FORMULAS = {
    "lowest": "min μ",
    "highest": "max μ",
    "spectral": "max |μ|",
    **{name: QUANTITIES[name][1] for name in ("nuclear", "effective_rank", "stable_rank")},
    "numerical_rank": QUANTITIES["numerical_rank"][1],
    "negative_count": QUANTITIES["negative_count"][1],
    "negative_mass": "Σ_{μ<0} |μ|",
    "negative_share": QUANTITIES["negative_share"][1],
}
"""Rows of ``/spectral_summary``."""


def summary_group(spectra: Spectra) -> xr.Dataset:
    """``/spectral_summary``: numbers that sum a spectrum up."""
    shape = (len(FORMULAS), len(spectra))
    value, error, lower, upper = (np.full(shape, np.nan) for _ in range(4))
    for j, (rung, one) in enumerate(spectra.items()):
        found = _summary(one)
        for i, quantity in enumerate(FORMULAS):
            if quantity in found:
                value[i, j], error[i, j] = found[quantity], found[quantity].error
        count = _counts(rung, one, np.zeros(1))
        i = list(FORMULAS).index("negative_count")
        value[i, j], lower[i, j], upper[i, j] = (
            float(x[0]) for x in (count.value, count.lower, count.upper)
        )
        error[i, j] = 0.0 if lower[i, j] == upper[i, j] else np.nan
    dims = ("quantity", "rung")
    return xr.Dataset(
        {
            "value": (dims, value),
            "standard_error": (dims, error),
            "lower": (dims, lower),
            "upper": (dims, upper),
            "formula": ("quantity", list(FORMULAS.values())),
        },
        {"quantity": list(FORMULAS), "rung": list(spectra)},
    )


def _summary(one: Spectrum) -> dict[str, Estimate]:
    lowest, highest = one.ends.lowest, one.ends.highest
    top = max(lowest, highest, key=abs)
    found = {"lowest": lowest, "highest": highest, "spectral": Estimate(abs(top), top.error)}
    for name in FORMULAS:
        if name in QUANTITIES and name not in found and (name not in COUNTS or one.measure.exact):
            found[name] = one.statistic(QUANTITIES[name][0])
    return {**found, "negative_mass": one.statistic(_negative_mass)}


def _counts(rung: str, one: Spectrum, at: Float[np.ndarray, " m"]) -> Counts:
    """Numbers of eigenvalues below μ; none below zero where a rung has no negative one."""
    counts = counts_below(one, at)
    if rung not in DEFINITE:
        return counts
    return Counts(*(np.where(at > 0, x, 0.0) for x in (counts.value, counts.lower, counts.upper)))


def ends_group(spectra: Spectra, count: int) -> xr.Dataset:
    """``/spectral_ends``: eigenvalues at both ends, outermost first; NaN where none is known."""
    shape = (len(spectra), 2, count)
    value, residual = np.full(shape, np.nan), np.full(shape, np.nan)
    for i, one in enumerate(spectra.values()):
        values, errors = one.ends.values, one.ends.residuals
        half = len(values) // 2 if one.measure.exact else int((values < 0).sum())
        inwards = np.arange(half), np.arange(len(values) - 1, half - 1, -1)
        for j, order in enumerate(inwards):
            kept = order[:count]
            value[i, j, : len(kept)], residual[i, j, : len(kept)] = values[kept], errors[kept]
    dims = ("rung", "end", "rank")
    return xr.Dataset(
        {"eigenvalue": (dims, value), "residual": (dims, residual)},
        {"rung": list(spectra), "end": ["lowest", "highest"], "rank": np.arange(1, count + 1)},
    )


METRICS = ("relative_frobenius", "relative_spectral", "eigenvalue_overlap")
"""Of ``/spectral_error``: those that products tell."""


def error_group(
    spectra: Spectra,
    norms: Mapping[str, Mapping[str, Estimate]],
    relative: Mapping[str, Mapping[str, Estimate]],
) -> xr.Dataset:
    """``/spectral_error``: errors against H, and against the GGN.

    Args:
        spectra: of every rung.
        norms: reference → rung → ‖C − R‖₂.
        relative: reference → rung → ‖C − R‖_F / ‖R‖_F.
    """
    data = xr.Dataset(coords={"metric": list(METRICS), "rung": list(spectra)})
    for reference, suffix in (("hessian", ""), ("ggn", "_against_ggn")):
        value = np.full((len(METRICS), len(spectra)), np.nan)
        error = np.full_like(value, np.nan)
        ends = spectra[reference].ends
        scale = max(abs(ends.lowest), abs(ends.highest))
        for j, rung in enumerate(spectra):
            nothing = Estimate(np.nan, np.nan)
            frobenius = relative[reference].get(rung, nothing)
            spectral = norms[reference].get(rung, nothing)
            row = (
                (frobenius, frobenius.error),
                (spectral / scale, spectral.error / scale),
                (_overlap(spectra[rung], spectra[reference]), 0.0),
            )
            value[:, j], error[:, j] = np.transpose(row)
        dims = ("metric", "rung")
        data[f"value{suffix}"] = (dims, value)
        data[f"standard_error{suffix}"] = (dims, np.where(np.isnan(value), np.nan, error))
    return data


def _overlap(one: Spectrum, reference: Spectrum) -> float:
    """Of exact spectra; quadratures of few nodes do not tell it."""
    if one is reference:
        return 1.0
    if not (one.measure.exact and reference.measure.exact):
        return np.nan
    mine, exact = (torch.from_numpy(s.measure.nodes[0]) for s in (one, reference))
    return eigenvalue_overlap(mine, exact)
