"""The ladder from the controlled protocol to that of Hong et al. (2025), one change at a time.

The *controlled* protocol is the chain: exact factors, weight and bias in one block, λI added on
every rung, |μ| for negative curvature. The code published with the paper (arXiv 2509.23437,
package hessian-influence, on curvlinops' defaults) makes other choices besides the steps:

| step | rungs | choice |
|---|---|---|
| `truncation` | H | inverse eigenvalues are 0 where μ + λ ≤ 10⁻⁶ (``damping.Truncate``) |
| `separate_bias` | block GGN, EK-FAC, K-FAC | weights and biases are blocks of their own |
| `one_sample` | EK-FAC, K-FAC | one label per example from the model replaces the sum over all |
| `factored_damping` | K-FAC | A and S are damped, not their product (EK-FAC: exact damping) |

``LADDERS`` names each of these as a step from a rung of the chain, and ``PAPER_CHAIN`` is the
chain under all of them, with the chain's own step names, so that shares under both protocols
stand side by side. The factored damping, which EK-FAC does not have, is its fifth step: what it
costs is not laid on the eigenvalues. Truncation would change the semi-definite rungs too where
λ ≤ 10⁻⁶; they are left as they are.
"""

from __future__ import annotations

from decomposition.chain.rungs import EKFAC, KFAC, BlockGGN, HessianRung, Rung
from decomposition.curvature import Sampled
from decomposition.damping import Truncate
from decomposition.names import Step

LADDERS: dict[str, tuple[Step, ...]] = {
    "hessian": (Step("truncation", "hessian", "hessian_truncated"),),
    "block_ggn": (Step("separate_bias", "block_ggn", "block_ggn_split"),),
    "ekfac": (
        Step("separate_bias", "ekfac", "ekfac_split"),
        Step("one_sample", "ekfac_split", "ekfac_split_mc1"),
    ),
    "kfac": (
        Step("separate_bias", "kfac", "kfac_split"),
        Step("one_sample", "kfac_split", "kfac_split_mc1"),
        Step("factored_damping", "kfac_split_mc1", "kfac_split_mc1_pi"),
    ),
}
"""Rung of the chain → the steps from it to its counterpart in the paper's protocol."""

PAPER_CHAIN: tuple[Step, ...] = (
    Step("linearisation", "hessian_truncated", "ggn"),
    Step("cross_layer", "ggn", "block_ggn_split"),
    Step("eigenbasis", "block_ggn_split", "ekfac_split_mc1"),
    Step("eigenvalues", "ekfac_split_mc1", "kfac_split_mc1"),
    Step("factored_damping", "kfac_split_mc1", "kfac_split_mc1_pi"),
)
"""The chain under the paper's protocol, and the step that is none of the chain's."""
PAPER_RUNGS = (PAPER_CHAIN[0].before, *(step.after for step in PAPER_CHAIN))
"""Its rungs, in order."""


def ladder_rungs(seed: int = 0) -> dict[str, Rung]:
    """Every rung of the ladders beyond the chain, for ``extra=`` of ``build_chain`` and ``run``.

    Args:
        seed: of the one sampled label per example, the same on every rung.
    """
    sampled = Sampled(1, seed)
    return {
        "hessian_truncated": HessianRung(Truncate()),
        "block_ggn_split": BlockGGN(separate_bias=True),
        "ekfac_split": EKFAC(separate_bias=True),
        "ekfac_split_mc1": EKFAC(sampled, separate_bias=True),
        "kfac_split": KFAC(separate_bias=True),
        "kfac_split_mc1": KFAC(sampled, separate_bias=True),
        "kfac_split_mc1_pi": KFAC(sampled, separate_bias=True, factored_damping=True),
    }
