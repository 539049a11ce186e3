"""Groups that are measured: spectra, spectral errors, attribution, bank, examples."""

from __future__ import annotations

from decomposition.results.schema.table import Group, variable

_ERRORS = (
    variable("value", "metric rung", "1", "error against the Hessian"),
    variable("value_against_ggn", "metric rung", "1", "error against the generalised Gauss–Newton"),
    variable(
        "standard_error", "metric rung", "1", "of value, where it is estimated stochastically"
    ),
    variable("standard_error_against_ggn", "metric rung", "1", "of value_against_ggn, likewise"),
)

MEASURED = (
    Group(
        "/spectrum",
        "Eigenvalues of every rung, ascending.",
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
        "/spectral_error",
        "How far each rung is from the exact curvature, as a matrix.",
        (
            *_ERRORS,
            variable("damped_value", "metric damping rung", "1", "value, by absolute λ"),
            variable(
                "damped_value_against_ggn", "metric damping rung", "1", "likewise against the GGN"
            ),
        ),
    ),
    Group("/spectral_error/{block}", "The same, block by block.", _ERRORS),
    Group(
        "/attribution",
        "Linear datamodelling score (LDS) and agreement, over absolute damping λ.",
        (
            variable("lds", "rung damping query", "rank correlation", "Spearman over masks"),
            variable("lds_mean", "rung damping ci_bound", "rank correlation", "mean over queries"),
            variable("agreement", "agreement_metric rung damping", "1", "with the reference rung"),
            variable("ceiling", "ci_bound", "rank correlation", "noise ceiling of the LDS"),
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
                variable("lds", "rung setting query", "rank correlation", "Spearman over masks"),
                variable(
                    "lds_mean", "rung setting ci_bound", "rank correlation", "mean over queries"
                ),
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
    ),
)
"""Parents before children."""
