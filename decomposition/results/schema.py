"""The result tree: every group, variable, dimension and attribute, written down once.

A result is an ``xarray.DataTree`` kept as netCDF-4. It holds one cell, a problem at one
checkpoint, or many: then the groups that can be stacked have the dimension ``cell`` in front, and
``/cells`` says what tells the cells apart. Dimensions are found by name and each has a coordinate;
intervals are a ``ci_bound`` coordinate; attributes are strings or numbers, so what has structure
is one JSON string. Exact and estimated numbers are the same variables: a ``standard_error`` beside
them is 0 where a number is exact. Any group may be missing: a run without retraining has no
``/bank``. A child group inherits its parent's coordinates, so a dimension that has other values in
the child bears another name there: ``block_index`` beside ``index``, ``setting`` beside
``damping``; or the child has the parent's values, NaN where it knows nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

from decomposition.names import BASELINES as BASELINES
from decomposition.names import CHAIN as CHAIN
from decomposition.names import STEPS as STEPS

SCHEMA_VERSION = 2
"""Written to the root; raised when a reader of the old schema could misread the new one."""

CI_BOUNDS = ("lower", "estimate", "upper")
"""The coordinate of ``ci_bound``; an exact quantity repeats its value three times."""

CELL = "cell"
"""The dimension of many cells; numbers from 0."""

CROSS_TERM = "cross_term"
"""Entry of ``step`` for 2⟨H−G, G−K⟩, which is not a step; NaN where it does not apply."""

CELL_COORDINATES = (
    "label",
    "dataset",
    "hidden",
    "depth",
    "width",
    "activation",
    "epoch",
    "seed",
    "alpha",
    "randomness",
    "target",
    "examples",
    "label_noise",
)
"""Coordinates along ``cell`` in ``/cells`` of many cells: what tells them apart."""

ATTRIBUTES = {
    "schema_version": "int; SCHEMA_VERSION of the writer",
    "created_at": "ISO 8601 time in UTC",
    "library_version": "of this package",
    "command": "what to type to make the result again",
    "config": "JSON; the whole configuration of the run",
    "versions": "JSON; package → version",
    "device": "where the run computed",
    "dtype": "precision of the curvature",
    "seeds": "JSON; purpose → seed",
    "problem": "name of the problem",
    "parameters": "int; P",
    "examples": "int; N",
    "queries": "int; number of queries",
    "ci_level": "float; level of the intervals, such as 0.95",
    "notes": "JSON list of warnings: degenerate basis, optimum on an edge, low ceiling, …",
    "timings": "JSON; stage → seconds",
    "hardware": "JSON; processor, cores, memory",
    "study": "short name of a study of many cells",
    "title": "heading of the report; default from the problem",
    "description": "a sentence on what a study varies",
    "factor": "the coordinate of /cells that a study varies, `multiplier` (the damping) or `grid`",
}
"""Attributes of the root."""

JSON_ATTRIBUTES: dict[str, type] = {
    "config": dict,
    "versions": dict,
    "seeds": dict,
    "notes": list,
    "timings": dict,
    "hardware": dict,
}
"""The attributes that hold JSON, and what of."""

GROUP_JSON = {
    ("shares", "verdict"): "protocol → {candidate, resolved, probability, more_masks, text} for "
    "the LDS; `more_masks` is null where masks cannot resolve it. Of many cells: cell → the same",
    ("examples", "display"): 'how examples are drawn, such as {"image_shape": [8, 8]}',
    ("claims", "texts"): "claim → its sentence",
    ("claims", "effects"): "claim → what its effect is, with the unit",
}
"""(group, attribute) that holds a JSON object → what it says."""

ATTRIBUTION_ATTRIBUTES = {
    "target": "loss, margin, leave_one_out or pbrf: what the scores are held against",
    "measure": "what a level is: LDS over subsets, or Spearman over examples that are removed",
    "agreement_with": "rung with whose scores the agreement is",
    "ceiling_source": "split_half, second_order or deterministic",
    "ceiling_masks": "int; masks behind the ceiling",
    "pbrf_damping": "float; λ of the proximal Bregman responses",
    "pbrf_residual": "float; largest gradient left, relative to the first",
    "pbrf_unconverged": "int; responses that are left out",
}
"""Optional attributes of ``/attribution``."""

NUMBERS = ("schema_version", "parameters", "examples", "queries", "ci_level")
"""The attributes of the root that are numbers; all others of ATTRIBUTES are strings."""

REQUIRED_ATTRIBUTES = ("schema_version", "created_at", "library_version", "command")
"""Without these a file is not a result."""


@dataclass(frozen=True)
class Variable:
    """One array of the tree."""

    name: str
    dims: tuple[str, ...]
    units: str
    meaning: str
    kind: str = "float"
    """float, int, str or any: the kind of NumPy dtype."""
    required: bool = False
    """Whether the group is useless without it."""
    or_dims: tuple[tuple[str, ...], ...] = ()
    """Other legal tuples of dimensions."""


@dataclass(frozen=True)
class Group:
    """One group of the tree; ``{block}`` in a path stands for the name of any block."""

    path: str
    meaning: str
    variables: tuple[Variable, ...]
    stacked: bool = True
    """Whether many cells share it, with ``cell`` in front; else it stays in each cell's result."""


