"""What every loss offers."""

from __future__ import annotations

from abc import ABC, abstractmethod

from jaxtyping import Float
from torch import Tensor


class Loss(ABC):
    """A loss that is convex in the outputs, with its output Hessian.

    ``per_example`` is also called under ``torch.func`` (vmap, grad, jvp) and in float32.
    """

    name: str
    """Name for messages and results, with every option that is not the default."""
    notes: tuple[str, ...] = ()
    """What a reader of results must know."""

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
