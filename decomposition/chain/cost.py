"""What a rung costs by itself: its work counted, and predicted in seconds on this machine.

The work is counted from sizes and the plan alone, so that it is the same on every machine: passes
over the examples, columns multiplied with H or G, multiply-adds of matrix products, and the cubed
sides of eigendecompositions. What rungs share in a run (the matrix of G, Kronecker factors) is
charged in full to each of them: whoever takes one rung pays for all that it is made of. So blocks
are charged for blocks, not for the whole matrix that a run takes them from.

    build        everything up to the operator: factors, matrices, Gram matrices
    decompose    its eigendecompositions
    solve        one query at one λ: its gradient, (C + λI)⁻¹ g, and g_i · of every training example
    score        gradients of all training examples, which every rung needs, once for all queries

An operation is a floating-point addition or multiplication: a forward pass of an example takes
F (of its matrix products and convolutions), a backward pass 2 F, a product with H or G 6 F, a
multiply-add 2, and an eigendecomposition of side n about 9 n³ (Golub & Van Loan 2013, 8.3).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import astuple, dataclass, replace
from functools import partial

import torch
from torch.utils.flop_counter import FlopCounterMode

from decomposition.chain.plan import (
    OF_A_BLOCK,
    Plan,
    Precision,
    dual_bytes,
    of_blocks,
    structured_bytes,
)
from decomposition.curvature.block_products import worth_sweeping
from decomposition.curvature.dual import kept_bytes
from decomposition.device import synchronise
from decomposition.inputs import apply, double, take
from decomposition.layers import ExactBlock, LinearBlock
from decomposition.linalg import eigh, matmul
from decomposition.names import CHAIN
from decomposition.problem import Problem

GEMM_SIDE, EIGH_SIDE = 768, 512
"""Sides of the matrices that are timed."""
ON_CUDA = 4
"""Both sides times this there, where less leaves the device idle."""
SWEPT_EXAMPLES, SWEPT_COLUMNS, SWEPT_MOST, SWEPT_SECONDS = 128, 2, 32, 1.0
"""Examples and columns of the first product that is timed; both are doubled, up to all examples and
so many columns, until it takes so long: rates are those of products as large as a run's."""
OF_EIGH, OF_PRODUCT = 9, 6
"""Operations of an eigendecomposition per n³, and of a product per operation of a forward pass."""
HESSIAN_GEMMS = 2
"""Multiply-adds of a dense H of a stack of linear layers, per N P²; of G it is one."""
EIGH_COPIES = 4
"""Matrices at the peak of an eigendecomposition: itself, its vectors, LAPACK's work space."""
ORTHOGONALISED, DECOMPOSED = 2, 2
"""Passes over a Krylov basis; and eigendecompositions of its last size while it grows."""
ORTHONORMAL = 9
"""Products of a block with itself that it takes to be made orthonormal: a QR takes 7, measured."""
CHANGED = 5
"""Products with a small matrix of Ritz vectors for a λ: its solutions, and how they changed."""


@dataclass(frozen=True)
class Work:
    """A computation, counted."""

    examples: float = 0.0
    """Passed forward; one that is passed twice counts twice."""
    backward: float = 0.0
    """Backward passes of one example."""
    products: float = 0.0
    """Columns multiplied with H or G in a sweep over all examples."""
    multiplications: float = 0.0
    """Multiply-adds of matrix products."""
    cubes: float = 0.0
    """Σ n³ of eigendecompositions."""

    def __add__(self, other: Work) -> Work:
        """Both."""
        return Work(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))

    def __mul__(self, times: float) -> Work:
        """So many times."""
        return Work(*(times * a for a in astuple(self)))


@dataclass(frozen=True)
class Cost:
    """What one rung takes by itself."""

    build: Work = Work()
    decompose: Work = Work()
    solve: Work = Work()
    """One query at one λ."""
    again: Work = Work()
    """The same query at one more λ."""
    memory: int = 0
    """Bytes at its peak, beyond the gradients that every rung needs."""

    def at_once(self, queries: int, dampings: int = 1) -> Work:
        """Built, decomposed, and solved for so many queries at so many λ."""
        every = self.solve + self.again * (dampings - 1)
        return self.build + self.decompose + every * queries


