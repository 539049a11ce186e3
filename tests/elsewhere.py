"""A device without hardware: tensors that say they lie on ``meta`` and hold their values.

Within ``elsewhere()`` everything sent to or made on the device ``meta`` becomes such a tensor, and
the rules of a CUDA device hold: an operation that meets a tensor of the CPU (other than a single
number, an index, or the other end of a copy) is an error, and so is ``.numpy()``. What runs here
lets no tensor forget its device; that kernels exist and agree on a real one is for tests/gpu.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

DEVICE = torch.device("meta")
CPU = torch.device("cpu")

aten = torch.ops.aten
BETWEEN_DEVICES = {aten.copy_.default, aten._to_copy.default, aten._copy_from.default}
INDEXING = {
    aten.index.Tensor,
    aten._unsafe_index.Tensor,
    aten.index_put_.default,
    aten.index_put.default,
}
"""On CUDA the indices may lie on the CPU."""


class Elsewhere(torch.Tensor):
    """A tensor of the device, and its values."""

    values: torch.Tensor
    __slots__ = ("values",)
    is_meta = False  # pyright: ignore[reportAssignmentType] -- it has values

    @staticmethod
    def __new__(cls, values: torch.Tensor) -> Elsewhere:
        made = torch.Tensor._make_wrapper_subclass(
            cls,
            values.shape,
            strides=values.stride(),
            storage_offset=values.storage_offset(),
            dtype=values.dtype,
            device=DEVICE,
            requires_grad=False,
        )
        made.values = values
        return made

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return _dispatch(func, args, kwargs or {})

    def tolist(self) -> list:
        return self.values.tolist()

    def __repr__(self) -> str:  # pyright: ignore[reportIncompatibleMethodOverride]
        return f"Elsewhere({self.values!r})"


class _Calls(TorchFunctionMode):
    """Lists become tensors on the CPU first: PyTorch would put them on ``meta`` without values."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func in (torch.tensor, torch.as_tensor) and not isinstance(args[0], torch.Tensor):
            device = kwargs.pop("device", None)
            made = func(*args, **kwargs)
            return made if device is None else made.to(device)
        if func in (torch.Tensor.__getitem__, torch.Tensor.__setitem__):
            index = tuple(map(_listed, args[1])) if isinstance(args[1], tuple) else _listed(args[1])
            args = (args[0], index, *args[2:])
        return func(*args, **kwargs)


def _listed(index: object) -> object:
    return torch.tensor(index) if isinstance(index, list) else index


class _Mode(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return _dispatch(func, args, kwargs or {})


@contextmanager
def elsewhere() -> Iterator[torch.device]:
    """The device, and its rules. Modules that move get new parameters, which unties tied ones."""
    before = torch.__future__.get_overwrite_module_params_on_conversion()
    run = threading.Thread.run

    def run_there(thread: threading.Thread) -> None:
        with _Calls(), _Mode():  # modes belong to a thread
            run(thread)

    torch.__future__.set_overwrite_module_params_on_conversion(True)
    threading.Thread.run = run_there
    try:
        with _Calls(), _Mode():
            yield DEVICE
    finally:
        threading.Thread.run = run
        torch.__future__.set_overwrite_module_params_on_conversion(before)


def _dispatch(func, args: tuple, kwargs: dict):
    leaves = tree_leaves((args, kwargs))
    there = any(isinstance(leaf, Elsewhere) for leaf in leaves)
    target = kwargs.get("device")
    for leaf in leaves:
        if type(leaf) is torch.Tensor and leaf.device == DEVICE:
            raise RuntimeError(f"{func}: a tensor of shape {tuple(leaf.shape)} has lost its values")
    if there and func not in BETWEEN_DEVICES:
        _refuse_mixture(func, args, kwargs)
    if target is not None:
        there = torch.device(target) == DEVICE
        kwargs = {**kwargs, "device": CPU}
    elif func is aten.copy_.default:
        there = isinstance(args[0], Elsewhere)
    if func is aten._efficientzerotensor.default:  # a mark in place of values, which is lost here
        func = aten.zeros.default
        args = (args[0] if isinstance(args[0], list | tuple) else args,)
    inner_args, inner_kwargs = tree_map(_inner, (args, kwargs))
    out = func(*inner_args, **inner_kwargs)
    if not there:
        return out
    known = {id(leaf.values): leaf for leaf in leaves if isinstance(leaf, Elsewhere)}
    return tree_map(lambda one: _outer(one, known), out)


def _inner(leaf: object) -> object:
    return leaf.values if isinstance(leaf, Elsewhere) else leaf


def _outer(leaf: object, known: dict[int, Elsewhere]) -> object:
    """In-place operations return what they were given."""
    if not isinstance(leaf, torch.Tensor) or isinstance(leaf, Elsewhere):
        return leaf
    same = known.get(id(leaf))
    return Elsewhere(leaf) if same is None else same


def _refuse_mixture(func, args: tuple, kwargs: dict) -> None:
    checked = (args[0], args[2:]) if func in INDEXING else (args, kwargs)
    for leaf in tree_leaves(checked):
        if isinstance(leaf, torch.Tensor) and not isinstance(leaf, Elsewhere) and leaf.ndim:
            raise RuntimeError(
                f"{func}: expected all tensors to be on one device, got one of shape "
                f"{tuple(leaf.shape)} on {leaf.device}"
            )
