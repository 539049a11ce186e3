"""Groups that a cell's pipeline measures: spectra, errors, attribution, levels with their draws."""

from __future__ import annotations

from decomposition.results.table import Attribute, Group, variable

LDS = "rank correlation"
"""The unit of a level, and of what is lost of it."""

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
        variable("inversion", "", "name", "how λ of the grid enters every inverse", "str"),
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

_COST = Group(
    "/cost",
    "What each rung takes by itself, parts that it shares with others included, to be built, "
    "decomposed, and solved for one query at one λ; `score`: the gradients of all training "
    "examples, which every rung needs. Counted, the same on every machine; NaN: not counted.",
    (
        variable("examples", "rung phase", "count", "training examples passed forward"),
        variable("backward_passes", "rung phase", "count", "backward passes of one example"),
        variable("products", "rung phase", "count", "columns swept through H or G"),
        variable("operations", "rung phase", "count", "floating-point operations"),
        variable("memory", "rung", "bytes", "at the peak, beyond the gradients"),
    ),
    attributes=(
        Attribute("processor_seconds", dict, "rung → phase → seconds of all threads, measured"),
        Attribute("clock_seconds", dict, "rung → phase → seconds on the clock, measured"),
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
        "Spectral density and counts on a common symmetric-logarithmic axis.",
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
        attributes=(
            Attribute("threshold", float, "|μ| below which the axis is linear"),
            Attribute("width", float, "of the kernel, in decades"),
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

_ERROR_VARIABLES = (
    variable(
        "value",
        "metric rung",
        "1",
        "error against the Hessian; of block_eigenvalue_overlap and block_subspace_overlap against "
        "the block GGN",
    ),
    variable("value_against_ggn", "metric rung", "1", "error against the generalised Gauss–Newton"),
    variable("standard_error", "metric rung", "1", "of value; 0 or NaN: exact"),
    variable("standard_error_against_ggn", "metric rung", "1", "of value_against_ggn, likewise"),
    variable("leading", "", "count", "k of the overlaps of k leading eigenvectors", "int"),
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
            variable("damped_median", "metric damping rung", "1", "median over gradients"),
            variable(
                "residual",
                "metric protocol rung",
                "1",
                "mean residual of the inverse under a protocol or rule",
            ),
            variable("residual_median", "metric protocol rung", "1", "median over gradients"),
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
    Group(
        "/eigenvalue_error",
        "K-FAC's squared error from the block GGN, layer by layer; the parts add up.",
        (
            variable(
                "squared",
                "part layer",
                "curvature²",
                "one scale for each layer, the rest of the diagonal in K-FAC's basis, the basis",
            ),
        ),
    ),
    Group(
        "/residuals",
        "Residuals of the inverse, gradient by gradient: what errors of their differences need.",
        (
            variable("at_damping", "metric damping rung vector", "1", "by absolute λ"),
            variable("under", "metric protocol rung vector", "1", "under a protocol or rule"),
            variable("multiplier", "damping", "1", "λ · min(P, N·C) / tr G"),
            variable("vectors", "metric", "count", "gradients; NaN beyond", "int"),
            variable("every", "metric", "0 or 1", "no gradient is left out", "int"),
        ),
        stacked=False,
    ),
)

_ATTRIBUTION = (
    Group(
        "/attribution",
        "Linear datamodelling score (LDS) and agreement, over absolute damping λ.",
        (
            variable("lds", "rung damping query", LDS, "Spearman over masks"),
            variable("lds_mean", "rung damping ci_bound", LDS, "mean over queries"),
            variable("agreement", "agreement_metric rung damping", "1", "with the reference rung"),
            variable("ceiling", "ci_bound", LDS, "noise ceiling of the LDS"),
            variable("reliability", "ci_bound", "correlation", "split-half, over retraining seeds"),
            variable("best_damping", "rung", "curvature", "λ of the highest mean LDS"),
            variable(
                "edge", "rung", "0 or 1", "the best λ lies on an edge of the grid", kind="int"
            ),
        ),
        attributes=(
            Attribute("target", str, "loss, margin, leave_one_out or pbrf: what scores predict"),
            Attribute("measure", str, "of a level: LDS over subsets, or Spearman over removals"),
            Attribute("agreement_with", str, "rung with whose scores the agreement is"),
            Attribute("ceiling_source", str, "split_half, second_order or deterministic"),
            Attribute("ceiling_masks", int, "masks behind the ceiling"),
            Attribute("pbrf_damping", float, "λ of the proximal Bregman responses"),
            Attribute("pbrf_residual", float, "largest gradient left, relative to the first"),
            Attribute("pbrf_unconverged", int, "responses that are left out"),
        ),
    ),
    *(
        Group(
            f"/attribution/{protocol}",
            f"The same by the setting of the {protocol} protocol: {setting}.",
            (
                variable("lds", "rung setting query", LDS, "Spearman over masks"),
                variable("lds_mean", "rung setting ci_bound", LDS, "mean over queries"),
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
        "Small inputs to show.",
        (
            variable("train_inputs", "train feature", "input", "flattened"),
            variable("query_inputs", "query feature", "input", "flattened"),
            variable("train_targets", "train", "label", "of the training examples", "any"),
            variable("query_targets", "query", "label", "of the queries", "any"),
        ),
        stacked=False,
        attributes=(Attribute("display", dict, 'how to draw, such as {"image_shape": [8, 8]}'),),
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
            variable("estimate", "protocol rung", LDS, "LDS", required=True),
            variable("draws", "draw protocol rung", LDS, "resamples, the same for every rung"),
            variable("damping", "protocol rung", "curvature", "λ at which it is read"),
            variable("of_base_model", "base_model protocol rung", LDS, "LDS of single ones"),
            variable(
                "variance",
                "source protocol rung other_rung",
                "1",
                "covariance between rungs, by what it comes from: masks, queries, base models",
            ),
            variable("relative_width", "repeats", "1", "interval of hessian's LDS / LDS"),
            variable("ceiling", "", LDS, "noise ceiling"),
            variable("ceiling_draws", "draw", LDS, "its resamples"),
            variable("reliability", "", "correlation", "split-half, over retraining seeds"),
            variable("reliability_draws", "draw", "correlation", "its resamples"),
        ),
        stacked=False,
        attributes=(Attribute("masks", int, "behind the levels"),),
    ),
    Group(
        "/levels/at_damping",
        "The same at one λ for all rungs, λ = multiplier · tr G / min(P, N·C).",
        (
            variable("estimate", "multiplier rung", LDS, "LDS", required=True),
            variable("draws", "draw multiplier rung", LDS, "resamples"),
            variable("damping_value", "multiplier", "curvature", "absolute λ"),
        ),
        stacked=False,
    ),
)

MEASURED = (_CELLS, _FORMS, _COST, *_SPECTRA, *_ERRORS, *_ATTRIBUTION, *_LEVELS)
"""Parents before children."""
