"""What a loss holds, in a form that is equal where the values are, in every process.

A ``repr`` will not do: that of a large tensor leaves out its middle, and that of a function is
its address in memory.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from functools import partial
from types import CodeType, FunctionType, MethodType, ModuleType

import numpy as np
from torch import Tensor, nn

ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")


def by_value(thing: object, seen: frozenset[int] = frozenset()) -> object:
    """Nested lists of strings: tensors by their content, functions by their code and closures.

    A function counts with its defaults, the values that it closes over, and the module-level
    names that it uses; of another module, only with its name. ``seen`` holds what is being
    described further out.
    """
    if id(thing) in seen:
        return "above"
    inside = seen | {id(thing)}
    if isinstance(thing, Tensor):
        array = thing.detach().cpu().contiguous()
        return ["tensor", str(array.dtype), list(array.shape), _hash(array.double().numpy())]
    if isinstance(thing, np.ndarray) and thing.dtype != object:
        return ["array", str(thing.dtype), list(thing.shape), _hash(np.ascontiguousarray(thing))]
    if isinstance(thing, FunctionType):
        return _function(thing, inside)
    if isinstance(thing, MethodType):
        return ["method", by_value(thing.__func__, inside), by_value(thing.__self__, inside)]
    if isinstance(thing, partial):
        return ["partial", *(by_value(x, inside) for x in (thing.func, thing.args, thing.keywords))]
    if isinstance(thing, Mapping):
        items = [[str(key), by_value(value, inside)] for key, value in thing.items()]
        return ["mapping", *sorted(items, key=lambda item: item[0])]
    if isinstance(thing, list | tuple):
        return ["sequence", *(by_value(part, inside) for part in thing)]
    if isinstance(thing, set | frozenset):
        return ["set", *sorted(str(by_value(part, inside)) for part in thing)]
    if isinstance(thing, nn.Module):
        state = [*thing.named_parameters(), *thing.named_buffers()]
        return [_kind(thing), repr(thing), by_value(dict(state), inside)]
    if hasattr(thing, "__dict__") and not isinstance(thing, type | ModuleType):
        return [_kind(thing), by_value(vars(thing), inside)]
    return ADDRESS.sub("", repr(thing))


def _function(function: FunctionType, seen: frozenset[int]) -> object:
    cells = [cell.cell_contents for cell in function.__closure__ or () if _filled(cell)]
    names = sorted(_names(function.__code__) & function.__globals__.keys())
    used = {name: _global(function, function.__globals__[name], seen) for name in names}
    held = (function.__defaults__, function.__kwdefaults__, cells)
    return [
        function.__qualname__,
        _code(function.__code__),
        by_value(held, seen),
        sorted(used.items()),
    ]


def _global(function: FunctionType, value: object, seen: frozenset[int]) -> object:
    module = getattr(value, "__module__", None)
    if isinstance(value, ModuleType):
        return value.__name__
    if isinstance(module, str) and module != function.__module__:
        return f"{module}.{getattr(value, '__qualname__', type(value).__qualname__)}"
    return by_value(value, seen)


def _code(code: CodeType) -> list[object]:
    constants = [_code(c) if isinstance(c, CodeType) else by_value(c) for c in code.co_consts]
    return [code.co_code.hex(), constants, list(code.co_names), list(code.co_varnames)]


def _names(code: CodeType) -> set[str]:
    inner = (_names(c) for c in code.co_consts if isinstance(c, CodeType))
    return set(code.co_names).union(*inner)


def _filled(cell: object) -> bool:
    try:
        cell.cell_contents  # type: ignore[attr-defined]  # noqa: B018
    except ValueError:
        return False
    return True


def _kind(thing: object) -> str:
    return f"{type(thing).__module__}.{type(thing).__qualname__}"


def _hash(array: np.ndarray) -> str:
    return hashlib.sha256(array.tobytes()).hexdigest()
