"""Products with H, G and their diagonal blocks for any model: no matrix is ever formed.

With L(θ) = (1/N) Σ_n ℓ_n,

    H v = ∇_θ (∇_θ L · v)
    G v = (1/N) Σ_n J_nᵀ Λ_n (J_n v)       (Schraudolph 2002, doi 10.1162/08997660260028683)

by passes through the graph of a batch of examples (``graphs``); memory is that of the graph and
linear in P. Blocks of G have a shorter way (``block_products``). ``torch.compile`` is not offered:
such products of large models are bound by their matrix products already, and small models are
dense.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from decomposition.curvature.fisher import EXACT, Fisher
from decomposition.curvature.graphs import Graph, Graphs, check_columns
from decomposition.device import full_precision
from decomposition.errors import UnsupportedModelError
from decomposition.memory import OutOfMemoryError, out_of_memory, shrinking
from decomposition.problem import Problem

SYMMETRY = {torch.float64: 1e-8, torch.float32: 1e-3}
"""Largest |uᵀHv − vᵀHu|, relative to ‖u‖‖Hv‖."""
CHECKED_NUMBERS = 2**22
"""Numbers in the graph of the examples on which symmetry is tried."""
MADE, MADE_NUMBERS = 1024, 2**25
"""Largest side of a block that is made as a matrix, and numbers in those of H: 256 MB."""
OnBatch = Callable[[Graph, Float[Tensor, "k P"]], Float[Tensor, "k P"]]


class Product:
    """v (P, k) → C v for a symmetric C = (1/N) Σ_n C_n, with the number of columns so far.

    It has ``size`` and ``matvec``, as everything in ``decomposition.spectrum`` asks for.

    Args:
        graphs: of the problem.
        on_batch: (graph, rows (k, P)) → Σ_n C_n v of the examples of one batch.
        size: side of C; default P.
    """

    def __init__(self, graphs: Graphs, on_batch: OnBatch, size: int | None = None) -> None:
        """Nothing is computed yet."""
        self.size, self.device = size or graphs.size, graphs.problem.device
        self.count = 0
        """Columns multiplied so far."""
        self.notes: tuple[str, ...] = ()
        if graphs.dtype == torch.float32:
            self.notes = ("products are computed in float32 (relative rounding about 1e-6)",)
        self._graphs, self._on_batch = graphs, on_batch

    @full_precision()
    def matvec(self, v: Float[Tensor, "P k"]) -> Float[Tensor, "P k"]:
        """C v in float64.

        Raises:
            ProblemError: not columns of length P.
            UnsupportedModelError: the model cannot be differentiated.
            OutOfMemoryError: one column and one example do not fit.
        """
        check_columns(v, self.size)
        graphs, out = self._graphs, torch.empty_like(v, dtype=torch.float64)

        def some(columns: slice) -> None:
            along = v[:, columns].T.to(graphs.dtype).contiguous()
            total = torch.zeros_like(along, dtype=torch.float64)

            def batch(graph: Graph, rows: slice) -> None:
                total.add_(self._on_batch(graph, along))

            for _ in graphs.over(batch):
                pass
            out[:, columns] = total.T

        for _ in graphs.by_columns(v.shape[1], some, self.size):
            pass
        self.count += v.shape[1]
        return out.div_(graphs.problem.num_examples)

    def __call__(self, v: Float[Tensor, "P k"]) -> Float[Tensor, "P k"]:
        """``matvec``."""
        return self.matvec(v)


def hessian_product(
    problem: Problem, dtype: torch.dtype = torch.float64, part: slice | None = None
) -> Product:
    """H v, or the product with the diagonal block of H of some parameters.

    Args:
        problem: at its model's present parameters.
        dtype: precision of the products.
        part: these parameters: whole tensors; default all of them.

    Raises:
        UnsupportedModelError: the model cannot be differentiated twice, or its second derivatives
            are not symmetric (a wrong derivative in a custom or fused operation).
        DecompositionError: a precision other than float64 and float32, or a part that cuts
            through a tensor.
    """
    graphs = Graphs(problem, dtype)
    _check_symmetric(graphs)
    return Product(graphs, lambda graph, v: graph.hessian(v, part), _size(graphs, part))


def ggn_product(
    problem: Problem,
    dtype: torch.dtype = torch.float64,
    part: slice | None = None,
    fisher: Fisher = EXACT,
) -> Product:
    """G v by a forward pass, Λ, and a reverse pass, or the product with a diagonal block of G.

    Args:
        problem: at its model's present parameters.
        dtype: precision of the products.
        part: these parameters: whole tensors; default all of them.
        fisher: whose R Rᵀ takes the place of Λ.

    Raises:
        UnsupportedModelError: the model cannot be differentiated.
        DecompositionError: a precision other than float64 and float32, or a part that cuts
            through a tensor.
    """
    graphs = Graphs(problem, dtype, None if fisher == EXACT else fisher)
    return Product(graphs, lambda graph, v: graph.ggn(v, part), _size(graphs, part))


def block_hessian_product(
    problem: Problem, dtype: torch.dtype = torch.float64
) -> BlockHessianProduct:
    """⊕_l H_ll v, by passes for every block until it is made (``BlockHessianProduct``).

    Raises:
        UnsupportedModelError: as for H.
        DecompositionError: a precision other than float64 and float32.
    """
    graphs = Graphs(problem, dtype)
    _check_symmetric(graphs)
    return BlockHessianProduct(graphs, [block.slice for block in problem.blocks])


class BlockHessianProduct(Product):
    """⊕_l H_ll v by passes for a block, until it costs no more to make it.

    A block of at most MADE parameters is a matrix once it is multiplied with as many columns, in
    all, as it has itself, which is at most about twice the work that would have been enough. The
    smallest come first, until their matrices have MADE_NUMBERS.
    """

    def __init__(self, graphs: Graphs, parts: Sequence[slice]) -> None:
        """Nothing is computed yet."""
        super().__init__(graphs, by_blocks(graphs, Graph.hessian, parts))
        self._parts = [(part.start, part.stop) for part in parts]
        small = sorted(self._parts, key=lambda part: part[1] - part[0])
        self._small = small[: len(to_be_made([stop - start for start, stop in small]))]
        self._made: dict[tuple[int, int], Tensor] = {}

    def matvec(self, v: Float[Tensor, "P k"]) -> Float[Tensor, "P k"]:
        """⊕_l H_ll v in float64; raises as ``Product.matvec``."""
        check_columns(v, self.size)
        self._make(self.count + v.shape[1])
        left = [slice(*part) for part in self._parts if part not in self._made]
        graphs, out = self._graphs, torch.zeros_like(v, dtype=torch.float64)
        if left:
            out = Product(graphs, by_blocks(graphs, Graph.hessian, left)).matvec(v)
        for part, matrix in self._made.items():
            out[slice(*part)] = matrix @ v[slice(*part)].double()
        self.count += v.shape[1]
        return out

    def _make(self, columns: int) -> None:
        """The blocks that have been worth it by now; none any more once memory has run out."""
        for start, stop in self._small:
            if stop - start > columns:
                return
            if (start, stop) not in self._made:
                try:
                    self._made[start, stop] = self._block(slice(start, stop))
                except (MemoryError, RuntimeError, OutOfMemoryError) as error:
                    if not out_of_memory(error):
                        raise
                    self._small = list(self._made)
                    return

    def _block(self, part: slice) -> Float[Tensor, "size size"]:
        size = part.stop - part.start
        passes = Product(self._graphs, lambda graph, v: graph.hessian(v, part), size)
        return passes.matvec(torch.eye(size, dtype=torch.float64, device=self.device))


def to_be_made(sizes: Iterable[int]) -> list[int]:
    """The sizes of the blocks of H that may become matrices, of those that there are, ascending."""
    small = [size for size in sorted(sizes) if size <= MADE]
    numbers = itertools.accumulate(size**2 for size in small)
    return [size for size, sum_ in zip(small, numbers, strict=True) if sum_ <= MADE_NUMBERS]


def by_blocks(
    graphs: Graphs, on_block: Callable[[Graph, Tensor, slice], Tensor], parts: Sequence[slice]
) -> OnBatch:
    """Passes for one block after the other, which end where its own layer is reached.

    Raises:
        DecompositionError: a part cuts through a tensor.
    """
    for part in parts:
        graphs.tensors(part)

    def on_batch(graph: Graph, v: Tensor) -> Tensor:
        out = torch.zeros_like(v)
        for part in parts:
            out[:, part] = on_block(graph, v[:, part], part)
        return out

    return on_batch


def _size(graphs: Graphs, part: slice | None) -> int:
    graphs.tensors(part)
    return graphs.size if part is None else part.stop - part.start


def _check_symmetric(graphs: Graphs) -> None:
    """Two products on a few examples: u · H v and v · H u must agree."""
    generator = torch.Generator().manual_seed(0)
    v = torch.randn(2, graphs.size, generator=generator, dtype=torch.float64)
    v = v.to(graphs.problem.device, graphs.dtype)

    def of(rows: slice) -> Tensor:
        return graphs.of(rows).hessian(v)

    few = min(graphs.problem.num_examples, max(1, CHECKED_NUMBERS // graphs.numbers))
    image = torch.stack(list(shrinking(of, few, graphs.examples_at_once()))).double().sum(0)
    there, back = float(v[0].double() @ image[1]), float(v[1].double() @ image[0])
    scale = float(torch.linalg.vector_norm(v[0]) * torch.linalg.vector_norm(image[1]))
    if abs(there - back) > SYMMETRY[graphs.dtype] * scale:
        raise UnsupportedModelError(
            f"the second derivatives of {type(graphs.model).__name__} are not symmetric: "
            f"u·Hv = {there:.6g}, v·Hu = {back:.6g}, so the derivative of some operation is wrong "
            "(a custom autograd function, or a fused operation of PyTorch); write that operation "
            "out in elementary ones"
        )
