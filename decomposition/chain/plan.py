"""Which form every rung takes under a memory budget: dense, dual, structured or matrix-free.

    dense        the P × P matrix and its eigendecomposition: everything is exact and every λ is
                 cheap, for 8 P² bytes a matrix
    dual         G and its blocks exactly through the NC × NC Gram matrix (Woodbury)
    structured   Kronecker factors: EK-FAC and K-FAC at any size
    matrix-free  products alone: every solve iterates, the spectrum is estimated

Rungs beside the chain (other Fishers, weights and biases apart) follow the same rule: what is
Kronecker is structured, and any other Gauss–Newton matrix takes the form that its number of rows
allows. The choice depends on sizes and the budget alone; what a form costs is counted in ``cost``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import torch

from decomposition.checks import checked, one_of
from decomposition.curvature.dual import kept_bytes
from decomposition.curvature.matrix_free import (
    KRYLOV_STEPS,
    SOLVE_NUMBERS,
    SPACE_BYTES,
    WORK_VECTORS,
)
from decomposition.curvature.products import to_be_made
from decomposition.curvature.shared_space import dimensions
from decomposition.device import chunk_bytes, free_memory_on
from decomposition.errors import DecompositionError
from decomposition.layers import ExactBlock
from decomposition.names import CHAIN, LATTICE
from decomposition.problem import Problem
from decomposition.resources import FRACTION, size_text

Way = Literal["dense", "dual", "structured", "matrix-free"]
Precision = Literal["float64", "float32"]

DENSE_COPIES = 9.5
"""P × P matrices alive at once when every rung is dense: a measured peak."""
OF_A_BLOCK = 0.25
"""Cost of a block's sweep, of the whole model's: on average it passes half of the layers, and
leaves out their parameters."""
OF_A_SPACE, OF_THE_ONLY_SPACE = 0.25, 0.375
"""Part of the budget for the Krylov space of one rung, beside H's, which is kept; and for H's in
single precision where no other rung has one."""
STEP_BLOCKS = 6
"""Copies of all vectors that are solved, themselves among them, at the peak of a step of their
space: 4.7 were measured, and a product has some more."""
KEPT_BYTES, ALONG_BYTES = 4, 4
"""Of a number in the space of H, which is kept in single precision, and in the copy along which
gradients are taken: none of a space that has that precision."""
UNLIMITED = 2**62
"""A budget in which every rung is dense."""


def of_blocks(count: int) -> float:
    """Products with the whole matrix that one with all of so many blocks takes the time of.

    1.0 was measured for 2 and 3 blocks, 4.9 for 19.
    """
    return max(1.0, OF_A_BLOCK * count)


def only_space(products: Precision, dual: bool, no_lattice: str) -> bool:
    """Whether H's space is in single precision, so that it is kept without a copy, and no other
    rung has one: the GGN and its blocks are ``dual``, and there is no block-diagonal H."""
    return products == "float32" and dual and bool(no_lattice)


def space_bytes(budget: int, only: bool) -> int:
    """Of a Krylov space, in a budget of so many bytes; ``only``: it is H's, and needs no copy."""
    return max(SPACE_BYTES, int((OF_THE_ONLY_SPACE if only else OF_A_SPACE) * budget))


@dataclass(frozen=True)
class Choice:
    """The form of one rung."""

    rung: str
    way: Way
    memory: int
    """Bytes at its peak."""
    reason: str
    """Why this form."""


@dataclass(frozen=True)
class Plan:
    """The forms of all rungs."""

    choices: dict[str, Choice]
    """Of the chain, and of the lattice's other nodes where they can be had."""
    budget: int
    """Bytes that the run may take."""
    gauss_newton: Callable[[int], tuple[Way, int, str]]
    """Rows, N times those of an example → form of (1/N) Σ J_nᵀ R_n R_nᵀ J_n, bytes, and why."""
    products: Precision = "float64"
    """Precision of matrix-free products."""
    krylov_steps: int = KRYLOV_STEPS
    """Most of them for each vector that is solved at many dampings."""
    no_lattice: str = ""
    """Why the lattice's other nodes cannot be had; empty where they can."""

    @property
    def space_bytes(self) -> int:
        """Of the Krylov space of a rung that is known by its products."""
        only = only_space(self.products, self.way("ggn") == "dual", self.no_lattice)
        return space_bytes(self.budget, only)

    def dimensions(self, parameters: int, vectors: int) -> int:
        """Of the space of so many vectors, which is as many products."""
        largest = self.space_bytes // (getattr(torch, self.products).itemsize * parameters)
        return dimensions(parameters, vectors, self.krylov_steps, largest)

    @property
    def dense(self) -> bool:
        """Whether everything is formed, so that nothing is estimated."""
        return self.choices["hessian"].way == "dense"

    def way(self, rung: str) -> Way:
        """The form of a rung of the chain or the lattice."""
        return self.choices[rung].way


