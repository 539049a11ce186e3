"""The result tree: every group, variable, dimension and attribute, written down once.

A result is an ``xarray.DataTree`` kept as netCDF-4. Dimensions are found by name and each has a
coordinate; intervals are a ``ci_bound`` coordinate; attributes are strings or numbers, so what
has structure is one JSON string. Any group may be missing: a study without retraining has no
``/bank`` and no ``/attribution``. A child group inherits its parent's coordinates, so a dimension
that has other values in the child bears another name there: ``block_index`` beside ``index``,
``setting`` beside ``damping``.
"""

from __future__ import annotations

from dataclasses import dataclass

SCHEMA_VERSION = 1
"""Written to the root; raised when a reader of the old schema could misread the new one."""

CI_BOUNDS = ("lower", "estimate", "upper")
"""The coordinate of ``ci_bound``; an exact quantity repeats its value three times."""

CHAIN = ("hessian", "ggn", "block_ggn", "ekfac", "kfac")
"""Rungs of the chain in order; lattice nodes, baselines and the user's own rungs stand beside."""

BASELINES = ("identity", "random")
"""Rungs that no curvature went into."""

STEPS = ("linearisation", "cross_layer", "eigenbasis", "eigenvalues")
"""``STEPS[i]`` leads from ``CHAIN[i]`` to ``CHAIN[i + 1]``; a positive drop is a degradation."""

CROSS_TERM = "cross_term"
"""Entry of ``step`` for 2⟨H−G, G−K⟩, which is not a step; NaN where it does not apply."""

EXACT_METRICS = ("frobenius_squared", "damped_inverse_squared")
"""Metrics of ``/shares`` without sampling error (the LDS has one)."""


@dataclass(frozen=True)
class Variable:
    """One array of the tree."""

    name: str
    dims: tuple[str, ...]
    units: str
    meaning: str
    kind: str = "float"
    """float, int or str: the kind of NumPy dtype."""
    required: bool = False
    """Whether the group is useless without it."""
    or_dims: tuple[str, ...] | None = None
    """A second legal tuple of dimensions."""


@dataclass(frozen=True)
class Group:
    """One group of the tree; ``{block}`` in a path stands for the name of any block."""

    path: str
    meaning: str
    variables: tuple[Variable, ...]


def _v(
    name: str,
    dims: str,
    units: str,
    meaning: str,
    kind: str = "float",
    required: bool = False,
    or_dims: str | None = None,
) -> Variable:
    alternative = tuple(or_dims.split()) if or_dims is not None else None
    return Variable(name, tuple(dims.split()), units, meaning, kind, required, alternative)


_ERRORS = (
    _v("value", "metric rung", "1", "error against the Hessian"),
    _v("value_against_ggn", "metric rung", "1", "error against the generalised Gauss–Newton"),
    _v("standard_error", "metric rung", "1", "of value, where it is estimated stochastically"),
    _v("standard_error_against_ggn", "metric rung", "1", "of value_against_ggn, likewise"),
)

