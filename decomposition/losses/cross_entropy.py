"""Softmax cross-entropy with class weights, ignored labels and label smoothing."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional

from decomposition.errors import ProblemError
from decomposition.losses.base import Loss
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
    (torch.nn.CrossEntropyLoss; smoothing of Szegedy et al. 2016, arXiv 1512.00567.)

    Raises:
        ProblemError: weights that are not a non-negative vector, or smoothing outside [0, 1].
    """

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
                f"examples with the label {self.ignore_index} are ignored: no loss and no "
                "curvature, but they count in the mean over examples"
            )
        return tuple(said)

    @property
    def one_hot_targets(self) -> bool:
        """Whether q_n is the unit vector of the label, or zero where it is ignored."""
        return self.weight is None and self.label_smoothing == 0.0

    def per_example(self, f: Float[Tensor, "N C"], y: Tensor) -> Float[Tensor, " N"]:
        """−Σ_c q_nc log softmax(f_n)_c."""
        return functional.cross_entropy(
            f,
            y,
            weight=self._weight(f),
            ignore_index=self.ignore_index,
            label_smoothing=self.label_smoothing,
            reduction="none",
        )

    def total_targets(self, f: Float[Tensor, "N C"], y: Tensor) -> Float[Tensor, " N"]:
        """s_n = Σ_c q_nc, the number of times that example n counts: Λ_n = s_n Cov_p[e_c]."""
        seen = y != self.ignore_index
        weight = self._weight(f)
        if weight is None:
            return seen.to(f.dtype)
        smoothing = self.label_smoothing
        hard = weight[torch.where(seen, y, 0)]
        return torch.where(seen, (1 - smoothing) * hard + smoothing * weight.mean(), 0.0)

    def hessian(self, f: Float[Tensor, "N C"], y: Tensor) -> Float[Tensor, "N C C"]:
        """s (diag(p) − p pᵀ)."""
        p = f.softmax(-1)
        scaled = self.total_targets(f, y)[:, None] * p
        return torch.diag_embed(scaled) - scaled[:, :, None] * p[:, None, :]

    def hessian_sqrt(self, f: Float[Tensor, "N C"], y: Tensor) -> Float[Tensor, "N C C"]:
        """√s (diag(√p) − p √pᵀ) (its product with its transpose is Λ because Σp = 1)."""
        p = f.softmax(-1)
        root = (self.total_targets(f, y)[:, None] * p).sqrt()
        return torch.diag_embed(root) - p[:, :, None] * root[:, None, :]

    def check(self, f: Float[Tensor, "N C"], y: Tensor, where: str) -> Int64[Tensor, " N"]:
        """Labels are whole numbers in 0 … C−1 or ``ignore_index``, one per example.

        Raises:
            ProblemError: other labels, one output, weights for another number of classes, or no
                example that counts.
        """
        if y.ndim != 1 or y.is_floating_point() or y.is_complex() or y.dtype == torch.bool:
            raise ProblemError(
                f"{where} targets for cross-entropy must be integer class labels of shape (N,), "
                f"got {y.dtype} of shape {tuple(y.shape)}"
            )
        classes = f.shape[-1]
        if classes < 2:
            raise ProblemError(
                "cross-entropy over a single output is zero whatever the model: use one output "
                "for every class (two for a yes-or-no target), or torch.nn.BCEWithLogitsLoss()"
            )
        check_length(self.weight, "weight of the cross-entropy", classes, one_for_all=False)
        y = y.long()
        bad = torch.nonzero(((y < 0) | (y >= classes)) & (y != self.ignore_index)).flatten()
        if len(bad):
            raise ProblemError(
                f"{where} target {int(y[bad[0]])} at row {int(bad[0])} is outside 0 … "
                f"{classes - 1}: the model has {classes} outputs"
            )
        if len(y) and not self.total_targets(f, y).any():
            reason = f"has the ignored label {self.ignore_index}"
            reason += "" if self.weight is None else " or a class of weight zero"
            raise ProblemError(f"every {where} target {reason}: nothing is left to study")
        return y

    def _weight(self, f: Tensor) -> Tensor | None:
        return None if self.weight is None else self.weight.to(f.device, f.dtype)
