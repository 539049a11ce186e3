"""G, and its diagonal blocks, exactly through the dual Gram matrix when N·C is the smaller side.

With the NC × P matrix R of rows S_nᵀ J_n / √N, G = RᵀR, and K = R Rᵀ = U diag(σ) Uᵀ is NC × NC.
For any function f of G, and so for every damped inverse f(μ) = 1/d(μ, λ),

    f(G) v = f(0) v + Rᵀ U diag((f(σ) − f(0)) / σ) Uᵀ R v,

which for f = 1/(μ + λ) is Woodbury's identity. One eigendecomposition of K serves every λ.

The two terms cancel along the large eigenvalues, and digits are lost in proportion to σ_max/λ.
Largest relative residuals over five small problems: 2·10⁻¹¹ at λ = 10⁻⁴ σ_max, 5·10⁻⁹ at 10⁻⁶ and
2·10⁻⁶ at 10⁻⁸. Where eps · σ_max/λ exceeds ``REFINED`` one step of iterative refinement with the
exact product follows (10⁻¹¹ at 10⁻⁶ σ_max, 2·10⁻⁹ at 10⁻⁸), and what is left is checked: between
10⁻¹⁰ and 10⁻¹² σ_max solves are refused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from decomposition.curvature.block_diagonal import BlockDiagonal
from decomposition.curvature.dense import DenseCurvature
from decomposition.curvature.fisher import EXACT, Fisher
from decomposition.curvature.gram import Gram, block_ggn, block_grams, block_rows
from decomposition.curvature.graphs import Graphs
from decomposition.curvature.jacobian import KeptRows, Rows, SweptRows
from decomposition.curvature.operator import Curvature, NotAvailableError, Solutions
from decomposition.damping import (
    DampingError,
    NegativeCurvature,
    reciprocals,
)
from decomposition.device import chunk_bytes
from decomposition.errors import DecompositionError
from decomposition.linalg import matmul
from decomposition.memory import OutOfMemoryError, out_of_memory, shrinking
from decomposition.problem import Problem

REFINED = 1e-11
"""eps · (σ_max + λ)/λ from which a solve is refined."""
RESIDUAL = 1e-7
"""Largest relative residual that a refined solve may leave."""
KEPT_NUMBERS = 2**27
"""Numbers up to which the rows are kept (1 GB; on CUDA a part of what is free); beyond, and where
they do not fit, every product sweeps over the examples."""
SOLVE_NUMBERS, SOLVE_COPIES = 2**40, 6
"""Numbers in the right-hand sides solved at once: all of them on the CPU, unless they do not fit;
and how many such vectors are at work."""
BAR_DELAY = 5.0


class DualCurvature(Curvature):
    """RᵀR of rows R and the eigendecomposition of their Gram matrix."""

    definite = True

    def __init__(self, source: RowSource, gram: Gram, part: slice | None = None) -> None:
        """Keep the rows of these parameters, or of all, and their Gram matrix."""
        self._rows, self._gram = source.rows(part), gram
        self.size, self.device = self._rows.size, gram.values.device
        self._source, self._part = source, part

    @property
    def by_rows(self) -> RowForm:
        """Its rows, Gram matrix and inverse."""
        return RowForm(self._source, self._part, self._gram, self._inverse)

    def eigenvalues(self) -> Tensor:
        """Those of K, and zeros for the directions that no example moves."""
        values = self._gram.values
        zeros = values.new_zeros(max(0, self.size - len(values)))
        return torch.cat([zeros, values[max(0, len(values) - self.size) :]])

    def leading_vectors(self, k: int) -> Tensor:
        """Rᵀ u / √σ of the k leading eigenpairs of K.

        Raises:
            NotAvailableError: some of them lie where no example moves anything.
        """
        values, vectors = self._gram.values[-k:].flip(0), self._gram.vectors[:, -k:].flip(1)
        if len(values) < k or bool(self._null[-k:].any()):
            raise NotAvailableError(f"the rank is below {k}: the rest of the basis is not held")
        return self._rows.transposed(vectors / values.sqrt())

    def _matvec(self, v: Tensor) -> Tensor:
        return self._rows.transposed(self._rows.forward(v))

    @property
    def _null(self) -> Tensor:
        """Which eigenvalues of K are zero up to rounding."""
        values = self._gram.values
        return values <= len(values) * torch.finfo(values.dtype).eps * values[-1]

    def _solutions(
        self, v: Float[Tensor, "P k"], dampings: list[float], negative: NegativeCurvature
    ) -> Solutions:
        """At all λ together: R v is made once, and Rᵀ multiplies all of them in one sweep."""
        x = v.new_full((len(dampings), *v.shape), torch.nan)
        failures: dict[int, str] = {}

        def some(columns: slice) -> None:
            failures.update(self._together(v[:, columns], x[:, :, columns], dampings, negative))

        self._by_columns(some, v.shape[1], len(dampings))
        change = torch.zeros_like(x[:, 0])
        for i in failures:
            x[i], change[i] = torch.nan, torch.inf
        said = tuple(failures[i] for i in sorted(failures))
        return Solutions(x, change, said)

    def _solve(
        self, v: Float[Tensor, "P k"], damping: float, negative: NegativeCurvature
    ) -> Float[Tensor, "P k"]:
        out = torch.empty_like(v)

        def some(columns: slice) -> None:
            failures = self._together(v[:, columns], out[None, :, columns], [damping], negative)
            if failures:
                raise DampingError(failures[0])

        self._by_columns(some, v.shape[1], 1)
        return out

    def _by_columns(self, some: Callable[[slice], None], count: int, dampings: int) -> None:
        one = 8 * (SOLVE_COPIES + 2 * dampings) * self.size
        chunk = chunk_bytes(self.device, 8 * SOLVE_NUMBERS) // one
        for _ in shrinking(some, count, chunk):
            pass

    def _together(
        self,
        v: Float[Tensor, "P k"],
        out: Float[Tensor, "D P k"],
        dampings: list[float],
        negative: NegativeCurvature,
    ) -> dict[int, str]:
        """Solutions at each λ into ``out``; why there is none, by its place in ``dampings``."""
        sigma = torch.cat([self._gram.values.new_zeros(1), self._gram.values])
        inverses: dict[int, Inverse] = {}
        failures: dict[int, str] = {}
        exact: set[int] = set()
        for i, damping in enumerate(dampings):
            try:
                inverses[i] = self._inverse(damping, negative)
            except DampingError as error:
                failures[i] = str(error)
                continue
            shifted = bool(
                torch.isclose(negative.denominators(sigma, damping), sigma + damping).all()
            )
            if inverses[i].cancelled <= REFINED or not shifted:
                exact.add(i)
        found = self._applied(list(inverses.values()), v)
        for (i, inverse), x in zip(inverses.items(), found, strict=True):
            out[i] = x
            if i in exact:
                continue
            damping = dampings[i]
            out[i] += self._applied([inverse], v - self._matvec(x) - damping * x)[0]
            rest = v - self._matvec(out[i]) - damping * out[i]
            norms = torch.linalg.vector_norm(v, dim=0).clamp_min(torch.finfo(v.dtype).tiny)
            worst = float((torch.linalg.vector_norm(rest, dim=0) / norms).max())
            if not worst <= RESIDUAL:
                failures[i] = (
                    f"damping={damping:g} is too small for the dual solve: the largest eigenvalue "
                    f"is {float(sigma[-1]):.3g}, and a relative residual of {worst:.3g} is left; "
                    "raise it"
                )
        return failures

    def _inverse(self, damping: float, negative: NegativeCurvature) -> Inverse:
        """f = 1/d(·, λ).

        Raises:
            DampingError: a denominator vanishes.
        """
        values = self._gram.values
        sigma = torch.cat([values.new_zeros(1), values])
        f = reciprocals(negative.denominators(sigma, damping), sigma, damping)
        between = torch.where(self._null, 0.0, (f[1:] - f[0]) / values.where(~self._null, 1.0))
        outside = float(f[0])
        lost = torch.finfo(values.dtype).eps * float(sigma[-1] + damping) * outside
        return Inverse(outside, between, lost)

    def _applied(
        self, inverses: list[Inverse], v: Float[Tensor, "P k"]
    ) -> Sequence[Float[Tensor, "P k"]]:
        """f(G) v for every f."""
        if not inverses:
            return []
        q = self._gram.vectors
        along = matmul(q.T, self._rows.forward(v))
        inner = [f.between[:, None] * along for f in inverses]
        images = self._rows.transposed(matmul(q, torch.cat(inner, 1))).split(v.shape[1], 1)
        return [f.outside * v + image for f, image in zip(inverses, images, strict=True)]


@dataclass(frozen=True)
class Inverse:
    """A function f of G, for which f(G) v = f(0) v + Rᵀ U diag((f(σ) − f(0)) / σ) Uᵀ R v."""

    outside: float
    """f(0)."""
    between: Float[Tensor, " NC"]
    """(f(σ) − f(0)) / σ, 0 where σ is."""
    cancelled: float
    """eps · (σ_max + λ) f(0): the relative rounding to which the two terms cancel."""


@dataclass(frozen=True)
class RowForm:
    """What a curvature RᵀR is made of."""

    source: RowSource
    part: slice | None
    """The parameters that R is of; None: all."""
    gram: Gram
    """Of R."""
    inverse: Callable[[float, NegativeCurvature], Inverse]
    """λ and policy → f; raises DampingError where a denominator vanishes."""


class RowSource:
    """R of any Fisher, N·K rows, as a matrix where it is small enough and fits, else by passes."""

    def __init__(self, problem: Problem, fisher: Fisher = EXACT) -> None:
        """Make the rows once for all blocks."""
        self.problem, self.fisher = problem, fisher
        self.count = problem.num_examples * fisher.rows(problem.num_outputs)
        self._kept = _kept(problem, fisher)

    @cached_property
    def _graphs(self) -> Graphs:
        return Graphs(self.problem, fisher=None if self.fisher == EXACT else self.fisher)

    def rows(self, part: slice | None = None) -> Rows:
        """R, or its columns of these parameters."""
        if self._kept is None:
            return SweptRows(self._graphs, part)
        return KeptRows(self._kept if part is None else self._kept[:, part])


def dual_rungs(
    problem: Problem,
    progress: bool = False,
    fisher: Fisher = EXACT,
    source: RowSource | None = None,
) -> tuple[DualCurvature, BlockDiagonal]:
    """G and ⊕_l G_ll, the Gram matrices made block by block.

    Blocks with fewer parameters than N·C are held as their own matrices.

    Args:
        problem: at its model's present parameters.
        progress: show a bar over the blocks.
        fisher: whose R Rᵀ takes the place of Λ; it has N·K rows.
        source: of these rows, if it is there.

    Raises:
        DecompositionError: N·C exceeds P, so that G itself is the smaller matrix.
    """
    count = problem.num_examples * fisher.rows(problem.num_outputs)
    if count > problem.num_parameters:
        raise DecompositionError(
            f"the dual Gram matrix has side N·C = {count:,}, more than P = "
            f"{problem.num_parameters:,}: use the GGN itself"
        )
    source = source or RowSource(problem, fisher)
    total = torch.zeros(count, count, dtype=torch.float64, device=problem.device)
    blocks: dict[str, Curvature] = {}
    with tqdm(
        block_grams(problem, fisher=fisher),
        desc="dual Gram matrices",
        total=len(problem.blocks),
        unit="block",
        delay=BAR_DELAY,
        disable=None if progress else True,
    ) as bar:
        for block, gram in bar:
            total += gram
            if block.size <= count:
                blocks[block.name] = _definite(block_ggn(problem, block, fisher))
            else:
                blocks[block.name] = DualCurvature(source, Gram.of(gram), block.slice)
    return DualCurvature(source, Gram.of(total)), BlockDiagonal(blocks)


def dual_parts(
    source: RowSource, parts: Mapping[str, Mapping[str, slice]]
) -> dict[str, dict[str, Curvature]]:
    """The diagonal blocks of G that belong to parts of its layers, such as weights and biases.

    Args:
        source: R.
        parts: layer → part → its place within the layer.
    """
    found: dict[str, dict[str, Curvature]] = {}
    for block in source.problem.blocks:
        rows = block_rows(source.problem, block, source.fisher)
        for name, part in parts[block.name].items():
            mine = rows[:, part]
            place = slice(block.start + part.start, block.start + part.stop)
            if mine.shape[1] <= source.count:
                curvature: Curvature = _definite(matmul(mine.T, mine))
            else:
                curvature = DualCurvature(source, Gram.of(matmul(mine, mine.T)), place)
            found.setdefault(block.name, {})[name] = curvature
    return found


def _definite(matrix: Float[Tensor, "n n"]) -> DenseCurvature:
    """RᵀR of a block with fewer parameters than rows."""
    found = DenseCurvature(matrix)
    found.definite = True
    return found


def _kept(problem: Problem, fisher: Fisher) -> Float[Tensor, "NK P"] | None:
    """All rows, if they are few enough and fit."""
    count = problem.num_examples * fisher.rows(problem.num_outputs)
    if 8 * count * problem.num_parameters > kept_bytes(problem.device):
        return None
    shape = (count, problem.num_parameters)
    try:
        kept = torch.empty(shape, dtype=torch.float64, device=problem.device)
        for block in problem.blocks:
            kept[:, block.slice] = block_rows(problem, block, fisher)
    except (MemoryError, RuntimeError, OutOfMemoryError) as error:
        if not out_of_memory(error):
            raise
        return None
    return kept


def kept_bytes(device: torch.device) -> int:
    """Size up to which the rows are kept there."""
    return chunk_bytes(device, 8 * KEPT_NUMBERS)
