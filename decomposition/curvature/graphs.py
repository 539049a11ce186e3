"""Products with the derivatives of any model: one pass through a graph that is made once.

Of a batch of examples the forward pass and the first derivative are made with their graph, which
no vector changes; it is differentiated again along each vector v:

    H v  = ∂⟨∇_θ L, v⟩/∂θ           reverse over reverse (Pearlmutter 1994,
                                    doi 10.1162/neco.1994.6.1.147)
    J v  = ∂⟨Jᵀu, v⟩/∂u             forward mode as two reverse ones: Jᵀu is linear in u
    Jᵀ u = ∂⟨f, u⟩/∂θ               reverse mode

Where a layer is a linear map of its input, each of these is matrix products of all examples at
once: for the first layer of a network, which has most of the parameters, one with its inputs and
one with its gradients, 4 N P operations a column in all. Batches are as large as memory allows,
and the graph is kept for the next product where all examples are one batch: a Krylov method then
pays half of what plain double backward costs. Where a column is little work, several go through
the graph at once.

Shapes: directions in parameter space are rows (k, P), contiguous, in the order of
``problem.trainable``, and can be cut into one tensor (k, …) for every parameter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Protocol, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from decomposition.curvature.convolutions import with_patches
from decomposition.curvature.passes import backward_passes, differentiable, joined
from decomposition.device import chunk_bytes
from decomposition.errors import DecompositionError, ProblemError
from decomposition.inputs import Inputs, apply_with, each, rows_in, take, to
from decomposition.losses import Loss
from decomposition.memory import shrinking
from decomposition.problem import Problem

Result = TypeVar("Result")

GRAPH_BYTES = 2**29
"""Memory of a batch's graph, and of one pass through it, on the CPU."""
COLUMN_NUMBERS = 2**24
"""Numbers in the columns that go through one graph before the next batch's is made."""
COLUMN_COPIES = 4
"""Vectors (P,) at work for each of them: direction, image, and their tensors by parameter."""
TOGETHER, TOGETHER_ON_CUDA = 2**20, 2**30
"""Numbers up to which several columns go through a graph at once, which spares calls: beyond, a
column alone keeps the processor busy, in products as large as those of several."""


class OutputRoots(Protocol):
    """What is needed of a Fisher (``decomposition.curvature.fisher``)."""

    def root(self, loss: Loss, f: Tensor, y: Tensor, first: int) -> Tensor:
        """R (n, C, K) of the examples from ``first`` on."""
        ...

    def rows(self, outputs: int) -> int:
        """K."""
        ...


