"""Where a computation runs, how exact its products are, and how much memory is there.

Curvature is computed in float64, which the identities of the chain need; float32 products (the
sampled norms, retraining, matrix-free work where it says so) must not be rounded further to
TF32, whose ten bits of mantissa are a relative error of 5e-4.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import torch

from decomposition.checks import text
from decomposition.errors import DecompositionError
from decomposition.resources import free_memory

CPU = torch.device("cpu")
TYPES = ("cpu", "cuda")
"""Types of device that compute in float64."""
SHARE_OF_FREE_MEMORY = 0.25
"""Part of a CUDA device's free memory that one chunk's named tensors may take: what is computed
on the way takes as much again, and more."""


class DeviceError(DecompositionError, ValueError):
    """A device is unknown, not there, or cannot compute what is asked."""


def device_named(name: str | torch.device) -> torch.device:
    """The device of a name, whether it is there or not: cpu, cuda or cuda:N.

    Raises:
        DeviceError: no device has this name, or not in float64.
    """
    try:
        device = torch.device(name)
    except (RuntimeError, TypeError):
        raise DeviceError(f"unknown device {name!r}: use cpu, cuda or cuda:N") from None
    if device.type == "mps":
        raise DeviceError(f"device {name}: MPS has no float64, which curvature needs; use cpu")
    if device.type not in TYPES:
        raise DeviceError(f"device {name} is not supported: use cpu, cuda or cuda:N")
    return CPU if device.type == "cpu" else device


def named_device(value: object) -> str:
    """The name of a device, there or not: a rule, see decomposition.checks.

    Raises:
        Unfit: neither a string nor a torch.device.
        DeviceError: no device has this name, or not in float64.
    """
    name = text(str(value) if isinstance(value, torch.device) else value)
    device_named(name)
    return name


def resolve_device(name: str | torch.device) -> torch.device:
    """The device of a name, with its index, if it is there.

    Raises:
        DeviceError: it is not; the message names those that are.
    """
    device = device_named(name)
    if device.type != "cuda":
        return device
    if not torch.cuda.is_available():
        built = torch.version.cuda is not None or torch.version.hip is not None
        why = "no CUDA device is visible" if built else "this PyTorch is built without CUDA"
        raise DeviceError(f"device {name} is not available: {why}; there is only cpu")
    index = torch.cuda.current_device() if device.index is None else device.index
    if index >= torch.cuda.device_count():
        there = ", ".join(
            describe(torch.device("cuda", i)) for i in range(torch.cuda.device_count())
        )
        raise DeviceError(f"device {name} is not available: there are cpu, {there}")
    return torch.device("cuda", index)


def describe(device: torch.device) -> str:
    """``cpu``, or ``cuda:0 (name of the card)``."""
    if device.type != "cuda":
        return str(device)
    return f"{device} ({torch.cuda.get_device_name(device)})"


@contextmanager
def full_precision() -> Iterator[None]:
    """Within the block, float32 products on CUDA are float32 products, not TF32.

    float64 is not touched by these switches. They are the process's, and restored at the end.
    """
    before = []
    for get, put, exact in _switches():
        try:
            before.append((put, exact, get()))
        except RuntimeError:  # unreadable where the user has set the newer switches alone
            continue
    for put, exact, _ in before:  # one switch moves others: all were read first
        put(exact)
    try:
        yield
    finally:
        for put, _, value in before:
            put(value)


def _switches() -> Iterator[tuple[Callable[[], object], Callable, object]]:
    """Get, set and full precision of every switch; the newer ones (PyTorch 2.9) last."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    yield torch.get_float32_matmul_precision, torch.set_float32_matmul_precision, "highest"
    owners: list[tuple[object, str, object]] = [(cudnn, "allow_tf32", False)]
    if hasattr(matmul, "fp32_precision"):
        newer = (matmul, cudnn.conv, cudnn.rnn)  # pyright: ignore[reportAttributeAccessIssue]
        owners += [(owner, "fp32_precision", "ieee") for owner in newer]
    for owner, name, exact in owners:
        yield partial(getattr, owner, name), partial(setattr, owner, name), exact


def chunk_bytes(device: torch.device, on_cpu: int) -> int:
    """Memory that the named tensors of one chunk may take.

    ``on_cpu`` there, which is chosen for the cache or for a machine shared with others; a quarter
    of what is free on a CUDA device, with what PyTorch holds there unused.
    """
    if device.type != "cuda":
        return on_cpu
    return max(1, int(SHARE_OF_FREE_MEMORY * free_memory_on(device)))


def free_memory_on(device: torch.device) -> int:
    """Bytes that can still be used there, with what PyTorch holds unused."""
    if device.type != "cuda":
        return free_memory()
    free, _ = torch.cuda.mem_get_info(device)
    return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)


def synchronise(device: torch.device) -> None:
    """Wait until all that was asked of a CUDA device is done: its calls return before that."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
