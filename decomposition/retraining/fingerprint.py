"""A hash of everything that determines a retrained model's outputs."""

from __future__ import annotations

import copy
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from types import CodeType, FunctionType, MethodType, ModuleType

import numpy as np
import torch
from torch import Tensor, nn

from decomposition.inputs import Inputs, apply_with, double, parts_of, wide
from decomposition.problem import Problem
from decomposition.retraining.plan import BankPlan
from decomposition.source import import_closure, source_hash

CHECKED_ELSEWHERE = frozenset({"errors.py", "problem.py", "retraining/__init__.py"})
"""Code that is no part of the trainer: a problem enters the key by its data, its model's outputs
and its loss."""
PROBE_DIGITS = 8
ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")


def trainer_code() -> tuple[str, ...]:
    """The modules that a retrained model's outputs depend on, as for ``source_hash``.

    Their syntax trees are in the key, rather than a version number that is raised by hand: nobody
    has to remember that a change of the trainer, or of a loss, makes other numbers.
    """
    return import_closure("retraining/cells.py", CHECKED_ELSEWHERE)


def study_fingerprint(problem: Problem, plan: BankPlan, start: Mapping[str, Tensor]) -> str:
    """Hash of what all chunks of a bank have in common.

    ``start`` holds the parameters that the first cell starts from. The source of the model and
    of the loss cannot be hashed; their values at ``start`` on the queries stand in for it.
    """
    recipe = asdict(problem.recipe) | {"checkpoint": problem.recipe.last_epoch}
    if plan.randomness == "independent":
        del recipe["seed"]  # the base model's order plays no part
    loss = problem.query_loss
    facts = {
        "trainer": source_hash(*trainer_code()),
        "versions": {name: _version(name) for name in ("curvature-decomposition", "torch")},
        "recipe": recipe,
        "randomness": plan.randomness,
        "seed": plan.seed if plan.randomness == "independent" else None,
        "model": repr(problem.model),
        "modules": [_kind(module) for module in problem.model.modules()],
        "loss": [_kind(loss), by_value(vars(loss))],
    }
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    constants = [(k, p) for k, p in problem.model.named_parameters() if k not in start]
    for name, tensor in (*start.items(), *constants, *problem.model.named_buffers()):
        _add(digest, name, tensor)
    x, y = problem.query
    _add_inputs(digest, "X", problem.train[0])
    _add(digest, "Y", problem.train[1])
    if problem.weights is not None:
        _add(digest, "W", problem.weights)
    _add_inputs(digest, "Q", x)
    for name, tensor in zip(("f", "loss"), _probe(problem, start, x, y), strict=True):
        _add(digest, name, tensor)
    return digest.hexdigest()


def chunk_key(study: str, masks: np.ndarray, start: int, repeat: int) -> str:
    """Name of the chunk that trains ``masks`` (m, N), the first of them mask ``start``."""
    digest = hashlib.sha256(f"{study} {start} {repeat} {masks.shape}".encode())
    digest.update(np.packbits(masks).tobytes())
    return digest.hexdigest()


def _probe(
    problem: Problem, start: Mapping[str, Tensor], x: Inputs, y: Tensor
) -> tuple[Tensor, Tensor]:
    model = copy.deepcopy(problem.model).double().eval()
    with torch.no_grad():
        f = apply_with(model, {k: v.to(y.device).double() for k, v in start.items()}, double(x))
        loss = problem.query_loss.per_example(f, y.double() if y.is_floating_point() else y)
    return _rounded(f), _rounded(loss)


def _rounded(values: Tensor) -> Tensor:
    """Values free of the last bits, which depend on the number of threads."""
    return torch.round(values / (values.abs().max() + 1e-30), decimals=PROBE_DIGITS)


def _add_inputs(digest: hashlib._Hash, name: str, x: Inputs) -> None:
    for part, tensor in parts_of(x).items():
        _add(digest, f"{name} {part}".rstrip(), tensor)


def _add(digest: hashlib._Hash, name: str, tensor: Tensor) -> None:
    array = wide(tensor.detach()).cpu().contiguous().numpy()
    digest.update(f"{name!a} {array.dtype} {array.shape}\n".encode())
    digest.update(array.tobytes())


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "unknown"


def by_value(thing: object, seen: frozenset[int] = frozenset()) -> object:
    """What a loss holds, in a form that is equal where the values are, in every process.

    Nested lists of strings: tensors by their content, functions by their code and closures. A
    ``repr`` will not do: that of a large tensor leaves out its middle, and that of a function is
    its address in memory.

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