class Graph:
    """Outputs f and loss of one batch at the present parameters, and what is derived from them."""

    def __init__(self, of: Graphs, x: Inputs, y: Tensor, first: int = 0) -> None:
        """One forward pass of the examples from ``first`` on."""
        self._of, self._y, self._first = of, y, first
        self._leaves = [of.every[name].detach().requires_grad_() for name in of.names]
        with torch.enable_grad(), of.guarded():
            leaves = dict(zip(of.names, self._leaves, strict=True))
            self._outputs = apply_with(of.model, {**of.every, **leaves}, x)
        self.outputs: Float[Tensor, "n C"] = self._outputs.detach()

    @cached_property
    def curvature(self) -> Float[Tensor, "n C C"]:
        """Λ, or R Rᵀ of another Fisher."""
        if self._of.fisher is not None:
            return self.root @ self.root.mT
        return self._of.loss.hessian(self.outputs, self._y).to(self.outputs.dtype)

    @cached_property
    def root(self) -> Float[Tensor, "n C K"]:
        """R with R Rᵀ = Λ, or that of another Fisher."""
        if self._of.fisher is None:
            root = self._of.loss.hessian_sqrt(self.outputs, self._y)
        else:
            root = self._of.fisher.root(self._of.loss, self.outputs, self._y, self._first)
        return root.to(self.outputs.dtype)

    @cached_property
    def output_gradient(self) -> Float[Tensor, "n C"]:
        """∇_f ℓ."""
        f = self.outputs.clone().requires_grad_()
        with torch.enable_grad():
            return torch.autograd.grad(self._of.loss.per_example(f, self._y).sum(), f)[0]

    def hessian(self, v: Float[Tensor, "k P"], part: slice | None = None) -> Float[Tensor, "k P"]:
        """Σ_n ∇²ℓ_n v, or the diagonal block of it that belongs to the parameters ``part``."""
        chosen = self._of.tensors(part)
        with self._of.guarded():
            gradient = [self._gradient[i] for i in chosen]
            return self._images(gradient, self._of.cut(v, chosen), chosen)

    def forward(self, v: Float[Tensor, "k P"], part: slice | None = None) -> Float[Tensor, "k n C"]:
        """J v, for v in the parameters ``part`` alone where these are given."""
        chosen = self._of.tensors(part)
        with self._of.guarded():
            u, pulled = self._pulled
            rows = [pulled[i] for i in chosen]
            return self._passes(rows, self._of.cut(v, chosen), [u])[0]

    def ggn(self, v: Float[Tensor, "k P"], part: slice | None = None) -> Float[Tensor, "k P"]:
        """Σ_n J_nᵀ Λ_n J_n v, or the diagonal block of it that belongs to ``part``."""
        moved = self.forward(v, part)
        return self.transposed((self.curvature @ moved[..., None])[..., 0], part)

    def transposed(
        self, u: Float[Tensor, "k n C"], part: slice | None = None
    ) -> Float[Tensor, "k P"]:
        """Jᵀ u, or those rows of it that belong to the parameters ``part``."""
        with self._of.guarded():
            return self._images([self._outputs], [u], self._of.tensors(part))

    @cached_property
    def _gradient(self) -> list[Tensor]:
        """∇_θ Σ_n ℓ_n as a function of θ."""
        with torch.enable_grad():
            total = self._of.loss.per_example(self._outputs, self._y).sum()
            return _gradients(total, self._leaves, None)

    @cached_property
    def _pulled(self) -> tuple[Tensor, list[Tensor]]:
        """u = 0 and Jᵀ u as a function of it."""
        u = torch.zeros_like(self.outputs, requires_grad=True)
        with torch.enable_grad():
            return u, _gradients(self._outputs, self._leaves, u)

    def _images(
        self, outputs: list[Tensor], vectors: list[Tensor], chosen: range
    ) -> Float[Tensor, "k P"]:
        found = self._passes(outputs, vectors, [self._leaves[i] for i in chosen])
        return torch.cat([part.reshape(len(part), -1) for part in found], 1)

    def _passes(
        self, outputs: list[Tensor], vectors: list[Tensor], inputs: list[Tensor]
    ) -> list[Float[Tensor, "k ..."]]:
        """Σ ∂⟨outputs, vectors⟩/∂inputs for each of k vectors."""
        together, count = self._of.together(len(self.outputs)), len(vectors[0])
        parts = [
            backward_passes(outputs, inputs, [v[first : first + together] for v in vectors])
            for first in range(0, max(count, 1), together)
        ]
        return [joined(pieces) for pieces in zip(*parts, strict=True)]


def _gradients(f: Tensor, leaves: list[Tensor], u: Tensor | None) -> list[Tensor]:
    """With their graph; zeros for parameters that f does not depend on."""
    return list(
        torch.autograd.grad(
            f, leaves, u, create_graph=True, allow_unused=True, materialize_grads=True
        )
    )


