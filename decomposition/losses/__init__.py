"""Losses: value per example, output Hessian Λ and a square root of it.

Shapes: f (N, C) outputs, y (N,) class labels or (N, C) targets.
Λ_n = ∇²_f ℓ(f_n, y_n) is (C, C) and S_n satisfies Λ_n = S_n S_nᵀ. The objective is always the
mean (1/N) Σ_n ℓ_n over all N examples, whatever the options of the loss.

Outputs with positions (N, C, d1, …, dk), labels (N, d1, …, dk) or targets of the outputs' shape:
ℓ_n is the mean over the T = d1·…·dk positions of an example, all of them. f is then (N, C·T), and
Λ_n, of order C·T, is block-diagonal over positions: see ``losses.base``.
"""

from decomposition.losses.base import Loss
from decomposition.losses.binary_cross_entropy import BinaryCrossEntropy
from decomposition.losses.cross_entropy import CrossEntropy
from decomposition.losses.custom import CustomLoss
from decomposition.losses.from_torch import as_loss
from decomposition.losses.mean_squared_error import MeanSquaredError

__all__ = [
    "BinaryCrossEntropy",
    "CrossEntropy",
    "CustomLoss",
    "Loss",
    "MeanSquaredError",
    "as_loss",
]
