"""The margin of a query as a function of the outputs, so that it has gradients as a loss has."""

from __future__ import annotations

import torch
from torch import Tensor

from decomposition.losses import CrossEntropy
from decomposition.targets.names import TargetError


class Margin(CrossEntropy):
    """m = f_y − log Σ_{c≠y} exp f_c, the log-odds of the label: large where the loss is small.

    With p_y the probability of the label, ∇m = −∇ℓ / (1 − p_y) and m = −log(exp ℓ − 1): on one
    model the margin is a decreasing function of the loss. It is differentiated directly, because
    1 − p_y has no digits left where the label is certain.

    The margin is about the label and the model's probabilities alone: class weights and label
    smoothing play no part in it, and these two identities are those of ℓ = −log p_y without them.
    An ignored query has no margin, and neither have independent outputs (binary cross-entropy):
    both are refused by ``check_problem``.

    Source: Park et al., TRAK: Attributing Model Behavior at Scale (ICML 2023).
    """

    @property
    def name(self) -> str:
        """``margin``."""
        return "margin"

    def check(self, f: Tensor, y: Tensor, where: str) -> Tensor:
        """Labels as they are: the loss of the problem has checked them, with its own options."""
        return y

    def per_example(self, f: Tensor, y: Tensor) -> Tensor:
        """f_y − log Σ_{c≠y} exp f_c."""
        label = y[:, None]
        rest = f.scatter(-1, label, -torch.inf).logsumexp(-1)
        return f.gather(-1, label)[:, 0] - rest

    def hessian(self, f: Tensor, y: Tensor) -> Tensor:
        """Not defined here: the margin is measured, never trained on, and is not convex."""
        raise TargetError("the margin has no curvature here: train on a loss")

    hessian_sqrt = hessian
