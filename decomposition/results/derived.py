"""Groups that follow from the measured ones: shares, places of the loss, claims over cells."""

from __future__ import annotations

from decomposition.results.measured import LDS
from decomposition.results.table import Attribute, Group, Variable, variable

_BESIDE = Group(
    "/beside",
    "Approximations beside the chain and scores made elsewhere, against every rung of it.",
    (
        variable(
            "difference",
            "protocol other rung ci_bound",
            LDS,
            "LDS minus the rung's",
            required=True,
        ),
        variable("probability", "protocol other rung", "1", "share of resamples above the rung"),
    ),
    stacked=False,
)

_SHARES = (
    _BESIDE,
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
            variable("level", "protocol rung ci_bound", LDS, "LDS along the chain"),
            variable("level_damping", "protocol rung", "curvature", "λ at which the level is read"),
            variable("premise", "protocol ci_bound", LDS, "ceiling − level of hessian"),
            variable("corrected", "protocol rung ci_bound", LDS, "level / ceiling"),
        ),
        attributes=(
            Attribute(
                "verdict",
                dict,
                "protocol → {candidate, resolved, probability, more_masks, text} for the LDS; "
                "more_masks is null where masks cannot resolve it. Of many cells: cell → the same",
            ),
        ),
    ),
    Group(
        "/shares/at_damping",
        "The chain at one λ for all rungs, λ = multiplier · tr G / min(P, N·C); NaN elsewhere.",
        (
            variable(
                "level",
                "multiplier rung ci_bound",
                LDS,
                "LDS",
                or_dims="multiplier chain_rung ci_bound",
            ),
            variable("drop", "multiplier step ci_bound", LDS, "positive is a degradation"),
            variable("share", "multiplier step ci_bound", "1", "drop / total drop"),
            variable("total", "multiplier ci_bound", LDS, "first rung to last"),
            variable("defined", "multiplier", "0 or 1", "the total is beyond noise", "int"),
            variable("damping_value", "multiplier", "curvature", "absolute λ"),
        ),
    ),
    Group(
        "/shares/errors",
        "What each step adds to the residuals of the inverse at one λ for all rungs, "
        "λ = multiplier · tr G / min(P, N·C).",
        (
            variable(
                "drop", "metric multiplier step ci_bound", "metric", "positive: a degradation"
            ),
            variable("share", "metric multiplier step ci_bound", "1", "drop / total drop"),
            variable("total", "metric multiplier ci_bound", "metric", "first rung to last"),
            variable("defined", "metric multiplier", "0 or 1", "the total is beyond noise", "int"),
            variable("damping_value", "multiplier", "curvature", "absolute λ"),
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
        (variable("interaction", "protocol pair ci_bound", LDS, "zero: no interaction"),),
    ),
    Group(
        "/shares/mismatch",
        "What a common damping costs, beside the approximation itself: tuned minus equal.",
        (
            variable("gap", "rung ci_bound", LDS, "LDS tuned − LDS equal"),
            variable("gap_share", "rung ci_bound", "1", "gap / total drop under equal"),
            variable("mismatch", "ci_bound", LDS, "gap of kfac − gap of hessian"),
            variable("mismatch_share", "ci_bound", "1", "mismatch / total drop under equal"),
        ),
    ),
    Group(
        "/shares/resolution",
        "What more masks would buy; beyond the masks at hand it is extrapolated.",
        (
            variable("width", "protocol chain_step masks", LDS, "interval of the drop"),
            variable("relative_width", "repeats", "1", "interval of hessian's LDS / LDS"),
        ),
    ),
)