class Costs:
    """Costs of rungs at one problem, each in the form that the plan has for it.

    Args:
        problem: its sizes and its model count, its parameters do not.
        plan: the forms.
    """

    def __init__(self, problem: Problem, plan: Plan) -> None:
        """Count what is common to all rungs."""
        self.problem, self.plan = problem, plan
        self.size, self.examples = problem.num_parameters, problem.num_examples
        self.forward = forward_operations(problem)
        self.layers = [b for b in problem.blocks if isinstance(b, LinearBlock)]
        self.stand_ins = [b for b in problem.blocks if isinstance(b, ExactBlock)]
        weights = 2 * sum(block.size for block in self.layers)
        self._positions = max(1.0, self.forward / weights) if weights else 1.0

    @property
    def score(self) -> Work:
        """Gradients of all training examples."""
        return Work(self.examples, self.examples)

    @property
    def query(self) -> Work:
        """What every solve has: the query's gradient, and its products with all others."""
        return Work(1, 1, multiplications=self.examples * self.size)

    @property
    def identity(self) -> Cost:
        """No curvature at all."""
        return Cost(solve=self.query)

    def operations(self, work: Work) -> float:
        """Floating-point operations."""
        passes = work.examples + 2 * work.backward + OF_PRODUCT * self.examples * work.products
        return self.forward * passes + 2 * work.multiplications + OF_EIGH * work.cubes

    def of(self, rung: str) -> Cost:
        """A rung of the lattice."""
        return {
            "hessian": self.hessian,
            "ggn": self.ggn,
            "block_hessian": self.block_hessian,
            "block_ggn": self.block_ggn,
            "ekfac_hessian": self.ekfac_hessian,
            "ekfac": self.ekfac,
            "kfac": self.kfac,
        }[rung]()

    def hessian(self) -> Cost:
        """H."""
        if not self.plan.dense:
            return self._iterated()
        return self._dense([self.size], self._matrix(self.size**2, HESSIAN_GEMMS, self.size))

    def block_hessian(self) -> Cost:
        """⊕_l H_ll."""
        sizes = [block.size for block in self.problem.blocks]
        if not self.plan.dense:
            return self._iterated(of_blocks(len(sizes)))
        entries = sum(size**2 for size in sizes)
        return self._dense(sizes, self._matrix(entries, HESSIAN_GEMMS, OF_A_BLOCK * self.size))

    def ggn(self, columns: int | None = None) -> Cost:
        """G of a Fisher with so many columns; default C."""
        return self._gauss_newton([self.size], self._columns(columns))

    def block_ggn(self, columns: int | None = None) -> Cost:
        """⊕_l G_ll of the same."""
        return self._gauss_newton([b.size for b in self.problem.blocks], self._columns(columns))

    def kfac(self, columns: int | None = None) -> Cost:
        """⊕_l A_l ⊗ S_l: one pass for the factors."""
        return self.in_bases(self.factors(self._columns(columns)))

    def ekfac(self, columns: int | None = None) -> Cost:
        """The same, and one more pass for the eigenvalues."""
        count = self._columns(columns)
        return self.in_bases(self.factors(count) + self.along_bases(count))

    def ekfac_hessian(self) -> Cost:
        """Kronecker factors, and H along their eigenvectors."""
        swept = sum(b.d_out for b in self.layers)
        along = swept if self.problem.plain else OF_A_BLOCK * self.size
        return self.in_bases(self.factors(self._columns(None)) + Work(products=along))

    def factors(self, columns: int) -> Work:
        """A_l and S_l of every layer, and the blocks that stand in."""
        sides = sum(
            b.groups * (b.width**2 + columns * (b.d_out // b.groups) ** 2) for b in self.layers
        )
        exact = columns * sum(block.size**2 for block in self.stand_ins)
        n = self.examples
        return Work(n, n * columns, multiplications=n * (self._positions * sides + exact))

    def along_bases(self, columns: int) -> Work:
        """diag(Q_lᵀ G_ll Q_l), or diag(G), from every example's terms."""
        sides = sum(
            b.groups * (b.width**2 + columns * (b.d_out // b.groups) ** 2) + columns * b.size
            for b in self.layers
        )
        n = self.examples
        return Work(n, n * columns, multiplications=n * self._positions * sides)

    def in_bases(self, build: Work) -> Cost:
        """Layers in Kronecker eigenbases, made of factors."""
        cubes = sum(b.groups * (b.width**3 + (b.d_out // b.groups) ** 3) for b in self.layers)
        rotated = 2 * sum(b.size * (b.width + b.d_out // b.groups) for b in self.layers)
        exact = sum(block.size**3 for block in self.stand_ins)
        rotated += 2 * sum(block.size**2 for block in self.stand_ins)
        solve = Work(multiplications=rotated)
        return Cost(
            build,
            Work(cubes=cubes + exact),
            self.query + solve,
            Work(multiplications=rotated / 2 + self.examples * self.size),
            structured_bytes(self.problem),
        )

    def product(self, rung: str) -> tuple[Work, Work]:
        """What it takes to have H or G, and to multiply one column with it."""
        build = self.of(rung).build
        way = self.plan.way(rung)
        if way == "dense":
            return build, Work(multiplications=self.size**2)
        if way == "dual":
            rows = self.examples * self.problem.num_outputs
            return build, self._along_rows(rows)
        return Work(), Work(products=1)

    def held(self, rung: str) -> int:
        """Bytes of H or G as it is multiplied with, not decomposed."""
        way = self.plan.way(rung)
        if way == "dense":
            return 8 * self.size**2
        return self.of(rung).memory if way == "dual" else 0

    def _columns(self, columns: int | None) -> int:
        return self.problem.num_outputs if columns is None else columns

    def _matrix(self, entries: float, gemms: int, swept: float, columns: int | None = None) -> Work:
        """A matrix by matrix products over the layers' terms, or so many swept columns."""
        if not self.problem.plain:
            return Work(products=swept)
        passes = self.examples * self._columns(columns)
        return Work(self.examples, passes, multiplications=gemms * self.examples * entries)

    def _dense(self, sizes: list[int], build: Work) -> Cost:
        squares = sum(size**2 for size in sizes)
        return Cost(
            build,
            Work(cubes=sum(size**3 for size in sizes)),
            self.query + Work(multiplications=2 * squares),
            Work(multiplications=squares + self.examples * self.size),
            8 * (2 * squares + (EIGH_COPIES - 2) * max(sizes) ** 2),
        )

    def _gauss_newton(self, sizes: list[int], columns: int) -> Cost:
        rows = self.examples * columns
        way, entries = self.plan.gauss_newton(rows)[0], sum(size**2 for size in sizes)
        whole = len(sizes) == 1
        if way == "matrix-free":
            apart = not worth_sweeping(columns, self.problem.num_queries, len(sizes))
            return self._iterated(of_blocks(len(sizes)) if apart and not whole else 1.0)
        if way == "dual":
            build = Work(self.examples, rows, multiplications=rows**2 * self.size)
            along = self._along_rows(rows)
            sides = [min(rows, size) for size in sizes]
            return Cost(
                build,
                Work(cubes=sum(side**3 for side in sides)),
                self.query + along,
                Work(multiplications=sum(sides) * self.examples),
                dual_bytes(self.problem, rows, self.problem.device),
            )
        if self.problem.plain:
            return self._dense(sizes, self._matrix(entries, 1, 0, columns))
        build = Work(self.examples, rows, multiplications=rows * entries)
        return self._dense(sizes, build)

    def _along_rows(self, rows: int) -> Work:
        """R v and Rᵀ u, from kept rows or in a sweep."""
        if 8 * rows * self.size <= kept_bytes(self.problem.device):
            return Work(multiplications=2 * rows * self.size)
        return Work(products=1)

    def _iterated(self, of_a_product: float = 1.0) -> Cost:
        """In one Krylov space of all queries, which all λ share: what a query has in it."""
        queries = max(1, self.problem.num_queries)
        found = self.plan.dimensions(self.size, queries)
        each = found / queries
        passes = ORTHOGONALISED * found * self.size  # half of the basis on average, there and back
        passes += ORTHONORMAL * queries * self.size
        inside = found * found
        space = Work(
            products=each * of_a_product,
            multiplications=each * (passes + self.examples * self.size) + inside,
            cubes=DECOMPOSED * each * inside,
        )
        again = Work(multiplications=CHANGED * inside + found * self.examples)
        width = getattr(torch, self.plan.products).itemsize
        held = self.size * (width * found + 8 * 2 * queries)
        return replace(self.ekfac(), solve=self.query + space, again=again, memory=held)


def forward_operations(problem: Problem) -> float:
    """F: operations of the matrix products and convolutions in one example's forward pass.

    At least one multiply-add for each parameter.
    """
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        apply(problem.double_model(), take(double(problem.train[0]), slice(0, 1)))
    return float(max(counter.get_total_flops(), 2 * problem.num_parameters))


@dataclass(frozen=True)
class Rates:
    """What this machine, or the problem's device, does in a second, measured."""

    eigh: float
    """Seconds per n³ of a symmetric eigendecomposition."""
    product: float
    """Seconds per multiply-add of a float64 matrix product."""
    sweep: float
    """Seconds per example and column of a Hessian-vector product of this model."""
    exact_sweep: float
    """The same in float64, the precision of all that is not a matrix-free product."""

    def seconds(self, work: Work, examples: int) -> float:
        """Of a computation over so many training examples; a backward pass is half a product."""
        return (
            self.exact_sweep * work.backward / 2
            + self.sweep * work.products * examples
            + self.product * work.multiplications
            + self.eigh * work.cubes
        )

    @staticmethod
    def measure(problem: Problem, products: Precision = "float64") -> Rates:
        """A few seconds."""
        from decomposition.curvature.products import hessian_product

        device, generator = problem.device, torch.Generator().manual_seed(0)
        more = ON_CUDA if device.type == "cuda" else 1
        side, small = more * GEMM_SIDE, more * EIGH_SIDE
        square = torch.randn(side, side, generator=generator, dtype=torch.float64).to(device)
        symmetric = square[:small, :small] @ square[:small, :small].T

        def sweep(precision: Precision) -> float:
            examples, columns = SWEPT_EXAMPLES, SWEPT_COLUMNS
            while True:
                few = problem.of_examples(slice(0, min(examples, problem.num_examples)))
                v = torch.randn(
                    few.num_parameters, columns, generator=generator, dtype=torch.float64
                ).to(device)
                product = hessian_product(few, getattr(torch, precision))
                taken = _seconds(partial(product.matvec, v), device)
                whole = examples >= problem.num_examples
                if taken > SWEPT_SECONDS or (whole and columns >= SWEPT_MOST):
                    return taken / (columns * few.num_examples)
                examples, columns = 2 * examples, min(2 * columns, SWEPT_MOST)

        exact = sweep("float64")
        return Rates(
            _seconds(lambda: eigh(symmetric), device) / small**3,
            _seconds(lambda: matmul(square, square), device) / side**3,
            exact if products == "float64" else sweep(products),
            exact,
        )


def predicted_seconds(
    problem: Problem, plan: Plan, rates: Rates, dampings: int
) -> dict[str, float]:
    """Seconds of every rung by itself: built, decomposed, its queries solved at so many λ."""
    costs = Costs(problem, plan)
    work = {rung: costs.of(rung).at_once(problem.num_queries, dampings) for rung in plan.choices}
    return {rung: rates.seconds(one, problem.num_examples) for rung, one in work.items()}


def product_seconds(problem: Problem, plan: Plan, rates: Rates) -> dict[str, float]:
    """Seconds of one column multiplied with each rung in its form; by its factors: none."""
    sweep = rates.sweep * problem.num_examples
    times = {
        "dense": rates.product * problem.num_parameters**2,
        "dual": rates.exact_sweep
        * problem.num_examples,  # J v and Jᵀ u cost about what forward over reverse does
        "structured": 0.0,
        "matrix-free": sweep,
    }
    swept = plan.way("block_ggn") == "dual"
    apart = {"block_ggn": of_blocks(len(problem.blocks))} if swept else {}
    return {rung: times[plan.way(rung)] * apart.get(rung, 1.0) for rung in CHAIN}


def _seconds(work: Callable[[], object], device: torch.device) -> float:
    """The lesser of two, after one that is not timed: another program may have had the core."""
    work()
    taken = []
    for _ in range(2):
        synchronise(device)
        started = time.perf_counter()
        work()
        synchronise(device)
        taken.append(time.perf_counter() - started)
    return min(taken)
