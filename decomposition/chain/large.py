"""The chain where its matrices are too large to form: each rung in the form that a plan chose."""

from __future__ import annotations

from typing import TypedDict

import torch

from decomposition.chain.plan import Plan
from decomposition.chain.rungs import EKFAC, KFAC
from decomposition.chain.shared_factors import Parts
from decomposition.curvature import Curvature
from decomposition.curvature.dual import dual_rungs
from decomposition.curvature.matrix_free import MatrixFreeCurvature
from decomposition.curvature.products import block_ggn_product, ggn_product, hessian_product
from decomposition.errors import DecompositionError
from decomposition.problem import Problem

TOLERANCES = {"float64": 1e-6, "float32": 1e-4}
"""Relative residual of iterative solves, by the precision of the products."""


class Limits(TypedDict):
    """When solves end."""

    tolerance: float
    krylov_steps: int


def check_decay_held(problem: Problem, plan: Plan | None = None) -> None:
    """Raise DecompositionError if the weight decay is to be in curvatures that are not formed.

    They are formed by a plan that is dense; None: by none.
    """
    if problem.curvature_decay and not (plan is not None and plan.dense):
        raise DecompositionError(
            f"P = {problem.num_parameters:,}: weight_decay_in_curvature is for models whose "
            "matrices fit into memory; raise --memory, or leave it out, where the damping λ takes "
            "its place"
        )


def planned_chain(parts: Parts, plan: Plan, progress: bool = False) -> dict[str, Curvature]:
    """The five rungs in chain order, H matrix-free, single solves preconditioned by EK-FAC.

    Args:
        parts: of the problem.
        plan: one whose Hessian is not dense.
        progress: show a bar over the dual Gram matrices.
    """
    if plan.dense:
        raise DecompositionError("this plan forms every matrix: use build_chain")
    problem, dtype = parts.problem, getattr(torch, plan.products)
    check_decay_held(problem)
    limits: Limits = {"tolerance": TOLERANCES[plan.products], "krylov_steps": plan.krylov_steps}
    ekfac, kfac = EKFAC().build(parts), KFAC().build(parts)
    ggn: Curvature
    block_ggn: Curvature
    if plan.way("ggn") == "dual":
        ggn, block_ggn = dual_rungs(problem, progress)
    else:
        product = ggn_product(problem, dtype)
        alone = block_ggn_product(problem, dtype)
        ggn, block_ggn = (
            MatrixFreeCurvature(p, ekfac, definite=True, name=name, **limits)
            for name, p in (("ggn", product), ("block_ggn", alone))
        )
    hessian = MatrixFreeCurvature(hessian_product(problem, dtype), ekfac, name="hessian", **limits)
    return {"hessian": hessian, "ggn": ggn, "block_ggn": block_ggn, "ekfac": ekfac, "kfac": kfac}