_DETAIL = (
    Group(
        "/policies",
        "Rungs with negative eigenvalues under every policy, each at its own best damping.",
        (
            variable("level", "policy rung ci_bound", LDS, "cross-fitted LDS"),
            variable("level_damping", "policy rung", "curvature", "λ at which it is read"),
            variable(
                "indefinite", "policy rung", "0 or 1", "the damped matrix is indefinite", "int"
            ),
            variable("lds_by_damping", "policy rung damping", LDS, "mean over queries"),
        ),
        stacked=False,
    ),
    Group(
        "/where/queries",
        "Drop of every query at every step, protocol tuned.",
        (
            variable("drop", "step query ci_bound", LDS, "positive is a degradation"),
            variable("degraded", "step", "1", "fraction of queries whose interval is above zero"),
            variable("improved", "step", "1", "fraction of queries whose interval is below zero"),
        ),
        stacked=False,
    ),
    *(
        Group(
            f"/where/{name}",
            f"A step's loss split over {what}, swapped one after the other; they add up.",
            (
                variable("contribution", f"step {axis} ci_bound", LDS, "of one part"),
                variable("total", "step ci_bound", LDS, "the step, at tuned dampings"),
                variable("remainder", "step ci_bound", LDS, "zero up to rounding"),
            ),
            stacked=False,
        )
        for name, axis, what in (
            ("layers", "block", "layers, between block-diagonal rungs"),
            ("bands", "band", "bands of the spectrum, by rank of the eigenvalue"),
        )
    ),
    Group(
        "/prediction",
        "Does spectral error predict attribution loss? Rank correlation over rungs and dampings.",
        (
            variable("rho", "metric ci_bound", LDS, "positive: error predicts loss"),
            variable("cells", "metric", "count", "rung × damping", "int"),
            variable("rungs", "metric", "count", "units of resampling", "int"),
        ),
        stacked=False,
    ),
    Group(
        "/base_models",
        "Levels of single base models, where there are several.",
        (variable("level", "base_model protocol rung", LDS, "cross-fitted LDS"),),
        stacked=False,
    ),
)

_RECOMMENDATION = Group(
    "/recommendation",
    "Which rung to use, at which damping: the cheapest that is not resolved to be worse than the "
    "best one, at dampings of their own; of many cells, by their mean.",
    (
        variable("level", "rung ci_bound", LDS, "LDS at its own best λ"),
        variable("behind", "rung ci_bound", LDS, "LDS of the best rung minus this one's"),
        variable("p_value", "rung", "1", "of being the best one; NaN: uncounted", required=True),
        variable("cost", "rung", "count", "operations for all queries at one λ; NaN: not counted"),
        variable("frontier", "rung", "0 or 1", "no cheaper rung scores as high", "int"),
        variable("regret", "ci_bound", LDS, "of the recommended rung in a cell"),
        variable("holds", "", "0 or 1", "it is not resolved to be worse there", "int"),
    ),
    attributes=(
        Attribute("sentence", str, "the recommendation in plain words"),
        Attribute("recommended", str, "rung; empty where none can be recommended"),
        Attribute("rule", str, "the protocol that says its damping"),
        Attribute("resolved", int, "1: every other rung is resolved to be worse"),
        Attribute("best", str, "rung of the highest LDS"),
        Attribute("better", str, "the cheapest rung of a higher LDS; empty: there is none"),
        Attribute("cheaper", str, "the best rung that costs less; empty: there is none"),
        Attribute("more_masks", int, "to tell the best one from it, where masks can"),
    ),
)


def _claims_map(path: str, axis: str, meaning: str, more: tuple[Variable, ...]) -> Group:
    """Verdicts over one axis of λ; older results have one map, without chain and rule."""
    of, old = f"claim chain rule {axis}", f"claim {axis}"
    return Group(
        path,
        meaning,
        (
            variable(
                "effect",
                f"{of} ci_bound",
                "as /claims says",
                "of a cell",
                or_dims=f"{old} ci_bound",
            ),
            variable("p_value", of, "1", "adjusted over cells and dampings", or_dims=old),
            variable("verdict", of, "−1, 0, 1", "in a cell", "int", or_dims=old),
            variable("optimum", "rung", "as the axis", "where the rung's LDS is highest"),
            *more,
        ),
        attributes=(
            Attribute(
                "sentences", dict, "chain, rule → claim → where it holds; older: claim → the same"
            ),
        ),
    )