def variable(
    name: str,
    dims: str,
    units: str,
    meaning: str,
    kind: str = "float",
    required: bool = False,
    or_dims: str = "",
) -> Variable:
    """A variable whose dimensions are one string, separated by blanks; ``or_dims`` by commas."""
    others = tuple(tuple(other.split()) for other in or_dims.split(",") if other)
    return Variable(name, tuple(dims.split()), units, meaning, kind, required, others)


_CELLS = Group(
    "/cells",
    "The cells: how well their models do; of many cells, with CELL_COORDINATES.",
    (
        variable("train_loss", "", "loss", "of the base model, over the training set"),
        variable("query_loss", "", "loss", "of the base model, over the queries"),
        variable("query_accuracy", "", "1", "share of queries predicted rightly"),
        variable("parameters", "", "count", "P", "int"),
        variable("examples_used", "", "count", "N", "int"),
        variable("queries", "", "count", "number of queries", "int"),
        variable("seconds", "", "s", "time that the cell took"),
    ),
)

_FORMS = Group(
    "/forms",
    "In which form the plan held each rung, and what is known of it.",
    (
        variable("form", "rung", "name", "dense, dual, structured, matrix-free or given", "str"),
        variable("squared_norm", "rung", "curvature²", "squared Frobenius norm"),
        variable("squared_norm_error", "rung", "curvature²", "its standard error; 0: exact"),
        variable("trace", "rung", "curvature", "trace"),
        variable("trace_error", "rung", "curvature", "its standard error; 0: exact"),
        variable("products", "rung", "1", "columns multiplied in iterative solves", "int"),
        variable("systems", "rung", "1", "damped systems solved by iteration", "int"),
        variable("residual", "rung", "1", "largest relative residual of those"),
    ),
)

