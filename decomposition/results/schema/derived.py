"""Groups that follow from the measured ones: shares, orders, policies, where the loss lives."""

from __future__ import annotations

from decomposition.results.schema.table import Group, variable

DERIVED = (
    Group(
        "/shares",
        "What each step costs, and its share of the whole.",
        (
            variable(
                "drop", "metric protocol step ci_bound", "metric", "positive is a degradation"
            ),
            variable("share", "metric protocol step ci_bound", "1", "drop / total drop"),
            variable("total", "metric protocol ci_bound", "metric", "first rung to last"),
            variable("defined", "metric protocol", "0 or 1", "the total is beyond noise", "int"),
            variable("probability_degrades", "metric protocol step", "1", "P(drop > 0)"),
            variable("level", "protocol rung ci_bound", "rank correlation", "LDS along the chain"),
            variable("level_damping", "protocol rung", "curvature", "λ at which the level is read"),
            variable(
                "premise", "protocol ci_bound", "rank correlation", "ceiling − level of hessian"
            ),
            variable("corrected", "protocol rung ci_bound", "rank correlation", "level / ceiling"),
        ),
    ),
    Group(
        "/shares/orders",
        "Shares along each feasible order of the steps.",
        (
            variable(
                "share_by_order", "metric protocol order step ci_bound", "1", "drop / total drop"
            ),
            variable("drop_by_order", "metric protocol order step ci_bound", "metric", "drop"),
            variable("first", "metric protocol step ci_bound", "metric", "drop, taken first"),
            variable("last", "metric protocol step ci_bound", "metric", "drop, taken last"),
        ),
    ),
    Group(
        "/shares/shapley",
        "Mean over the feasible orders.",
        (
            variable("shapley", "metric protocol step ci_bound", "1", "share, mean over orders"),
            variable("shapley_drop", "metric protocol step ci_bound", "metric", "drop, likewise"),
            variable("spread", "metric protocol step", "1", "largest − smallest share over orders"),
        ),
    ),
    Group(
        "/shares/interactions",
        "How much more a step costs once another is taken.",
        (
            variable(
                "interaction", "protocol pair ci_bound", "rank correlation", "zero: no interaction"
            ),
        ),
    ),
    Group(
        "/shares/mismatch",
        "What a common damping costs, beside the approximation itself: tuned minus equal.",
        (
            variable("gap", "rung ci_bound", "rank correlation", "LDS tuned − LDS equal"),
            variable("gap_share", "rung ci_bound", "1", "gap / total drop under equal"),
            variable("mismatch", "ci_bound", "rank correlation", "gap of kfac − gap of hessian"),
            variable("mismatch_share", "ci_bound", "1", "mismatch / total drop under equal"),
        ),
    ),
    Group(
        "/shares/resolution",
        "What more masks would buy; beyond the masks at hand it is extrapolated.",
        (
            variable(
                "width", "protocol chain_step masks", "rank correlation", "interval of the drop"
            ),
            variable("relative_width", "repeats", "1", "interval of hessian's LDS / LDS"),
        ),
    ),
    Group(
        "/policies",
        "Rungs with negative eigenvalues under every policy, each at its own best damping.",
        (
            variable("level", "policy rung ci_bound", "rank correlation", "cross-fitted LDS"),
            variable("level_damping", "policy rung", "curvature", "λ at which it is read"),
            variable(
                "indefinite", "policy rung", "0 or 1", "the damped matrix is indefinite", "int"
            ),
            variable(
                "lds_by_damping", "policy rung damping", "rank correlation", "mean over queries"
            ),
        ),
    ),
    Group(
        "/where/queries",
        "Drop of every query at every step, protocol tuned.",
        (
            variable(
                "drop", "step query ci_bound", "rank correlation", "positive is a degradation"
            ),
            variable("degraded", "step", "1", "fraction of queries whose interval is above zero"),
            variable("improved", "step", "1", "fraction of queries whose interval is below zero"),
        ),
    ),
    *(
        Group(
            f"/where/{name}",
            f"A step's loss split over {what}, swapped one after the other; they add up.",
            (
                variable(
                    "contribution", f"step {axis} ci_bound", "rank correlation", "of one part"
                ),
                variable(
                    "total", "step ci_bound", "rank correlation", "the step, at tuned dampings"
                ),
                variable("remainder", "step ci_bound", "rank correlation", "zero up to rounding"),
            ),
        )
        for name, axis, what in (
            ("layers", "block", "layers, between block-diagonal rungs"),
            ("bands", "band", "bands of the spectrum, by rank of the eigenvalue"),
        )
    ),
    Group(
        "/prediction",
        "Does spectral error predict attribution loss? Rank correlation over cells.",
        (
            variable("rho", "metric ci_bound", "rank correlation", "positive: error predicts loss"),
            variable("cells", "metric", "count", "rung × damping", "int"),
            variable("rungs", "metric", "count", "units of resampling", "int"),
        ),
    ),
    Group(
        "/large",
        "How rungs were held whose matrices do not fit, and what is known of them.",
        (
            variable(
                "form", "rung", "name", "dense, dual, structured, matrix-free or given", "str"
            ),
            variable("squared_norm", "rung", "curvature²", "squared Frobenius norm"),
            variable("squared_norm_error", "rung", "curvature²", "its standard error; 0: exact"),
            variable("trace", "rung", "curvature", "trace"),
            variable("trace_error", "rung", "curvature", "its standard error; 0: exact"),
            variable("products", "rung", "1", "columns multiplied in iterative solves", "int"),
            variable("systems", "rung", "1", "damped systems solved by iteration", "int"),
            variable("residual", "rung", "1", "largest relative residual of those"),
        ),
    ),
    Group(
        "/base_models",
        "Levels of single base models, where there are several.",
        (variable("level", "base_model protocol rung", "rank correlation", "cross-fitted LDS"),),
    ),
)
"""Parents before children."""
