"""The squared error."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from decomposition.errors import ProblemError
from decomposition.losses.base import Loss, place


class MeanSquaredError(Loss):
    """Squared error averaged over the C outputs: ℓ = ‖f − y‖² / C, Λ = (2/C) I (as nn.MSELoss).

    With T positions C stands for C·T, the numbers of an example's outputs.
    """

    name = "mse"
    positions = True

    def per_example(self, f: Float[Tensor, "N C"], y: Tensor) -> Float[Tensor, " N"]:
        """‖f_n − y_n‖² / C."""
        return (f - y.reshape(f.shape)).square().mean(-1)

    def hessian(self, f: Float[Tensor, "N C"], y: Tensor) -> Float[Tensor, "N C C"]:
        """(2/C) I for every example."""
        return self.hessian_sqrt(f, y) * (2.0 / f.shape[-1]) ** 0.5

    def hessian_sqrt(self, f: Float[Tensor, "N C"], y: Tensor) -> Float[Tensor, "N C C"]:
        """√(2/C) I for every example."""
        outputs = f.shape[-1]
        eye = torch.eye(outputs, dtype=f.dtype, device=f.device)
        return (eye * (2.0 / outputs) ** 0.5).expand(len(f), outputs, outputs)

    def check(self, f: Float[Tensor, "N C *T"], y: Tensor, where: str) -> Tensor:
        """Targets are finite floats of the outputs' shape.

        Raises:
            ProblemError: another shape, complex or non-finite targets.
        """
        if y.shape != f.shape:
            raise ProblemError(
                f"{where} targets for the squared error must have the shape of the model's "
                f"outputs {tuple(f.shape)}, got {tuple(y.shape)}"
                + (": use y[:, None]" if y.ndim == f.ndim - 1 and f.shape[1] == 1 else "")
            )
        if y.is_complex():
            raise ProblemError(f"{where} targets for the squared error are {y.dtype}")
        if not y.is_floating_point():
            y = y.to(torch.get_default_dtype())
        bad = torch.nonzero(~torch.isfinite(y))
        if len(bad):
            index = bad[0].tolist()
            raise ProblemError(f"{where} target at {place(index, 'output')} is {y[tuple(index)]}")
        return y
