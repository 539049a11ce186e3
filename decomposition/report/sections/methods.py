"""Methods, ready to paste into a paper."""

from __future__ import annotations

from decomposition.report.claims import OUTCOMES
from decomposition.report.content import Block, Formula, Items, Text
from decomposition.report.formulas import FORMULAS
from decomposition.report.names import inversion_label, says_signs
from decomposition.report.result import Result, intervals
from decomposition.report.wording import joined


def methods_blocks(result: Result) -> list[Block]:
    """Definitions of the rungs, the score, the LDS and the shares, with references."""
    config = result.json("config")
    policy = config.get("settings", {}).get("negative", "absolute")
    signs = f"Negative eigenvalues of the Hessian are handled by the policy “{policy}”. "
    if all(map(says_signs, result.inversions)):
        signs = ""
    ways = "; ".join(map(inversion_label, result.inversions))
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
            "of the query's loss when i is removed. "
            f"{signs}How λ enters an inverse: {ways}."
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
    return [Text("The words of this page:"), _terms(result), *blocks]


def _terms(result: Result) -> Items:
    """The words of the page, each in a sentence or two."""
    ends = joined([str(o) for o in OUTCOMES])
    items = (
        "A cell is one model at one checkpoint: a data set, an architecture, a number of epochs "
        "and a seed, with everything retrained and scored for it alone.",
        f"A verdict is the outcome of a test: {ends}. Not resolved means that the data do not "
        "decide, not that there is no effect.",
        "A rung is one approximation of the Hessian; a step leads from a rung to the next and its "
        "drop is what the LDS loses on the way. A share is drop / total drop. It is undefined "
        "where the total is within noise, and negative where a step helps; neither is hidden.",
        "Damping is a treatment: equal is the same λ on every rung, relative the same multiple of "
        "each rung's mean eigenvalue, equal effective dimension the same Σ μ₊/(μ₊+λ), tuned each "
        "rung's best λ, chosen on masks that do not score it.",
        "The noise ceiling is the LDS that a perfect predictor would reach against retrained "
        "models that are themselves noisy.",
        f"Numbers in brackets are {intervals(result)} from resamples of masks and queries, the "
        "same for every rung; they do not speak of data sets or architectures that are not here.",
        "Tables can be sorted by any column and downloaded as CSV, figures as SVG or PNG.",
    )
    return Items(items)


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
