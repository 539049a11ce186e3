"""What steps, rungs, metrics, protocols and policies are called on a page."""

from __future__ import annotations

from decomposition.names import rung_name
from decomposition.report.wording import isolated

STEP_LABELS = {
    "linearisation": "linearisation",
    "cross_layer": "cross-layer",
    "eigenbasis": "eigenbasis",
    "eigenvalues": "eigenvalues",
    "cross_term": "cross term",
}
STEP_MEANINGS = {
    "linearisation": "drop the model's second derivatives",
    "cross_layer": "drop the coupling between layers",
    "eigenbasis": "force the Kronecker eigenbasis",
    "eigenvalues": "take product eigenvalues",
    "cross_term": "2⟨H−G, G−K⟩, which no step owns",
}
_ERRORS = {
    "inverse_residual_train": "residual of the inverse on training gradients",
    "inverse_residual_query": "residual of the inverse on query gradients",
    "inverse_residual_train_damped": "damped residual of the inverse on training gradients",
    "inverse_residual_query_damped": "damped residual of the inverse on query gradients",
    "block_eigenvalue_overlap": "overlap of the blocks' eigenvalues with the block GGN's",
    "block_subspace_overlap": "overlap of the blocks' leading eigenvectors with the block GGN's",
}
SHARE_METRICS = {
    "lds": "LDS",
    "frobenius_squared": "squared Frobenius error",
    "damped_inverse_squared": "squared damped-inverse error",
    **_ERRORS,
}
WITHOUT_DAMPING = ("frobenius_squared", "block_eigenvalue_overlap", "block_subspace_overlap")
"""Those that no damping enters."""
METRIC_LABELS = {
    "relative_frobenius": "Frobenius (relative)",
    "relative_spectral": "spectral norm (relative)",
    "relative_nuclear": "nuclear norm (relative)",
    "eigenvalue_overlap": "eigenvalue overlap (1 is equal)",
    "subspace_overlap": "subspace overlap (1 is equal)",
    "damped_inverse": "damped inverse (relative)",
    "damped_inverse_queries": "damped inverse on query gradients (relative)",
    "stein": "Stein divergence",
    **_ERRORS,
}
PROTOCOLS = {
    "tuned": "tuned λ",
    "equal": "equal λ",
    "relative": "relative λ",
    "effective_dimension": "equal effective dimension",
    "layer_mean": "λ by layer",
    "mean:1": "λ = mean eigenvalue",
}
"""In the order of the page: each rung at its own best λ, the fair comparison, leads."""
POLICIES = {
    "absolute": "absolute: |μ|",
    "signed": "signed: μ as it is",
    "clip": "clip: max(μ, 0)",
    "shift": "shift: μ − μ_min",
}
DAMPED = "damped"
INVERSIONS = {
    DAMPED: "(C + λI)⁻¹",
    "per_layer": "(C_l + λ_l I)⁻¹ on every layer, λ_l = λ times its mean eigenvalue over that of C",
    "factored": "(A + π√λ)⁻¹ ⊗ (S + √λ/π)⁻¹, and (C + λI)⁻¹ of rungs without factors",
    "pseudo_inverse": "1/|μ| where |μ| > λ, else 0",
    "truncated": "1/(μ + λ) where that is positive and above a threshold, else 0",
}
"""How λ enters an inverse: name, without its numbers → words."""
SIGNED = ("pseudo_inverse", "truncated")
"""Those that say what becomes of negative eigenvalues μ."""
CHAIN_MARK = ", "
"""Between the name of a chain and that of a damping protocol."""


def rung_label(rung: str, limit: int = 18) -> str:
    """The rung's name for people; a user's name as it is, cut to ``limit`` characters."""
    name = rung_name(rung)
    if name != rung:
        return name
    # matplotlib leaves names that start with an underscore out of a legend
    return ("\u200b" if rung.startswith("_") else "") + isolated(rung, limit)


def step_label(step: str) -> str:
    """A step's name for people."""
    return STEP_LABELS.get(step, step.replace("_", " "))


def protocol_label(protocol: str) -> str:
    """A protocol's name for people; ``paper, tuned`` is the paper's chain under tuned damping."""
    chain, _, damping = protocol.rpartition(CHAIN_MARK)
    name = PROTOCOLS.get(damping) or damping.replace("_", " ").replace(":", " ")
    return f"{chain}{CHAIN_MARK}{name}" if chain else name


def inversion_label(inversion: str) -> str:
    """An inversion with what it does."""
    return f"{inversion}, {INVERSIONS[kind]}" if (kind := _kind(inversion)) else inversion


def says_signs(inversion: str) -> bool:
    """Whether no policy for negative eigenvalues is asked beside it."""
    return _kind(inversion) in SIGNED


def _kind(inversion: str) -> str:
    name = inversion.split(":")[0]
    return name if name in INVERSIONS else ""


def chain_of(protocol: str) -> str:
    """What stands before the damping in a protocol's name; "" for the exact chain."""
    return protocol.rpartition(CHAIN_MARK)[0]


def chain_title(chain: str) -> str:
    """The name of a chain as a heading."""
    return f"{chain or 'exact'} chain".capitalize()


def damping_of(protocol: str) -> str:
    """The damping protocol in a protocol's name."""
    return protocol.rpartition(CHAIN_MARK)[2]
