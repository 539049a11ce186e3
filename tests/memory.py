"""Little memory, simulated: a new tensor of more than so many numbers cannot be allocated.

Holds for the thread that enters, for PyTorch's own operations (on the CPU those with a name in
``decomposition.linalg`` are NumPy's) and for tensors that are new: what is written into another, or
is a view of one, takes no memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class _Limit(TorchDispatchMode):
    def __init__(self, numbers: int) -> None:
        super().__init__()
        self.numbers = numbers
        self.refused: list[int] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        found = func(*args, **kwargs)
        known = {_place(leaf) for leaf in tree_leaves((args, kwargs)) if _is_tensor(leaf)}
        for leaf in tree_leaves(found):
            if _is_tensor(leaf) and leaf.numel() > self.numbers and _place(leaf) not in known:
                self.refused.append(leaf.numel())
                raise torch.OutOfMemoryError(
                    f"CUDA out of memory. Tried to allocate {leaf.numel()} numbers"
                )
        return found


def _is_tensor(leaf: object) -> bool:
    return isinstance(leaf, torch.Tensor)


def _place(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage()._cdata


@contextmanager
def memory_for(numbers: int) -> Iterator[list[int]]:
    """No new tensor has more than ``numbers`` entries; the sizes that were refused are told."""
    with _Limit(numbers) as limit:
        yield limit.refused