GROUPS = (
    Group(
        "/spectrum",
        "Eigenvalues of every rung, ascending.",
        (_v("eigenvalues", "rung index", "curvature", "ascending; NaN pads", required=True),),
    ),
    Group(
        "/spectrum/{block}",
        "Eigenvalues of the rungs' diagonal blocks; a block is one layer, weight and bias.",
        (
            _v("eigenvalues", "rung block_index", "curvature", "ascending; NaN pads"),
            _v("ekfac_eigenvalues", "block_index", "curvature", "along the Kronecker eigenvectors"),
            _v("kfac_eigenvalues", "block_index", "curvature", "along the same, in the same order"),
        ),
    ),
    Group(
        "/spectral_error",
        "How far each rung is from the exact curvature, as a matrix.",
        (
            *_ERRORS,
            _v("damped_value", "metric damping rung", "1", "value, by absolute λ"),
            _v("damped_value_against_ggn", "metric damping rung", "1", "likewise against the GGN"),
        ),
    ),
    Group("/spectral_error/{block}", "The same, block by block.", _ERRORS),
    Group(
        "/attribution",
        "Linear datamodelling score (LDS) and agreement, over absolute damping λ.",
        (
            _v("lds", "rung damping query", "rank correlation", "Spearman over masks"),
            _v("lds_mean", "rung damping ci_bound", "rank correlation", "mean over queries"),
            _v("agreement", "agreement_metric rung damping", "1", "with the reference rung"),
            _v("ceiling", "ci_bound", "rank correlation", "noise ceiling of the LDS"),
            _v("reliability", "ci_bound", "correlation", "split-half, over retraining seeds"),
            _v("best_damping", "rung", "curvature", "λ of the highest mean LDS"),
            _v("edge", "rung", "0 or 1", "the best λ lies on an edge of the grid", kind="int"),
        ),
    ),
    *(
        Group(
            f"/attribution/{protocol}",
            f"The same by the setting of the {protocol} protocol: {setting}.",
            (
                _v("lds", "rung setting query", "rank correlation", "Spearman over masks"),
                _v("lds_mean", "rung setting ci_bound", "rank correlation", "mean over queries"),
                _v("damping_value", "rung setting", "curvature", "absolute λ of that rung"),
            ),
        )
        for protocol, setting in (
            ("relative", "c of λ = c · trace / P"),
            ("effective_dimension", "d of Σ μ/(μ+λ) = d"),
        )
    ),
    Group(
        "/bank",
        "Outputs of the retrained models, from which any rung can be scored again.",
        (
            _v("masks", "mask train", "0 or 1", "example kept for training", "int"),
            _v("outputs", "mask repeat query output", "output", "of the retrained models"),
            _v("second_outputs", "second_mask query output", "output", "in a second order"),
            _v("base_outputs", "query output", "output", "of the base model"),
            _v("targets", "query", "label", "of the queries", "any", or_dims="query output"),
        ),
    ),
    Group(
        "/shares",
        "What each step costs, and its share of the whole.",
        (
            _v("drop", "metric protocol step ci_bound", "metric", "positive is a degradation"),
            _v("share", "metric protocol step ci_bound", "1", "drop / total drop"),
            _v("total", "metric protocol ci_bound", "metric", "first rung to last"),
            _v("defined", "metric protocol", "0 or 1", "the total is beyond noise", "int"),
            _v("probability_degrades", "metric protocol step", "1", "P(drop > 0)"),
            _v("level", "protocol rung ci_bound", "rank correlation", "LDS along the chain"),
            _v("level_damping", "protocol rung", "curvature", "λ at which the level is read"),
            _v("premise", "protocol ci_bound", "rank correlation", "ceiling − level of hessian"),
            _v("corrected", "protocol rung ci_bound", "rank correlation", "level / ceiling"),
        ),
    ),
    Group(
        "/shares/orders",
        "Shares along each feasible order of the steps.",
        (
            _v("share_by_order", "metric protocol order step ci_bound", "1", "drop / total drop"),
            _v("drop_by_order", "metric protocol order step ci_bound", "metric", "drop"),
            _v("first", "metric protocol step ci_bound", "metric", "drop, taken first"),
            _v("last", "metric protocol step ci_bound", "metric", "drop, taken last"),
        ),
    ),
    Group(
        "/shares/shapley",
        "Mean over the feasible orders.",
        (
            _v("shapley", "metric protocol step ci_bound", "1", "share, mean over orders"),
            _v("shapley_drop", "metric protocol step ci_bound", "metric", "drop, likewise"),
            _v("spread", "metric protocol step", "1", "largest − smallest share over orders"),
        ),
    ),
    Group(
        "/shares/interactions",
        "How much more a step costs once another is taken.",
        (_v("interaction", "protocol pair ci_bound", "rank correlation", "zero: no interaction"),),
    ),
    Group(
        "/shares/mismatch",
        "What a common damping costs, beside the approximation itself: tuned minus equal.",
        (
            _v("gap", "rung ci_bound", "rank correlation", "LDS tuned − LDS equal"),
            _v("gap_share", "rung ci_bound", "1", "gap / total drop under equal"),
            _v("mismatch", "ci_bound", "rank correlation", "gap of kfac − gap of hessian"),
            _v("mismatch_share", "ci_bound", "1", "mismatch / total drop under equal"),
        ),
    ),
    Group(
        "/shares/resolution",
        "What more masks would buy; beyond the masks at hand it is extrapolated.",
        (
            _v("width", "protocol chain_step masks", "rank correlation", "interval of the drop"),
            _v("relative_width", "repeats", "1", "interval of hessian's LDS / LDS"),
        ),
    ),
    Group(
        "/policies",
        "Rungs with negative eigenvalues under every policy, each at its own best damping.",
        (
            _v("level", "policy rung ci_bound", "rank correlation", "cross-fitted LDS"),
            _v("level_damping", "policy rung", "curvature", "λ at which it is read"),
            _v("indefinite", "policy rung", "0 or 1", "the damped matrix is indefinite", "int"),
            _v("lds_by_damping", "policy rung damping", "rank correlation", "mean over queries"),
        ),
    ),
    Group(
        "/where/queries",
        "Drop of every query at every step, protocol tuned.",
        (
            _v("drop", "step query ci_bound", "rank correlation", "positive is a degradation"),
            _v("degraded", "step", "1", "fraction of queries whose interval is above zero"),
            _v("improved", "step", "1", "fraction of queries whose interval is below zero"),
        ),
    ),
    *(
        Group(
            f"/where/{name}",
            f"A step's loss split over {what}, swapped one after the other; they add up.",
            (
                _v("contribution", f"step {axis} ci_bound", "rank correlation", "of one part"),
                _v("total", "step ci_bound", "rank correlation", "the step, at tuned dampings"),
                _v("remainder", "step ci_bound", "rank correlation", "zero up to rounding"),
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
            _v("rho", "metric ci_bound", "rank correlation", "positive: error predicts loss"),
            _v("cells", "metric", "count", "rung × damping", "int"),
            _v("rungs", "metric", "count", "units of resampling", "int"),
        ),
    ),
    Group(
        "/base_models",
        "Levels of single base models, where there are several.",
        (_v("level", "base_model protocol rung", "rank correlation", "cross-fitted LDS"),),
    ),
    Group(
        "/examples",
        'Small inputs to show; attribute `display` is JSON such as {"image_shape": [8, 8]}.',
        (
            _v("train_inputs", "train feature", "input", "flattened"),
            _v("query_inputs", "query feature", "input", "flattened"),
            _v("train_targets", "train", "label", "of the training examples", "any"),
            _v("query_targets", "query", "label", "of the queries", "any"),
        ),
    ),
    Group(
        "/top",
        "The training examples with the highest scores for each query.",
        (
            _v("top_train", "rung query rank", "index", "row of the training set", "int", True),
            _v("top_score", "rung query rank", "loss", "τ of that example"),
        ),
    ),
)
"""The whole schema, parents before children."""

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
}
"""Attributes of the root."""

SHARES_ATTRIBUTES = {
    "verdict": "JSON; protocol → {candidate, resolved, probability, more_masks, text} for the LDS",
}
"""Optional attributes of ``/shares``; ``more_masks`` is null where masks cannot resolve it."""

JSON_ATTRIBUTES = ("config", "versions", "seeds", "notes", "timings", "hardware")
"""The attributes that hold JSON."""

REQUIRED_ATTRIBUTES = ("schema_version", "created_at", "library_version", "command", "problem")
"""Without these a file is not a result."""


def group_of(path: str) -> Group | None:
    """The group that ``path`` is an instance of, or None if the schema has no such group."""
    exact = {group.path: group for group in GROUPS}
    if path in exact:
        return exact[path]
    parent, _, _ = path.rpartition("/")
    return exact.get(f"{parent}/{{block}}")
