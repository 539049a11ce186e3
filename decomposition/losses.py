"""Losses: value per example, output Hessian Λ and a square root of it.

Shapes: f (N, C) outputs, y (N,) class labels or (N, C) regression targets.
Λ_n = ∇²_f ℓ(f_n, y_n) is (C, C) and S_n satisfies Λ_n = S_n S_nᵀ.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from jaxtyping import Float
from torch import Tensor, nn

from decomposition.errors import ProblemError


class Loss(ABC):
    """A loss that is convex in the outputs, with its output Hessian in closed form."""

    name: str

    @abstractmethod
    def per_example(self, f: Float[Tensor, "N C"], y: Tensor) -> Float[Tensor, " N"]:
        """ℓ(f_n, y_n) for every example."""

    @abstractmethod
    def hessian(self, f: Float[Tensor, "N C"], y: Tensor) -> Float[Tensor, "N C C"]:
        """Λ_n = ∇²_f ℓ(f_n, y_n)."""

    @abstractmethod
    def hessian_sqrt(self, f: Float[Tensor, "N C"], y: Tensor) -> Float[Tensor, "N C C"]:
        """S_n with S_n S_nᵀ = Λ_n; column c is the c-th direction of the GGN sum."""

    @abstractmethod
    def check(self, f: Float[Tensor, "N C"], y: Tensor, where: str) -> Tensor:
        """Return the targets in the form used here, or raise ProblemError naming the entry."""


class CrossEntropy(Loss):
    """Softmax cross-entropy: ℓ = logsumexp(f) − f_y, Λ = diag(p) − p pᵀ, S = diag(√p) − p √pᵀ."""

    name = "cross_entropy"

    def per_example(self, f: Tensor, y: Tensor) -> Tensor:
        """−log softmax(f)_y."""
        return nn.functional.cross_entropy(f, y, reduction="none")

    def hessian(self, f: Tensor, y: Tensor) -> Tensor:
        """diag(p) − p pᵀ, independent of the label."""
        p = f.softmax(-1)
        return torch.diag_embed(p) - p[:, :, None] * p[:, None, :]

    def hessian_sqrt(self, f: Tensor, y: Tensor) -> Tensor:
        """diag(√p) − p √pᵀ (its product with its transpose is Λ because Σp = 1)."""
        p = f.softmax(-1)
        root = p.sqrt()
        return torch.diag_embed(root) - p[:, :, None] * root[:, None, :]

    def check(self, f: Tensor, y: Tensor, where: str) -> Tensor:
        """Labels are whole numbers in 0 … C−1, one per example."""
        if y.ndim != 1 or y.is_floating_point() or y.is_complex() or y.dtype == torch.bool:
            raise ProblemError(
                f"{where} targets for cross-entropy must be integer class labels of shape (N,), "
                f"got {y.dtype} of shape {tuple(y.shape)}"
            )
        classes = f.shape[-1]
        if classes < 2:
            raise ProblemError(
                "cross-entropy over a single output is zero whatever the model: use one output "
                "for every class (two for a yes-or-no target)"
            )
        bad = torch.nonzero((y < 0) | (y >= classes)).flatten()
        if len(bad):
            raise ProblemError(
                f"{where} target {int(y[bad[0]])} at row {int(bad[0])} is outside 0 … "
                f"{classes - 1}: the model has {classes} outputs"
            )
        return y.long()


class MeanSquaredError(Loss):
    """Squared error averaged over the C outputs: ℓ = ‖f − y‖² / C, Λ = (2/C) I (as nn.MSELoss)."""

    name = "mse"

    def per_example(self, f: Tensor, y: Tensor) -> Tensor:
        """‖f_n − y_n‖² / C."""
        return (f - y).square().mean(-1)

    def hessian(self, f: Tensor, y: Tensor) -> Tensor:
        """(2/C) I for every example."""
        return self.hessian_sqrt(f, y) * (2.0 / f.shape[-1]) ** 0.5

    def hessian_sqrt(self, f: Tensor, y: Tensor) -> Tensor:
        """√(2/C) I for every example."""
        outputs = f.shape[-1]
        eye = torch.eye(outputs, dtype=f.dtype, device=f.device)
        return (eye * (2.0 / outputs) ** 0.5).expand(len(f), outputs, outputs)

    def check(self, f: Tensor, y: Tensor, where: str) -> Tensor:
        """Targets are finite floats of the outputs' shape."""
        if y.shape != f.shape:
            raise ProblemError(
                f"{where} targets for the squared error must have the shape of the model's "
                f"outputs {tuple(f.shape)}, got {tuple(y.shape)}"
                + (": use y[:, None]" if y.ndim == 1 and f.shape[-1] == 1 else "")
            )
        if y.is_complex():
            raise ProblemError(f"{where} targets for the squared error are {y.dtype}")
        if not y.is_floating_point():
            y = y.to(torch.get_default_dtype())
        bad = torch.nonzero(~torch.isfinite(y))
        if len(bad):
            row, column = bad[0].tolist()
            raise ProblemError(f"{where} target at row {row}, output {column} is {y[row, column]}")
        return y


def as_loss(loss: Loss | nn.Module) -> Loss:
    """Accept our own Loss or the torch module of the same name with its default options.

    Raises:
        ProblemError: another loss, or an option (class weights, label smoothing,
            reduction other than the mean) whose curvature is not implemented.
    """
    if isinstance(loss, Loss):
        return loss
    if type(loss) is nn.CrossEntropyLoss:
        _reject(loss, "weight", loss.weight, None)
        _reject(loss, "label_smoothing", loss.label_smoothing, 0.0)
        _reject(loss, "ignore_index", loss.ignore_index, -100)
        _reject(loss, "reduction", loss.reduction, "mean")
        return CrossEntropy()
    if type(loss) is nn.MSELoss:
        _reject(loss, "reduction", loss.reduction, "mean")
        return MeanSquaredError()
    if isinstance(loss, type):
        raise ProblemError(
            f"loss is the class {loss.__name__}: pass an instance, {loss.__name__}()"
        )
    raise ProblemError(
        f"loss {type(loss).__name__} is not supported: use torch.nn.CrossEntropyLoss(), "
        "torch.nn.MSELoss(), or a subclass of decomposition.losses.Loss"
    )


def _reject(loss: nn.Module, option: str, value: object, default: object) -> None:
    if value is not default and value != default:
        raise ProblemError(
            f"{type(loss).__name__}({option}={value!r}) is not supported: its curvature is "
            f"implemented for {option}={default!r} only"
        )
