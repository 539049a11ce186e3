"""Groups of spectra that are in part estimated: where matrices are too large to form."""

from __future__ import annotations

from decomposition.results.schema.table import Group, variable

ESTIMATED = (
    Group(
        "/spectral_density",
        "Spectral density and counts on a common symmetric-logarithmic axis; attributes "
        "`threshold` (below it the axis is linear) and `width` (of the kernel, in decades).",
        (
            variable(
                "density",
                "rung position",
                "1",
                "eigenvalues per decade; NaN nearer to zero than an estimate resolves",
            ),
            variable("standard_error", "rung position", "1", "its error; 0: exact"),
            variable("count", "rung position", "count", "number of eigenvalues below"),
            variable("count_lower", "rung position", "count", "bound on it; equal: exact"),
            variable("count_upper", "rung position", "count", "bound on it; equal: exact"),
            variable("eigenvalue", "position", "curvature", "μ at this position"),
            variable("estimated", "rung", "0 or 1", "by Lanczos and quadrature", "int"),
            variable("products", "rung", "1", "columns multiplied for all spectra", "int"),
        ),
    ),
    Group(
        "/spectral_summary",
        "Numbers that sum a spectrum up.",
        (
            variable("value", "quantity rung", "curvature or count", "by formula"),
            variable(
                "standard_error",
                "quantity rung",
                "as value",
                "over probes, with the error of the quadrature; residual of an end; 0: exact",
            ),
            variable("lower", "quantity rung", "as value", "bound on a count"),
            variable("upper", "quantity rung", "as value", "bound on a count"),
            variable("formula", "quantity", "text", "what it is", "str"),
        ),
    ),
    Group(
        "/spectral_ends",
        "Eigenvalues at both ends, outermost first; NaN where none was found.",
        (
            variable("eigenvalue", "rung end rank", "curvature", "lowest or highest"),
            variable("residual", "rung end rank", "curvature", "‖C v − μ v‖; 0: exact"),
        ),
    ),
    Group(
        "/effective_dimension",
        "Directions that a damping leaves alone.",
        (
            variable("dimension", "rung damping", "1", "Σ |μ| / (|μ| + λ), by absolute λ"),
            variable("standard_error", "rung damping", "1", "its error; 0: exact"),
        ),
    ),
)
"""Parents before children."""