_SPECTRA = (
    Group(
        "/spectrum",
        "Eigenvalues, ascending, of the rungs whose spectrum is known exactly.",
        (variable("eigenvalues", "rung index", "curvature", "ascending; NaN pads", required=True),),
    ),
    Group(
        "/spectrum/{block}",
        "Eigenvalues of the rungs' diagonal blocks; a block is one layer, weight and bias.",
        (
            variable("eigenvalues", "rung block_index", "curvature", "ascending; NaN pads"),
            variable(
                "ekfac_eigenvalues", "block_index", "curvature", "along the Kronecker eigenvectors"
            ),
            variable(
                "kfac_eigenvalues", "block_index", "curvature", "along the same, in the same order"
            ),
        ),
    ),
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
        stacked=False,
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

_ERROR_VARIABLES = (
    variable("value", "metric rung", "1", "error against the Hessian"),
    variable("value_against_ggn", "metric rung", "1", "error against the generalised Gauss–Newton"),
    variable("standard_error", "metric rung", "1", "of value; 0 or NaN: exact"),
    variable("standard_error_against_ggn", "metric rung", "1", "of value_against_ggn, likewise"),
)

_ERRORS = (
    Group(
        "/spectral_error",
        "How far each rung is from the exact curvature, as a matrix.",
        (
            *_ERROR_VARIABLES,
            variable("damped_value", "metric damping rung", "1", "value, by absolute λ"),
            variable(
                "damped_value_against_ggn", "metric damping rung", "1", "likewise against the GGN"
            ),
            variable(
                "misaligned",
                "protocol rung",
                "1",
                "squared error of the damped inverse up to its scale, at each protocol's dampings",
            ),
            variable(
                "misaligned_solutions",
                "protocol rung",
                "1",
                "likewise of the damped solutions for the query gradients: 1 − cos²",
            ),
            variable(
                "squared_error",
                "step probe",
                "curvature²",
                "squared Frobenius error of each step: exact with one probe, else one for each",
            ),
        ),
    ),
    Group("/spectral_error/{block}", "The same, block by block.", _ERROR_VARIABLES),
)

_LDS = "rank correlation"

_ATTRIBUTION = (
    Group(
        "/attribution",
        "Linear datamodelling score (LDS) and agreement, over absolute damping λ.",
        (
            variable("lds", "rung damping query", _LDS, "Spearman over masks"),
            variable("lds_mean", "rung damping ci_bound", _LDS, "mean over queries"),
            variable("agreement", "agreement_metric rung damping", "1", "with the reference rung"),
            variable("ceiling", "ci_bound", _LDS, "noise ceiling of the LDS"),
            variable("reliability", "ci_bound", "correlation", "split-half, over retraining seeds"),
            variable("best_damping", "rung", "curvature", "λ of the highest mean LDS"),
            variable(
                "edge", "rung", "0 or 1", "the best λ lies on an edge of the grid", kind="int"
            ),
        ),
    ),
    *(
        Group(
            f"/attribution/{protocol}",
            f"The same by the setting of the {protocol} protocol: {setting}.",
            (
                variable("lds", "rung setting query", _LDS, "Spearman over masks"),
                variable("lds_mean", "rung setting ci_bound", _LDS, "mean over queries"),
                variable("damping_value", "rung setting", "curvature", "absolute λ of that rung"),
            ),
        )
        for protocol, setting in (
            ("relative", "c of λ = c · tr|C| / min(P, N·C)"),
            ("effective_dimension", "d of Σ μ₊/(μ₊+λ) = d"),
        )
    ),
    Group(
        "/bank",
        "Outputs of the retrained models, from which any rung can be scored again.",
        (
            variable("masks", "mask train", "0 or 1", "example kept for training", "int"),
            variable("outputs", "mask repeat query output", "output", "of the retrained models"),
            variable("second_outputs", "second_mask query output", "output", "in a second order"),
            variable("losses", "mask repeat query", "loss", "of a supplied bank without outputs"),
            variable("second_losses", "second_mask query", "loss", "likewise, in a second order"),
            variable("base_outputs", "query output", "output", "of the base model"),
            variable(
                "targets",
                "query",
                "label",
                "of the queries",
                "any",
                or_dims="query output, query position",
            ),
        ),
        stacked=False,
    ),
    Group(
        "/examples",
        'Small inputs to show; attribute `display` is JSON such as {"image_shape": [8, 8]}.',
        (
            variable("train_inputs", "train feature", "input", "flattened"),
            variable("query_inputs", "query feature", "input", "flattened"),
            variable("train_targets", "train", "label", "of the training examples", "any"),
            variable("query_targets", "query", "label", "of the queries", "any"),
        ),
        stacked=False,
    ),
    Group(
        "/top",
        "The training examples with the highest scores for each query.",
        (
            variable(
                "top_train", "rung query rank", "index", "row of the training set", "int", True
            ),
            variable("top_score", "rung query rank", "loss", "τ of that example"),
        ),
        stacked=False,
    ),
)

_LEVELS = (
    Group(
        "/levels",
        "Levels of every rung with their resamples: what comparing and pooling cells needs.",
        (
            variable("estimate", "protocol rung", _LDS, "LDS", required=True),
            variable("draws", "draw protocol rung", _LDS, "resamples, the same for every rung"),
            variable("damping", "protocol rung", "curvature", "λ at which it is read"),
            variable("of_base_model", "base_model protocol rung", _LDS, "LDS of single ones"),
            variable(
                "variance",
                "source protocol rung other_rung",
                "1",
                "covariance between rungs, by what it comes from: masks, queries, base models",
            ),
            variable("relative_width", "repeats", "1", "interval of hessian's LDS / LDS"),
            variable("ceiling", "", _LDS, "noise ceiling"),
            variable("ceiling_draws", "draw", _LDS, "its resamples"),
            variable("reliability", "", "correlation", "split-half, over retraining seeds"),
            variable("reliability_draws", "draw", "correlation", "its resamples"),
        ),
        stacked=False,
    ),
    Group(
        "/levels/at_damping",
        "The same at one λ for all rungs, λ = multiplier · tr G / min(P, N·C).",
        (
            variable("estimate", "multiplier rung", _LDS, "LDS", required=True),
            variable("draws", "draw multiplier rung", _LDS, "resamples"),
            variable("damping_value", "multiplier", "curvature", "absolute λ"),
        ),
        stacked=False,
    ),
)

_BESIDE = Group(
    "/beside",
    "Approximations beside the chain and scores made elsewhere, against every rung of it.",
    (
        variable(
            "difference",
            "protocol other rung ci_bound",
            _LDS,
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
            variable("level", "protocol rung ci_bound", _LDS, "LDS along the chain"),
            variable("level_damping", "protocol rung", "curvature", "λ at which the level is read"),
            variable("premise", "protocol ci_bound", _LDS, "ceiling − level of hessian"),
            variable("corrected", "protocol rung ci_bound", _LDS, "level / ceiling"),
        ),
    ),
    Group(
        "/shares/at_damping",
        "The chain at one λ for all rungs, λ = multiplier · tr G / min(P, N·C); NaN elsewhere.",
        (
            variable(
                "level",
                "multiplier rung ci_bound",
                _LDS,
                "LDS",
                or_dims="multiplier chain_rung ci_bound",
            ),
            variable("drop", "multiplier step ci_bound", _LDS, "positive is a degradation"),
            variable("share", "multiplier step ci_bound", "1", "drop / total drop"),
            variable("total", "multiplier ci_bound", _LDS, "first rung to last"),
            variable("defined", "multiplier", "0 or 1", "the total is beyond noise", "int"),
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
        (variable("interaction", "protocol pair ci_bound", _LDS, "zero: no interaction"),),
    ),
    Group(
        "/shares/mismatch",
        "What a common damping costs, beside the approximation itself: tuned minus equal.",
        (
            variable("gap", "rung ci_bound", _LDS, "LDS tuned − LDS equal"),
            variable("gap_share", "rung ci_bound", "1", "gap / total drop under equal"),
            variable("mismatch", "ci_bound", _LDS, "gap of kfac − gap of hessian"),
            variable("mismatch_share", "ci_bound", "1", "mismatch / total drop under equal"),
        ),
    ),
    Group(
        "/shares/resolution",
        "What more masks would buy; beyond the masks at hand it is extrapolated.",
        (
            variable("width", "protocol chain_step masks", _LDS, "interval of the drop"),
            variable("relative_width", "repeats", "1", "interval of hessian's LDS / LDS"),
        ),
    ),
)

_DETAIL = (
    Group(
        "/policies",
        "Rungs with negative eigenvalues under every policy, each at its own best damping.",
        (
            variable("level", "policy rung ci_bound", _LDS, "cross-fitted LDS"),
            variable("level_damping", "policy rung", "curvature", "λ at which it is read"),
            variable(
                "indefinite", "policy rung", "0 or 1", "the damped matrix is indefinite", "int"
            ),
            variable("lds_by_damping", "policy rung damping", _LDS, "mean over queries"),
        ),
        stacked=False,
    ),
    Group(
        "/where/queries",
        "Drop of every query at every step, protocol tuned.",
        (
            variable("drop", "step query ci_bound", _LDS, "positive is a degradation"),
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
                variable("contribution", f"step {axis} ci_bound", _LDS, "of one part"),
                variable("total", "step ci_bound", _LDS, "the step, at tuned dampings"),
                variable("remainder", "step ci_bound", _LDS, "zero up to rounding"),
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
            variable("rho", "metric ci_bound", _LDS, "positive: error predicts loss"),
            variable("cells", "metric", "count", "rung × damping", "int"),
            variable("rungs", "metric", "count", "units of resampling", "int"),
        ),
        stacked=False,
    ),
    Group(
        "/base_models",
        "Levels of single base models, where there are several.",
        (variable("level", "base_model protocol rung", _LDS, "cross-fitted LDS"),),
        stacked=False,
    ),
)

_OVER_CELLS = (
    Group(
        "/claims",
        "Claims as tested: 1 supported, 0 not resolved, −1 contradicted, in a cell and over all.",
        (
            variable("effect", "claim protocol ci_bound", "as /claims says", "of a cell"),
            variable("p_value", "claim protocol", "1", "of the verdict's own side; NaN: exact"),
            variable("verdict", "claim protocol", "−1, 0, 1", "in a cell", "int"),
            variable("pooled_effect", "claim protocol ci_bound", "as /claims says", "over cells"),
            variable("pooled_verdict", "claim protocol", "−1, 0, 1", "over cells", "int"),
            variable("counts", "claim protocol outcome", "count", "cells by outcome", "int"),
        ),
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
            variable("drop", "protocol ladder_step ci_bound", _LDS, "positive is a degradation"),
            variable("share", "protocol ladder_step ci_bound", "1", "of the ladder's total"),
        ),
    ),
)

GROUPS = (
    _CELLS,
    _FORMS,
    *_SPECTRA,
    *_ERRORS,
    *_ATTRIBUTION,
    *_LEVELS,
    *_SHARES,
    *_DETAIL,
    *_OVER_CELLS,
)
"""The whole schema, parents before children."""


def group_of(path: str) -> Group | None:
    """The group that ``path`` is an instance of, or None if the schema has no such group."""
    exact = {group.path: group for group in GROUPS}
    if path in exact:
        return exact[path]
    parent, _, _ = path.rpartition("/")
    return exact.get(f"{parent}/{{block}}")
