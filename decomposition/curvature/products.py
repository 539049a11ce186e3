"""Products with H and G for any model: peak memory is linear in P, no matrix is ever formed.

With L(θ) = (1/N) Σ_n ℓ_n,

    H v = ∇_θ (∇_θ L · v)                  forward-over-reverse (Pearlmutter 1994,
                                           doi 10.1162/neco.1994.6.1.147)
    G v = (1/N) Σ_n J_nᵀ Λ_n (J_n v)       forward mode, then reverse (Schraudolph 2002,
                                           doi 10.1162/08997660260028683)

summed over batches of examples whose activations stay within a fixed number, and over chunks of
columns, each vectorised. ``torch.compile`` is not offered: on one core it makes the product of a
small MLP five times as fast after 5 to 50 s of compiling, but such models are dense; it fails on
the built-in CNN, and large models are bound by their matrix products (bench_matrix_free).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from decomposition.curvature.evaluation import Evaluation, check_columns
from decomposition.device import full_precision
from decomposition.errors import UnsupportedModelError
from decomposition.inputs import Inputs, take
from decomposition.problem import Problem

SYMMETRY = {torch.float64: 1e-8, torch.float32: 1e-3}
"""Largest |uᵀHv − vᵀHu|, relative to ‖u‖‖Hv‖."""
OnBatch = Callable[[Float[Tensor, "P k"], Inputs, Tensor], Float[Tensor, "P k"]]


class Product:
    """v (P, k) → C v for a symmetric C = (1/N) Σ_n C_n, with the number of columns so far.

    It has ``size`` and ``matvec``, as everything in ``decomposition.spectrum`` asks for.
    """

    def __init__(self, evaluation: Evaluation, problem: Problem, on_batch: OnBatch) -> None:
        """Keep the sum over examples of one batch as a function."""
        self.size, self.device = evaluation.size, problem.device
        self.count = 0
        """Columns multiplied so far."""
        self.notes: tuple[str, ...] = ()
        if evaluation.dtype == torch.float32:
            self.notes = ("products are computed in float32 (relative rounding about 1e-6)",)
        self._evaluation, self._problem, self._on_batch = evaluation, problem, on_batch

    @full_precision()
    def matvec(self, v: Float[Tensor, "P k"]) -> Float[Tensor, "P k"]:
        """C v in float64.

        Raises:
            ProblemError: not columns of length P.
            UnsupportedModelError: the model cannot be differentiated under torch.func.
            OutOfMemoryError: one column and one example do not fit.
        """
        check_columns(v, self.size)
        out = _summed(self._evaluation, self._on_batch, self._problem.rows("train"), v)
        self.count += v.shape[1]
        return out.div_(self._problem.num_examples)

    __call__ = matvec


def hessian_product(problem: Problem, dtype: torch.dtype = torch.float64) -> Product:
    """H v by forward-over-reverse differentiation.

    Raises:
        UnsupportedModelError: the model cannot be differentiated twice, or its second derivatives
            are not symmetric (a wrong derivative in a custom or fused operation).
        DecompositionError: a precision other than float64 and float32.
    """
    evaluation = Evaluation(problem, dtype)

    def on_batch(v: Tensor, x: Inputs, y: Tensor) -> Tensor:
        gradient = torch.func.grad(lambda p: evaluation.losses(p, x, y).sum())

        def column(direction: Tensor) -> Tensor:
            tangent = evaluation.tangent(direction)
            outputs = torch.func.jvp(gradient, (evaluation.chosen,), (tangent,))
            return evaluation.flat(outputs[1])

        return _over_columns(column, v)

    _check_symmetric(evaluation, problem, on_batch)
    return Product(evaluation, problem, on_batch)


def ggn_product(problem: Problem, dtype: torch.dtype = torch.float64) -> Product:
    """G v by a forward-mode sweep, Λ, and a reverse sweep.

    Raises:
        UnsupportedModelError: the model cannot be differentiated under torch.func.
        DecompositionError: a precision other than float64 and float32.
    """
    return _ggn_product(Evaluation(problem, dtype), problem)


def _ggn_product(evaluation: Evaluation, problem: Problem) -> Product:
    def on_batch(v: Tensor, x: Inputs, y: Tensor) -> Tensor:
        def forward(p):
            return evaluation.outputs(p, x)

        f, pull = torch.func.vjp(forward, evaluation.chosen)  # pyright: ignore[reportAssignmentType]
        curvature = evaluation.loss.hessian(f, y).to(f.dtype)

        def column(direction: Tensor) -> Tensor:
            tangent = evaluation.tangent(direction)
            moved = torch.func.jvp(forward, (evaluation.chosen,), (tangent,))[1]
            return evaluation.flat(pull((curvature @ moved[:, :, None])[:, :, 0])[0])

        return _over_columns(column, v)

    return Product(evaluation, problem, on_batch)


class BlockGGNProduct:
    """⊕_l G_ll v from a product with each block, whose sweeps pass through its own layers alone.

    Raises:
        UnsupportedModelError: the model cannot be differentiated under torch.func.
        DecompositionError: a precision other than float64 and float32.
    """

    def __init__(self, problem: Problem, dtype: torch.dtype = torch.float64) -> None:
        """One model for all blocks."""
        evaluation = Evaluation(problem, dtype)
        self._products = {
            (block.slice.start, block.slice.stop): _ggn_product(
                evaluation.restricted(block.slice), problem
            )
            for block in problem.blocks
        }
        self.size, self.device = problem.num_parameters, problem.device
        self.notes = next(iter(self._products.values())).notes

    @property
    def count(self) -> int:
        """Columns multiplied with blocks so far: as many as there are blocks for one of B."""
        return sum(product.count for product in self._products.values())

    def matvec(self, v: Float[Tensor, "P k"]) -> Float[Tensor, "P k"]:
        """The blocks' products one below the other.

        Raises:
            ProblemError: not columns of length P.
            OutOfMemoryError: one column and one example do not fit.
        """
        check_columns(v, self.size)
        out = torch.empty_like(v, dtype=torch.float64)
        for (start, stop), product in self._products.items():
            out[start:stop] = product.matvec(v[start:stop])
        return out

    __call__ = matvec


def _summed(
    evaluation: Evaluation, on_batch: OnBatch, data: tuple[Inputs, Tensor], v: Float[Tensor, "P k"]
) -> Float[Tensor, "P k"]:
    """Σ_n C_n v over these examples, in float64."""
    out = torch.empty_like(v, dtype=torch.float64)

    def some(columns: slice) -> None:
        chunk, part = v[:, columns].to(evaluation.dtype), out[:, columns].zero_()

        def batch(x: Inputs, y: Tensor, rows: slice) -> None:
            with evaluation.guarded():
                part.add_(on_batch(chunk, x, y))

        for _ in evaluation.over(data, chunk.shape[1], batch):
            pass

    for _ in evaluation.by_columns(v.shape[1], some):  # columns summed in part start again
        pass
    return out


def _over_columns(column: Callable[[Tensor], Tensor], v: Float[Tensor, "P k"]) -> Tensor:
    if v.shape[1] == 1:
        return column(v[:, 0].contiguous())[:, None]
    return torch.func.vmap(column)(v.T.contiguous()).T


def _check_symmetric(evaluation: Evaluation, problem: Problem, on_batch: OnBatch) -> None:
    """Two products on one batch of examples: u · H v and v · H u must agree."""
    generator = torch.Generator().manual_seed(0)
    v = torch.randn(problem.num_parameters, 2, generator=generator, dtype=torch.float64)
    v = v.to(evaluation.every[problem.trainable[0]])
    few, (x, y) = slice(0, evaluation.examples_at_once(2)), problem.rows("train")
    image = _summed(evaluation, on_batch, (take(x, few), y[few]), v).to(v)
    there, back = float(v[:, 0] @ image[:, 1]), float(v[:, 1] @ image[:, 0])
    scale = float(torch.linalg.vector_norm(v[:, 0]) * torch.linalg.vector_norm(image[:, 1]))
    if abs(there - back) > SYMMETRY[evaluation.dtype] * scale:
        raise UnsupportedModelError(
            f"the second derivatives of {type(evaluation.model).__name__} are not symmetric: "
            f"u·Hv = {there:.6g}, v·Hu = {back:.6g}, so the derivative of some operation is wrong "
            "(a custom autograd function, or a fused operation of PyTorch); write that operation "
            "out in elementary ones"
        )
