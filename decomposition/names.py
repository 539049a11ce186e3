"""Names that every table uses: rungs, steps, bounds of an interval."""

from __future__ import annotations

from dataclasses import dataclass

CHAIN = ("hessian", "ggn", "block_ggn", "ekfac", "kfac")
"""Rungs in chain order; lattice nodes, baselines and the user's own rungs stand beside them."""
STEPS = ("linearisation", "cross_layer", "eigenbasis", "eigenvalues")
"""``STEPS[i]`` leads from ``CHAIN[i]`` to ``CHAIN[i + 1]``; a positive drop is a degradation."""
LATTICE = ("hessian", "ggn", "block_hessian", "block_ggn", "ekfac_hessian", "ekfac", "kfac")
"""All feasible nodes of source × coupling × structure."""
BASELINES = ("identity", "random")
"""Rungs that no curvature went into."""
RUNG_LABELS = {
    "hessian": "Hessian",
    "ggn": "GGN",
    "block_ggn": "block GGN",
    "ekfac": "EK-FAC",
    "kfac": "K-FAC",
    "block_hessian": "block Hessian",
    "ekfac_hessian": "EK-FAC of H",
    "identity": "identity",
    "random": "random",
}
"""What people call them."""
CROSS_TERM = "cross_term"
"""Stands among the steps for 2⟨H−G, G−K⟩, which is none; NaN where it does not apply."""
CI_BOUNDS = ("lower", "estimate", "upper")
"""The coordinate of ``ci_bound``; an exact quantity repeats its value three times."""

_METHOD_LABELS = {
    "diagonal": "diagonal",
    "kfac_trace": "K-FAC, trace",
    "block_basis_kfac_values": "K-FAC values",
    "kfac_basis_block_values": "K-FAC vectors",
    "kpsvd": "KPSVD",
    "low_rank": "low rank",
    "projected": "projected",
    "projected_layers": "proj. layers",
    "datainf": "DataInf",
    "neumann": "Neumann",
    "cg": "CG",
}
_WORDS = {"hessian": "of H", "ggn": "of G", "ekfac": "+ EK-FAC"}


@dataclass(frozen=True)
class Step:
    """One change of an approximation, from one rung to the next."""

    name: str
    before: str
    after: str


def rung_name(rung: str) -> str:
    """The rung's name for people; one that is not ours as it is."""
    if rung in RUNG_LABELS:
        return RUNG_LABELS[rung]
    method, *arguments = rung.split(":")
    if method not in _METHOD_LABELS:
        return rung
    return " ".join([_METHOD_LABELS[method], *(_WORDS.get(a, a) for a in arguments)])


def capitalised(text: str) -> str:
    """At the start of a sentence; a Greek λ stays small."""
    return text if text.startswith("λ") else text[:1].upper() + text[1:]