_OVER_CELLS = (
    _RECOMMENDATION,
    Group(
        "/claims",
        "Claims as tested: 1 supported, 0 not resolved, −1 contradicted, in a cell and over all.",
        (
            variable("effect", "claim protocol ci_bound", "as /claims says", "of a cell"),
            variable(
                "p_value",
                "claim protocol",
                "1",
                "of the verdict's own side; NaN: exact, or not tested",
            ),
            variable("verdict", "claim protocol", "−1, 0, 1", "in a cell", "int"),
            variable("pooled_effect", "claim protocol ci_bound", "as /claims says", "over cells"),
            variable("pooled_verdict", "claim protocol", "−1, 0, 1", "over cells", "int"),
            variable("counts", "claim protocol outcome", "count", "cells by outcome", "int"),
            variable("neighbours", "protocol outcome", "1", "share of a cell's steps"),
        ),
        attributes=(
            Attribute("texts", dict, "claim → its sentence"),
            Attribute("effects", dict, "claim → what its effect is, with the unit"),
            Attribute("against", dict, "claim → what −1 is called: reversed, or not reproduced"),
            Attribute(
                "chains",
                dict,
                "what stands before a protocol's name → steps of that chain; without it the step "
                "eigenvalues of the paper's chain carries the factored damping too",
            ),
        ),
    ),
    _claims_map(
        "/claims/map",
        "multiplier",
        "Claims at one λ for all rungs, in units of tr G / min(P, N·C): where each holds, for "
        "every chain and inversion (`rule`) of the cells; of a cell under another one nothing is "
        "known.",
        (variable("damping_value", "multiplier", "curvature", "absolute λ"),),
    ),
    _claims_map(
        "/claims/map/absolute",
        "damping",
        "The same at the powers of ten of λ that every cell's grid spans, from levels interpolated "
        "linearly in log λ between neighbouring dampings of the grid.",
        (),
    ),
    Group(
        "/regret",
        "LDS under the tuned damping minus that under another protocol or rule, on every rung.",
        (
            variable("regret", "protocol rung ci_bound", LDS, "of a cell; positive is a loss"),
            variable("mean", "protocol rung ci_bound", LDS, "over cells"),
        ),
        attributes=(Attribute("sentences", dict, "rule → what it costs, in words"),),
    ),
    Group(
        "/residual_lds",
        "Spearman correlation of the residual of a rung's inverse with its LDS, over the chain, λ "
        "and cells; −1: the smaller residual has the higher LDS.",
        (
            variable("rho", "metric ci_bound", "correlation", "over all points"),
            variable("rho_at_damping", "metric multiplier ci_bound", "correlation", "at one λ"),
            variable(
                "rho_within_cells",
                "metric multiplier ci_bound",
                "correlation",
                "at one λ over a cell's rungs, mean of the cells; NaN below three",
            ),
            variable("rho_of_cell", "metric multiplier", "correlation", "of a cell, likewise"),
            variable("points", "", "count", "rungs × dampings × cells", "int"),
        ),
        attributes=(Attribute("resampled", str, "cells or rungs: what the intervals are over"),),
    ),
    Group(
        "/trends",
        "How levels and drops change with what varies between cells.",
        (
            variable("slope", "quantity protocol ci_bound", "as unit says", "over cells"),
            variable("p_value", "quantity protocol", "1", "of no trend"),
            variable("factor", "quantity", "name", "what varies", "str"),
            variable("unit", "quantity", "text", "of the slope", "str"),
        ),
    ),
    Group(
        "/protocol_ladder",
        "From the controlled protocol to the paper's, one change at a time; coordinate "
        "`ladder_of`(ladder_step) is the rung that a step changes.",
        (
            variable("drop", "protocol ladder_step ci_bound", LDS, "positive is a degradation"),
            variable("share", "protocol ladder_step ci_bound", "1", "of the ladder's total"),
        ),
    ),
)

DERIVED = (*_SHARES, *_DETAIL, *_OVER_CELLS)
"""Parents before children."""