def plan_chain(
    problem: Problem,
    memory: int | None = None,
    products: Precision = "float64",
    device: torch.device | None = None,
    krylov_steps: int = KRYLOV_STEPS,
) -> Plan:
    """The cheapest exact form of every rung that fits, and products where none does.

    Args:
        problem: P, N, C and its blocks are what matters.
        memory: bytes that the computation may take; default three quarters of what is free on
            the device.
        products: precision of matrix-free products; float32 is several times as fast and has a
            relative rounding of 1e-6.
        device: where it will run; default where the problem lies.
        krylov_steps: most matrix-free products for each vector that is solved at many dampings.

    Raises:
        DecompositionError: no precision.
    """
    products = checked("products", products, one_of(*get_args(Precision)), DecompositionError)
    device = device or problem.device
    budget = int(FRACTION * free_memory_on(device)) if memory is None else memory
    p = problem.num_parameters
    work = 8 * WORK_VECTORS
    at_once = chunk_bytes(device, work * SOLVE_NUMBERS) // (work * p)
    at_work = min(problem.num_queries, max(1, at_once))
    # of every query a gradient and a solution, and the vectors of those at work
    columns = p * (8 * 2 * problem.num_queries + work * at_work)
    whole, structured = int(DENSE_COPIES * 8 * p**2), structured_bytes(problem)

    def dual(rows: int) -> tuple[bool, int]:
        gram = dual_bytes(problem, rows, device)
        return rows < p and gram + columns <= budget, gram

    count = problem.num_examples * problem.num_outputs
    no_lattice = _no_lattice(problem, krylov_steps)
    only = only_space(products, dual(count)[0], no_lattice)
    width = getattr(torch, products).itemsize
    space = dimensions(
        p, problem.num_queries, krylov_steps, space_bytes(budget, only) // (width * p)
    )
    step = max(columns, 8 * p * STEP_BLOCKS * problem.num_queries)
    copies = 0 if only else KEPT_BYTES + (0 if products == "float32" else ALONG_BYTES)
    iterated = structured + step + (width + copies) * p * space

    def gauss_newton(rows: int) -> tuple[Way, int, str]:
        if whole <= budget:
            return "dense", whole, f"all P × P matrices of P = {p:,} fit"
        fits, gram = dual(rows)
        if fits:
            return "dual", gram + columns, f"N·C = {rows:,} is less than P = {p:,}"
        side = f"N·C = {rows:,}"
        if rows >= p:
            why = f"{side} is not less than P = {p:,}"
        else:
            why = f"Gram matrices of {side} would take {size_text(gram)}"
        return "matrix-free", iterated, why

    ggn = gauss_newton(count)
    kronecker: tuple[Way, int, str] = ("structured", structured, "Kronecker factors")
    hessian = ggn
    if ggn[0] != "dense":
        why = f"P = {p:,}: dense matrices would take {size_text(whole)}"
        hessian = ("matrix-free", iterated, why)
    forms = (hessian, ggn, ggn, kronecker, kronecker)
    table: dict[str, tuple[Way, int, str]] = dict(zip(CHAIN, forms, strict=True))
    missing = "" if ggn[0] == "dense" else no_lattice
    if not missing:
        way, taken, why = hessian
        if way == "matrix-free":  # and the blocks that are made once that is less work
            taken += 8 * sum(side**2 for side in to_be_made(block.size for block in problem.blocks))
        table |= {"block_hessian": (way, taken, why), "ekfac_hessian": kronecker}
    choices = {rung: Choice(rung, *table[rung]) for rung in LATTICE if rung in table}
    return Plan(choices, budget, gauss_newton, products, krylov_steps, missing)


def _no_lattice(problem: Problem, krylov_steps: int) -> str:
    """Why diag(Qᵀ H_ll Q) is too dear; it takes P products with blocks unless the model is plain.

    They may cost what the solutions of H for all queries cost.
    """
    columns, solves = OF_A_BLOCK * problem.num_parameters, krylov_steps * problem.num_queries
    if problem.plain or columns <= solves:
        return ""
    return (
        "steps are read in the chain's own order alone: H in the Kronecker basis, which the other "
        f"orders take, needs a product with H for each of P = {problem.num_parameters:,} "
        f"parameters in this model, more than the {solves:,} that all solutions of H take; raise "
        "--memory until H is formed"
    )


def structured_bytes(problem: Problem) -> int:
    """Factors, their eigenvectors and eigenvalues, and exact blocks."""
    total = 0
    for block in problem.blocks:
        if isinstance(block, ExactBlock):
            total += 3 * block.size**2
        else:
            total += 3 * (block.width**2 + block.d_out**2) + 3 * block.size
    return 8 * total


def dual_bytes(problem: Problem, rows: int, device: torch.device) -> int:
    """Gram matrices with their eigenvectors, the rows where they are kept, and one block's."""
    own = sum(2 * min(rows, block.size) ** 2 for block in problem.blocks)
    largest = max(block.size for block in problem.blocks)
    kept = rows * problem.num_parameters
    held = kept if 8 * kept <= kept_bytes(device) else rows * largest
    return 8 * (own + 5 * rows**2 + held + rows * largest)
