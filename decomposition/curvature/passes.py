"""Backward passes through one graph for several vectors: some together where PyTorch can."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor, nn

from decomposition.errors import UnsupportedModelError
from decomposition.inputs import about_transformers
from decomposition.memory import out_of_memory


@contextmanager
def differentiable(model: nn.Module) -> Iterator[None]:
    """Say what a failure inside autograd means: some operation of the model is not for it."""
    try:
        yield
    except (RuntimeError, NotImplementedError) as error:
        if out_of_memory(error):
            raise
        raise UnsupportedModelError(
            f"{type(model).__name__} cannot be differentiated twice under torch.func (data-"
            f"dependent control flow, .item(), or an operation without a derivative?): "
            f"{(str(error).splitlines() or [type(error).__name__])[0]}{about_transformers(model)}"
        ) from error


def backward_passes(
    functions: Sequence[Tensor], inputs: Sequence[Tensor], vectors: Sequence[Tensor]
) -> list[Float[Tensor, "k ..."]]:
    """Σ ∂⟨functions, vectors⟩/∂inputs for each of k vectors.

    Args:
        functions: with their graph, which is kept; what has none is a constant.
        inputs: of that graph.
        vectors: for each function k of its own shape.
    """
    moving = [(f, v) for f, v in zip(functions, vectors, strict=True) if f.requires_grad]
    count = len(vectors[0])
    if not moving or not count:
        return [one.new_zeros(count, *one.shape) for one in inputs]

    def grad(along: list[Tensor], batched: bool) -> list[Tensor]:
        found = torch.autograd.grad(
            [f for f, _ in moving],
            inputs,
            along,
            retain_graph=True,
            allow_unused=True,
            is_grads_batched=batched,
        )
        lead = along[0].shape[:1] if batched else ()
        return [
            one.new_zeros(*lead, *one.shape) if part is None else part
            for one, part in zip(inputs, found, strict=True)
        ]

    if count == 1:
        return [part[None] for part in grad([v[0] for _, v in moving], False)]
    try:
        return grad([v for _, v in moving], True)
    except RuntimeError as error:  # an operation without a rule for several at once
        if out_of_memory(error):
            raise
    columns = [grad([v[i] for _, v in moving], False) for i in range(count)]
    return [torch.stack(parts) for parts in zip(*columns, strict=True)]


def joined(parts: Sequence[Tensor], dim: int = 0) -> Tensor:
    """All of them, one after the other; a single one is not copied."""
    return parts[0] if len(parts) == 1 else torch.cat(list(parts), dim)
