"""Newton's step with a damped GGN that has no eigenbasis: by its dual form, or by iteration."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from decomposition.curvature.cg import cg
from decomposition.curvature.operator import Curvature
from decomposition.curvature.solution import Stopping

Step = Callable[[Float[Tensor, "P k"]], Float[Tensor, "P k"]]
"""v → (G + λI)⁻¹ v, to the accuracy that the solver has; NaN where a column has diverged."""

INNER = Stopping(0.03, 200, required=False)
"""Of an iterated step: the acceleration around it makes good what is missing, at about one and a
half digits a step."""


def newton_step(ggn: Curvature, metric: Curvature, damping: float) -> Step:
    """The damped inverse of the GGN.

    Args:
        ggn: G, positive semi-definite, in any form.
        metric: preconditions the solves of a G that is known by its products alone.
        damping: λ > 0.
    """
    if not ggn.matrix_free:
        return _of_finite_columns(lambda v: ggn.solve(v, damping, "absolute"))

    def step(v: Float[Tensor, "P k"]) -> Float[Tensor, "P k"]:
        size = torch.linalg.vector_norm(v, dim=0).clamp_min(torch.finfo(v.dtype).tiny)
        found = cg(
            lambda u: ggn.matvec(u) + damping * u,
            v / size,
            lambda u: metric.solve(u, damping, "absolute"),
            INNER,
        )
        return found.x * size

    return _of_finite_columns(step)


def _of_finite_columns(step: Step) -> Step:
    def careful(v: Float[Tensor, "P k"]) -> Float[Tensor, "P k"]:
        finite = torch.isfinite(v).all(0)
        if bool(finite.all()):
            return step(v)
        out = torch.full_like(v, torch.nan)
        out[:, finite] = step(v[:, finite])
        return out

    return careful
