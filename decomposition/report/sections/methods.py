"""Section 9: methods, ready to paste into a paper."""

from __future__ import annotations

from decomposition.report.content import Block, Formula, Items, Section, Text
from decomposition.report.formulas import FORMULAS
from decomposition.report.study import Study


def methods(study: Study) -> Section:
    """Definitions of the rungs, the score, the LDS and the shares, with references."""
    config = study.json("config")
    policy = config.get("settings", {}).get("negative", "absolute")
    by_name = {formula.name: formula for formula in FORMULAS}
    chain: list[Formula] = [by_name[n] for n in ("Hessian", "GGN", "block GGN", "EK-FAC", "K-FAC")]
    blocks: list[Block] = [
        Text(
            "We compare the exact Hessian of the mean training loss with a chain of "
            "approximations, each one step cheaper than the last. All expectations over the "
            "training set and the model's outputs are exact sums; nothing is sampled. A block is "
            "one layer, weight and bias together; a is a layer's input with a 1 appended, s a "
            "column of the layer's output Jacobian times a square root of the loss's output "
            "Hessian Λ, and Q the eigenvectors of the Kronecker product."
        ),
        *chain,
        Text(
            "The influence of training example i on query q is scored by the first-order change "
            "of the query's loss when i is removed. Negative eigenvalues of the Hessian are "
            f"handled by the policy “{policy}”."
        ),
        by_name["score"],
        Text(
            "Attribution quality is the linear datamodelling score: over random subsets S of the "
            "training set, the rank correlation between the measured output of models retrained "
            "on S and its prediction, averaged over queries."
        ),
        by_name["LDS"],
        Text(
            "The drop of a step is the LDS before it less the LDS after it (for an error, the "
            "error after less the error before), its share the drop over the total drop. For "
            "squared Frobenius error the split is exact; the cross term belongs to no step."
        ),
        by_name["split"],
        Text("References:"),
        Items(_REFERENCES),
    ]
    return Section("methods", "Methods", tuple(blocks))


_REFERENCES = (
    "Hong, Eschenhagen, Mlodozeniec and Turner. Better Hessians Matter: Studying the Impact of "
    "Curvature Approximations in Influence Functions. arXiv 2509.23437, 2025.",
    "Martens and Grosse. Optimizing Neural Networks with Kronecker-factored Approximate "
    "Curvature. ICML 2015.",
    "George, Laurent, Bouthillier, Ballas and Vincent. Fast Approximate Natural Gradient Descent "
    "in a Kronecker-factored Eigenbasis. NeurIPS 2018.",
    "Park, Georgiev, Ilyas, Leclerc and Mądry. TRAK: Attributing Model Behavior at Scale. "
    "ICML 2023.",
    "Koh and Liang. Understanding Black-box Predictions via Influence Functions. ICML 2017.",
)
