"""What every loss offers."""

from __future__ import annotations

from abc import ABC, abstractmethod

from jaxtyping import Float
from torch import Tensor


class Loss(ABC):
    """A loss that is convex in the outputs, with its output Hessian.

    ``per_example`` is also called under ``torch.func`` (vmap, grad, jvp) and in float32. Outputs
    come as rows f (N, C); of a loss with ``positions`` these are the outputs (N, C, d1, …) of the
    model flattened to (N, C·T), and C below stands for C·T. ``check`` alone sees them as they are.
    """

    name: str
    """Name for messages and results, with every option that is not the default."""
    notes: tuple[str, ...] = ()
    """What a reader of results must know."""
    nonnegative: bool = True
    """Whether no loss can be below zero."""
    positions: bool = False
    """Whether outputs (N, C, d1, …) are taken, whose T positions are read off the targets: the
    loss of an example is then the mean over its positions."""

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
    def check(self, f: Float[Tensor, "N C *T"], y: Tensor, where: str) -> Tensor:
        """Return the targets in the form used here, or raise ProblemError naming the entry.

        ``f`` are the outputs as the model returns them.
        """
