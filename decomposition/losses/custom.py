"""A loss of one's own: a function of outputs and targets, its output Hessian by autograd."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from decomposition.errors import DecompositionError, ProblemError
from decomposition.losses.base import Loss

Function = Callable[[Tensor, Tensor], Tensor]
Check = Callable[[Tensor, Tensor, str], Tensor]

RELATIVE, ABSOLUTE = 1e-8, 1e-12
"""An eigenvalue below −(RELATIVE · largest of the batch + ABSOLUTE) is negative, not rounded."""
ROWS, ALONE = 256, 64
"""Rows whose Hessian is tried, and rows tried one by one, when a problem is made."""
ELEMENTS = 2**22
"""Elements of the output Hessians that are differentiated at a time."""


class CustomLoss(Loss):
    """ℓ = function(f, y) with Λ_n = ∇²_f ℓ(f_n, y_n) by torch.func.hessian.

    The root is S_n = V √max(λ, 0) with the eigenpairs (λ, V) of Λ_n. A loss that is not convex
    in its outputs has no positive semi-definite Gauss–Newton matrix; with ``convexify`` the GGN
    is that of the nearest one, Λ⁺ = V max(λ, 0) Vᵀ, while the exact Hessian keeps the loss as it
    is.

    Args:
        function: outputs (n, C) and targets (n, …) → the n losses (n,), each of its own row
            alone, in operations that ``torch.func`` can differentiate twice.
        name: name for messages and results.
        check: (outputs, targets, "train" or "query") → the targets to be used; raises
            ProblemError. None: targets are taken as they are.
        convexify: use the positive semi-definite part of Λ instead of refusing.

    Raises:
        ProblemError: ``function`` cannot be called, or ``name`` is empty.
    """

    nonnegative = False

    def __init__(
        self,
        function: Function,
        name: str = "custom",
        check: Check | None = None,
        convexify: bool = False,
    ) -> None:
        """Keep the function; it is tried when a problem is made."""
        if not callable(function) or isinstance(function, type):
            raise ProblemError(
                f"CustomLoss needs a function of outputs and targets, got {function!r}"
            )
        if not isinstance(name, str) or not name:
            raise ProblemError(f"CustomLoss needs a name, got {name!r}")
        self.function, self.name = function, name
        self.target_check, self.convexify = check, convexify
        if convexify:
            self.notes = (
                f"the loss {name} need not be convex in the outputs: where its output Hessian has "
                "negative eigenvalues, the GGN uses its positive semi-definite part",
            )

    def per_example(self, f: Float[Tensor, "N C"], y: Tensor) -> Float[Tensor, " N"]:
        """function(f, y).

        Raises:
            ProblemError: what it returns are not N losses.
        """
        values = self.function(f, y)
        if not isinstance(values, Tensor) or values.shape != f.shape[:1]:
            got = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
            raise ProblemError(
                f"the loss {self.name} must return one number for each of the {len(f)} examples, "
                f"shape ({len(f)},), got {got}: sum over outputs, not over examples "
                "(reduction='none')"
            )
        if not values.is_floating_point():
            raise ProblemError(f"the loss {self.name} must return floats, got {values.dtype}")
        return values

    def hessian(self, f: Float[Tensor, "N C"], y: Tensor) -> Float[Tensor, "N C C"]:
        """Λ by autograd; its positive semi-definite part with ``convexify``."""
        if not self.convexify:
            return self._autograd_hessian(f, y)
        root = self.hessian_sqrt(f, y)
        return root @ root.mT

    def hessian_sqrt(self, f: Float[Tensor, "N C"], y: Tensor) -> Float[Tensor, "N C C"]:
        """V √max(λ, 0).

        Raises:
            ProblemError: Λ is not finite, or not positive semi-definite without ``convexify``.
        """
        return self._root(f, y, "row {} of a batch of examples")

    def check(self, f: Float[Tensor, "N C"], y: Tensor, where: str) -> Tensor:
        """Try the function on all rows, and its Hessian on the first of them.

        Raises:
            ProblemError: losses of another shape, not finite, coupled between examples, not
                differentiable twice, or not convex without ``convexify``.
        """
        if self.target_check is not None:
            y = self.target_check(f, y, where)
            if not isinstance(y, Tensor) or y.shape[:1] != f.shape[:1]:
                raise ProblemError(
                    f"the check of the loss {self.name} must return the {where} targets, one row "
                    f"for each of the {len(f)} examples"
                )
        targets = y.to(f.dtype) if y.is_floating_point() else y
        leaf = f.detach().requires_grad_()
        with torch.enable_grad():
            values = self._tried(lambda: self.per_example(leaf, targets), where)
        bad = torch.nonzero(~torch.isfinite(values)).flatten()
        if len(bad):
            row = int(bad[0])
            raise ProblemError(
                f"the loss {self.name} is {float(values.detach()[row])} at {where} row {row}: "
                "check its target there, and that the function takes any finite outputs"
            )
        if not values.requires_grad:
            raise ProblemError(
                f"the loss {self.name} does not depend on the outputs by autograd: compute it in "
                "torch operations, without .detach(), .item() or NumPy"
            )
        few = slice(0, ROWS)
        self._check_separate(f, targets, values.detach(), where)
        self._tried(lambda: self._root(f[few], targets[few], f"{where} row {{}}"), where)
        return y

    def _check_separate(self, f: Tensor, y: Tensor, together: Tensor, where: str) -> None:
        rows = range(0, len(f), -(-len(f) // ALONE))  # from one end to the other: a branch may turn
        limit = 1e-9 * (float(together.abs().max()) + 1e-30)
        for row in rows:
            one = slice(row, row + 1)
            with torch.no_grad():
                alone = float(self._tried(lambda one=one: self.per_example(f[one], y[one]), where))
            if abs(alone - float(together[row])) > limit:
                raise ProblemError(
                    f"the loss {self.name} of {where} row {row} is {alone:g} alone and "
                    f"{float(together[row]):g} among other rows: the loss of an example must "
                    "depend on that example alone"
                )

    def _autograd_hessian(self, f: Tensor, y: Tensor) -> Tensor:
        """∇²_f of the sum over examples, whose losses are separate, a column of all at a time.

        Only its pullback is vectorised: the function itself, and what it asks of the values
        (torch's own losses check them), sees plain outputs.
        """
        eye = torch.eye(f.shape[-1], dtype=f.dtype, device=f.device)

        def some(f: Tensor, y: Tensor) -> Tensor:
            gradient = torch.func.grad(lambda outputs: self.per_example(outputs, y).sum())
            _, pull = torch.func.vjp(gradient, f)  # pyright: ignore[reportAssignmentType]
            return torch.func.vmap(lambda column: pull(column.expand_as(f))[0])(eye).movedim(0, -1)

        chunk = max(1, ELEMENTS // f.shape[-1] ** 2)
        parts = zip(f.detach().split(chunk), y.split(chunk), strict=True)
        return torch.cat([some(*part) for part in parts])

    def _root(self, f: Tensor, y: Tensor, place: str) -> Tensor:
        hessian = self._autograd_hessian(f, y)
        bad = torch.nonzero(~torch.isfinite(hessian).flatten(1).all(1)).flatten()
        if len(bad):
            raise ProblemError(
                f"the second derivatives of the loss {self.name} in the outputs are not finite at "
                f"{place.format(int(bad[0]))}"
            )
        values, vectors = torch.linalg.eigh((hessian + hessian.mT) / 2)
        if not self.convexify:
            lowest, row = values.min(-1).values.min(0)
            if float(lowest) < -(RELATIVE * float(values.abs().max()) + ABSOLUTE):
                raise ProblemError(
                    f"the loss {self.name} is not convex in its outputs at "
                    f"{place.format(int(row))}: its output Hessian has the eigenvalue "
                    f"{float(lowest):.3g}; "
                    "use a convex loss, or CustomLoss(..., convexify=True) for a GGN of the "
                    "positive semi-definite part"
                )
        return vectors * values.clamp(min=0).sqrt()[:, None, :]

    def _tried(self, work: Callable[[], Tensor], where: str) -> Tensor:
        try:
            return work()
        except DecompositionError:
            raise
        except Exception as error:
            first = (str(error).splitlines() or [""])[0]
            raise ProblemError(
                f"the loss {self.name} cannot be evaluated, or not be differentiated twice under "
                f"torch.func, on {where} data: {type(error).__name__}: {first}; where an operation "
                "has no second derivative, write it out in elementary ones"
            ) from error
