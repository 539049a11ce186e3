"""Binary cross-entropy of C independent logits."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from decomposition.errors import ProblemError
from decomposition.losses.base import Loss, place
from decomposition.losses.options import as_weights, check_broadcast, described


class BinaryCrossEntropy(Loss):
    """Mean over the C outputs of the binary cross-entropy of logits, as nn.BCEWithLogitsLoss.

    With p = σ(f), targets y in [0, 1], weights w and weights u of the positive part

        ℓ = (1/C) Σ_c w_c [−u_c y_c log p_c − (1 − y_c) log(1 − p_c)]
        Λ = diag(a p (1 − p)),  S = diag(√(a p (1 − p))),  a_c = w_c (u_c y_c + 1 − y_c) / C.

    With T positions c goes over all C·T outputs of an example, in the shape (C, d1, …) of which
    the weights are broadcast as torch does: a weight for each channel has the shape (C, 1, …).

    Raises:
        ProblemError: weights that are negative or not finite.
    """

    positions = True

    def __init__(
        self,
        weight: Float[Tensor, "C ..."] | None = None,
        pos_weight: Float[Tensor, "C ..."] | None = None,
    ) -> None:
        """Check the options."""
        self.weight = as_weights(weight, "weight of the binary cross-entropy", shaped=True)
        self.pos_weight = as_weights(
            pos_weight, "pos_weight of the binary cross-entropy", may_vanish=True, shaped=True
        )

    @property
    def name(self) -> str:
        """``binary_cross_entropy`` and its weights."""
        options = {"weight": self.weight, "pos_weight": self.pos_weight}
        return described("binary_cross_entropy", options)

    def per_example(self, f: Float[Tensor, "N C"], y: Tensor) -> Float[Tensor, " N"]:
        """Mean over the outputs of the weighted binary cross-entropy."""
        weight, pos_weight = (_like(w, f) for w in (self.weight, self.pos_weight))
        return (
            functional.binary_cross_entropy_with_logits(
                f.reshape(y.shape), y, weight, pos_weight=pos_weight, reduction="none"
            )
            .flatten(1)
            .mean(-1)
        )

    def scales(self, f: Float[Tensor, "N C"], y: Tensor) -> Float[Tensor, "N C"]:
        """a_nc, the factor of the variance p (1 − p) in Λ."""
        weight, pos_weight = (_like(w, f) for w in (self.weight, self.pos_weight))
        scales = torch.full_like(f, 1.0 / f.shape[-1]).reshape(y.shape)
        if weight is not None:
            scales = scales * weight
        if pos_weight is not None:
            scales = scales * (1.0 + (pos_weight - 1.0) * y)
        return scales.reshape(f.shape)

    def hessian(self, f: Float[Tensor, "N C"], y: Tensor) -> Float[Tensor, "N C C"]:
        """diag(a p (1 − p)); 1 − p is σ(−f), which keeps its digits where p is 1."""
        return torch.diag_embed(self.scales(f, y) * f.sigmoid() * (-f).sigmoid())

    def hessian_sqrt(self, f: Float[Tensor, "N C"], y: Tensor) -> Float[Tensor, "N C C"]:
        """diag(√(a p (1 − p)))."""
        return torch.diag_embed((self.scales(f, y) * f.sigmoid() * (-f).sigmoid()).sqrt())

    def check(self, f: Float[Tensor, "N C *T"], y: Tensor, where: str) -> Float[Tensor, "N C *T"]:
        """Targets are numbers in [0, 1], one for every output; (N,) is taken for (N, 1).

        Raises:
            ProblemError: another shape, a target outside [0, 1], weights for another number of
                outputs, or weights that leave nothing.
        """
        outputs = f.shape[1]
        for option in ("weight", "pos_weight"):
            what = f"{option} of the binary cross-entropy"
            check_broadcast(getattr(self, option), what, f.shape[1:])
        if y.ndim == f.ndim - 1 and outputs == 1:
            y = y[:, None]
        if y.shape != f.shape:
            advice = (
                ": class labels go with torch.nn.CrossEntropyLoss(), or use "
                f"torch.nn.functional.one_hot(y, {outputs})"
            )
            raise ProblemError(
                f"{where} targets for the binary cross-entropy must have the shape of the model's "
                f"outputs {tuple(f.shape)}, got {tuple(y.shape)}"
                + (advice if y.ndim == f.ndim - 1 == 1 else "")
            )
        if y.is_complex():
            raise ProblemError(f"{where} targets for the binary cross-entropy are {y.dtype}")
        if not y.is_floating_point():
            y = y.to(torch.get_default_dtype())
        bad = torch.nonzero(~((y >= 0) & (y <= 1)))  # NaN is in neither
        if len(bad):
            index = bad[0].tolist()
            raise ProblemError(
                f"{where} target {float(y[tuple(index)])} at {place(index, 'output')} is outside "
                "[0, 1]: targets are the probabilities of a positive answer"
            )
        if not self.scales(f.flatten(1), y.to(f.dtype)).any():
            raise ProblemError(f"every {where} target has weight zero: nothing is left to study")
        return y


def _like(weight: Tensor | None, f: Tensor) -> Tensor | None:
    return None if weight is None else weight.to(f.device, f.dtype)
