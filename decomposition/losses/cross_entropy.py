"""Softmax cross-entropy with class weights, ignored labels and label smoothing."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional

from decomposition.errors import ProblemError
from decomposition.losses.base import Loss, block_diagonal, by_position, place
from decomposition.losses.options import as_weights, check_length, described

IGNORED = -100
"""The label that torch ignores by default."""


class CrossEntropy(Loss):
    """Softmax cross-entropy ℓ_n = −Σ_c q_nc log p_nc with p = softmax(f).

    The target q_n has the entries q_nc = (1 − ε) w_c [c = y_n] + (ε/C) w_c, with class weights w
    and label smoothing ε, and its sum is s_n = (1 − ε) w_{y_n} + ε mean(w). Hence

        ∇ℓ_n = s_n p_n − q_n,  Λ_n = s_n (diag(p) − p pᵀ),  S_n = √s_n (diag(√p) − p √pᵀ).

    Without options s_n = 1 and q_n is the unit vector of the label. An example whose label is
    ``ignore_index`` has q_n = 0: no loss, no gradient, no curvature.

    ℓ_n is torch's loss with reduction='none'. The mean is over all N examples, those ignored
    included, where torch's reduction='mean' divides by Σ_n w_{y_n} over those that are not: on
    the full data the objectives differ by the constant factor Σ_n w_{y_n} / N, so a damping or a
    weight decay means another strength; in training, torch's factor changes with the batch.

    With T positions, outputs (N, C, d1, …) and labels (N, d1, …), all this holds of each position
    and ℓ_n is the mean over all T of them, ignored ones included as zeros; Λ_n = (1/T) ⊕_t Λ_nt.
    The factor to torch's mean is Σ_nt w_{y_nt} / (N T) over the labels that are not ignored.
    (torch.nn.CrossEntropyLoss; smoothing of Szegedy et al. 2016, arXiv 1512.00567.)

    Raises:
        ProblemError: weights that are not a non-negative vector, or smoothing outside [0, 1].
    """

    positions = True

    def __init__(
        self,
        weight: Float[Tensor, " C"] | None = None,
        ignore_index: int = IGNORED,
        label_smoothing: float = 0.0,
    ) -> None:
        """Check the options."""
        self.weight = as_weights(weight, "weight of the cross-entropy")
        self.ignore_index = int(ignore_index)
        self.label_smoothing = float(label_smoothing)
        if not 0.0 <= self.label_smoothing <= 1.0:
            raise ProblemError(f"label_smoothing must be in [0, 1], got {label_smoothing}")

    @property
    def name(self) -> str:
        """``cross_entropy`` and the options that are not the default."""
        options = {
            "weight": self.weight,
            "ignore_index": self.ignore_index if self.ignore_index != IGNORED else None,
            "label_smoothing": self.label_smoothing or None,
        }
        return described("cross_entropy", options)

    @property
    def notes(self) -> tuple[str, ...]:
        """What the options mean for the mean over examples."""
        said = []
        if self.weight is not None:
            said.append(
                "class weights: the objective is the mean over all examples of weight times loss; "
                "torch's weighted mean is this divided by the mean weight, so the same damping or "
                "weight decay is of another strength there"
            )
        if self.ignore_index != IGNORED:
            said.append(
                f"examples or positions with the label {self.ignore_index} are ignored: no loss "
                "and no curvature, but they count in the means over examples and positions"
            )
        return tuple(said)

    @property
    def one_hot_targets(self) -> bool:
        """Whether q_n is the unit vector of the label, or zero where it is ignored."""
        return self.weight is None and self.label_smoothing == 0.0

    def per_example(self, f: Float[Tensor, "N C"], y: Tensor) -> Float[Tensor, " N"]:
        """−Σ_c q_nc log softmax(f_n)_c, or its mean over positions."""
        rows, labels = by_position(f, y)
        values = functional.cross_entropy(
            rows,
            labels,
            weight=self._weight(f),
            ignore_index=self.ignore_index,
            label_smoothing=self.label_smoothing,
            reduction="none",
        )
        return values if y.ndim == 1 else values.unflatten(0, (len(y), -1)).mean(-1)

    def total_targets(self, f: Float[Tensor, "N C"], y: Tensor) -> Float[Tensor, "*y"]:
        """s = Σ_c q_c, how often each label counts, in the shape of ``y``: Λ = s Cov_p[e_c]."""
        seen = y != self.ignore_index
        weight = self._weight(f)
        if weight is None:
            return seen.to(f.dtype)
        smoothing = self.label_smoothing
        hard = weight[torch.where(seen, y, 0)]
        return torch.where(seen, (1 - smoothing) * hard + smoothing * weight.mean(), 0.0)

    def hessian(self, f: Float[Tensor, "N C"], y: Tensor) -> Float[Tensor, "N C C"]:
        """s (diag(p) − p pᵀ) of every position, divided by their number."""
        p, scaled = self._probabilities(f, y)
        return block_diagonal(torch.diag_embed(scaled) - scaled[:, :, None] * p[:, None, :], y)

    def hessian_sqrt(self, f: Float[Tensor, "N C"], y: Tensor) -> Float[Tensor, "N C C"]:
        """√s (diag(√p) − p √pᵀ) (its product with its transpose is Λ because Σp = 1)."""
        p, scaled = self._probabilities(f, y)
        root = scaled.sqrt()
        return block_diagonal(torch.diag_embed(root) - p[:, :, None] * root[:, None, :], y)

    def _probabilities(self, f: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """p and s p / T of every position, (N·T, C)."""
        rows, labels = by_position(f, y)
        p = rows.softmax(-1)
        return p, (self.total_targets(rows, labels) / y.shape[1:].numel())[:, None] * p

    def check(self, f: Float[Tensor, "N C *T"], y: Tensor, where: str) -> Int64[Tensor, "N ..."]:
        """Labels are whole numbers in 0 … C−1 or ``ignore_index``, one per example or position.

        Raises:
            ProblemError: other labels, one output, weights for another number of classes, or no
                label that counts.
        """
        whole = not (y.is_floating_point() or y.is_complex() or y.dtype == torch.bool)
        if not whole or y.shape != f.shape[:1] + f.shape[2:]:
            raise ProblemError(
                f"{where} targets for cross-entropy must be integer class labels of shape "
                f"{_wanted(f)}, got {y.dtype} of shape {tuple(y.shape)}{_way_out(f, y)}"
            )
        classes = f.shape[1]
        if classes < 2:
            raise ProblemError(
                "cross-entropy over a single output is zero whatever the model: use one output "
                "for every class (two for a yes-or-no target), or torch.nn.BCEWithLogitsLoss()"
            )
        check_length(self.weight, "weight of the cross-entropy", classes)
        y = y.long()
        bad = torch.nonzero(((y < 0) | (y >= classes)) & (y != self.ignore_index))
        if len(bad):
            index = bad[0].tolist()
            raise ProblemError(
                f"{where} target {int(y[tuple(index)])} at {place(index)} is outside 0 … "
                f"{classes - 1}: the model has {classes} outputs{_of_position(f)}"
            )
        if len(y) and not self.total_targets(f, y).any():
            reason = f"has the ignored label {self.ignore_index}"
            reason += "" if self.weight is None else " or a class of weight zero"
            raise ProblemError(f"every {where} target {reason}: nothing is left to study")
        return y

    def _weight(self, f: Tensor) -> Tensor | None:
        return None if self.weight is None else self.weight.to(f.device, f.dtype)


def _wanted(f: Tensor) -> str:
    if f.ndim == 2:
        return "(N,)"
    return (
        f"{(len(f), *f.shape[2:])}, one for every position of outputs (N, C, d1, …) = "
        f"{tuple(f.shape)}"
    )


def _way_out(f: Tensor, y: Tensor) -> str:
    """What to do about outputs of one shape and labels of another."""
    if y.shape == f.shape and y.is_floating_point():
        return (
            ": for probabilities of every class use decomposition.CustomLoss(lambda f, q: "
            "-(q * f.log_softmax(1)).sum(1), 'soft cross-entropy')"
            if f.ndim == 2
            else ""
        )
    if f.ndim == 2:
        positions = y.ndim > 1 and y.shape[1:].numel() > 1 and not y.is_floating_point()
        return ": labels of several positions go with outputs (N, C, d1, …)" if positions else ""
    if y.shape == f.shape[:-1]:
        move = "transpose(1, 2)" if f.ndim == 3 else "movedim(-1, 1)"
        return f": the classes come second, so let the model return logits.{move}"
    if y.shape == f.shape[:1]:
        return (
            ": for one label an example let the model return (N, C), such as logits of its last "
            "position or of a mean over them"
        )
    return ""


def _of_position(f: Tensor) -> str:
    if f.ndim == 2:
        return ""
    return (
        f" (C of outputs (N, C, d1, …) = {tuple(f.shape)}; where the classes come last, let the "
        "model return logits.transpose(1, 2))"
    )