class Graphs:
    """The graphs of all batches of a problem's examples, in one precision.

    Args:
        problem: at its model's present parameters.
        dtype: float64 or float32.
        fisher: whose R Rᵀ takes the place of Λ; None: Λ itself.

    Raises:
        DecompositionError: a precision other than float64 and float32.
    """

    def __init__(
        self,
        problem: Problem,
        dtype: torch.dtype = torch.float64,
        fisher: OutputRoots | None = None,
    ) -> None:
        """Prepare a copy of the model in evaluation mode."""
        if dtype not in (torch.float64, torch.float32):
            raise DecompositionError(f"curvature products are float64 or float32, not {dtype}")
        self.dtype = dtype
        self.problem, self.fisher = problem, fisher
        self.columns = problem.num_outputs if fisher is None else fisher.rows(problem.num_outputs)
        """K: columns of R of an example."""
        self.model: nn.Module = problem.double_model().to(dtype)
        self.loss: Loss = problem.loss_function
        few, y = problem.rows("train")
        few, y = to(take(few, slice(0, 2)), dtype), y[:2]
        if dtype == torch.float64:
            with torch.no_grad():
                with_patches(self.model, few)
        state = {**dict(self.model.named_parameters()), **dict(self.model.named_buffers())}
        self.every = {name: value.detach() for name, value in state.items()}
        self.names = problem.trainable
        self._shapes = [self.every[name].shape for name in self.names]
        self._starts = [0]
        for shape in self._shapes:
            self._starts.append(self._starts[-1] + shape.numel())
        self.size = problem.num_parameters
        self._device, self._bytes = problem.device, torch.finfo(dtype).bits // 8
        self._columns = self._examples = 2**63  # until memory has run out
        self._together = TOGETHER_ON_CUDA if problem.device.type == "cuda" else TOGETHER
        self._kept: Graph | None = None
        self.numbers = self._numbers_per_example(few, y)
        """What the graph of one example and a pass through it take."""

    def tensors(self, part: slice | None) -> range:
        """The parameter tensors in a part of the parameter vector; None: all of them.

        Raises:
            DecompositionError: ``part`` cuts through a tensor, or is none of them.
        """
        if part is None:
            return range(len(self.names))
        try:
            found = range(self._starts.index(part.start), self._starts.index(part.stop))
        except ValueError:
            found = range(0)
        if not found:
            raise DecompositionError(
                f"parameters {part.start} to {part.stop - 1} of {self.size} are no whole tensors"
            )
        return found

    def cut(self, v: Float[Tensor, "k P"], chosen: range) -> list[Float[Tensor, "k ..."]]:
        """Directions in the parameters of some tensors as one tensor for each of them."""
        shapes = [self._shapes[i] for i in chosen]
        pieces = v.split([shape.numel() for shape in shapes], 1)
        return [p.view(len(v), *shape) for p, shape in zip(pieces, shapes, strict=True)]

    def over(self, work: Callable[[Graph, slice], Result]) -> Iterator[Result]:
        """``work(graph, rows)`` of all training examples, in batches that fit.

        ``work`` must leave nothing half done: a batch that does not fit is made again with fewer
        examples.

        Raises:
            OutOfMemoryError: not even one example fits.
            UnsupportedModelError: the model cannot be differentiated.
        """

        n = self.problem.num_examples

        def batch(rows: slice) -> Result:
            if rows != slice(0, n):
                return work(self.of(rows), rows)
            if self._kept is None:
                self._kept = self.of(rows)
            return work(self._kept, rows)

        def shrunk(examples: int) -> None:
            self._examples, self._kept = min(self._examples, examples), None
            self._together = min(self._together, examples * self.numbers)

        return shrinking(batch, n, self.examples_at_once(), shrunk=shrunk)

    def of(self, rows: slice) -> Graph:
        """The graph of some training examples."""
        x, y = self.problem.rows("train")
        targets = y[rows].to(self.dtype) if y.is_floating_point() else y[rows]
        return Graph(self, to(take(x, rows), self.dtype), targets, rows.start)

    def examples_at_once(self) -> int:
        """How many examples a batch has, as far as is known."""
        fitting = chunk_bytes(self._device, GRAPH_BYTES) // (self._bytes * self.numbers)
        return max(1, min(fitting, self._examples))

    def together(self, examples: int) -> int:
        """How many columns go through the graph of so many examples at once."""
        return max(1, self._together // (examples * self.numbers))

    def by_columns(
        self, count: int, work: Callable[[slice], Result], size: int | None = None
    ) -> Iterator[Result]:
        """``work`` of some of ``count`` columns at a time, of fewer if they do not fit.

        Args:
            count: columns.
            work: of some of them.
            size: of a column; default P.

        Raises:
            OutOfMemoryError: not even one column and one example fit.
        """

        def shrunk(columns: int) -> None:
            self._columns = min(self._columns, columns)

        at_once = chunk_bytes(self._device, self._bytes * COLUMN_COPIES * COLUMN_NUMBERS)
        at_once //= COLUMN_COPIES * self._bytes * (size or self.size)
        return shrinking(work, count, min(at_once, self._columns), shrunk=shrunk)

    def guarded(self):
        """Failures of autograd as UnsupportedModelError, inside this context."""
        return differentiable(self.model)

    def _numbers_per_example(self, few: Inputs, y: Tensor) -> int:
        """Numbers that autograd keeps for the second derivative of one example, and Λ.

        Counted, not guessed: what two examples keep beyond what one keeps. A pass makes about as
        many again.
        """
        own = {value.untyped_storage().data_ptr() for value in self.every.values()}

        def kept(rows: int) -> int:
            storages: dict[int, int] = {}
            held = []  # else a freed storage's address would be met again

            def pack(t: Tensor) -> Tensor:
                if t.untyped_storage().data_ptr() not in own:
                    held.append(t)
                    storages[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
                return t

            x = each(few, lambda part: part[:rows].clone())
            targets = y[:rows].to(self.dtype) if y.is_floating_point() else y[:rows]
            with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
                graph = Graph(self, x, targets)
                with self.guarded():
                    _ = graph._gradient
            return sum(storages.values())

        numbers = (kept(1) if rows_in(few) < 2 else kept(2) - kept(1)) // self._bytes
        return max(1, 2 * numbers) + 2 * self.problem.num_outputs**2


def check_columns(v: Tensor, size: int) -> None:
    """Raise ProblemError unless ``v`` holds columns (P, k)."""
    if v.ndim != 2 or len(v) != size:
        raise ProblemError(f"directions are columns ({size}, k), got {tuple(v.shape)}")
