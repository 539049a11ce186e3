"""Where retrained models start from: values of the trainable parameters.

Frozen parameters and buffers are no part of a start; they are those of the model.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from decomposition.errors import ProblemError, UnsupportedModelError
from decomposition.inputs import wide
from decomposition.problem import Problem
from decomposition.retraining import seeds
from decomposition.retraining.trainable import trainable_parameters

_TORCH_GENERATOR = threading.Lock()  # reset_parameters draws from torch's one generator


def shared_start(problem: Problem) -> dict[str, Tensor]:
    """The parameters that the base model started from.

    Raises:
        ProblemError: they are unknown.
    """
    if problem.initial is None:
        raise ProblemError(
            "this problem's model has not been trained yet, so there is nothing to retrain: use "
            "problem.trained(), or give Problem(initial=...) with the parameters that your "
            "training started from"
        )
    return {name: problem.initial[name].detach() for name in trainable_parameters(problem.model)}


def present_parameters(model: nn.Module) -> dict[str, Tensor]:
    """The model's own parameters, as a stack of one."""
    return {name: value.detach()[None] for name, value in trainable_parameters(model).items()}


def independent_start(model: nn.Module, seed: int, mask: int, repeat: int) -> dict[str, Tensor]:
    """A fresh initialisation by every module's ``reset_parameters``, seeded by the cell.

    Modules are reset in the order of a constructor, parts before the whole; a tied parameter is
    initialised by the first of its modules.

    Raises:
        UnsupportedModelError: a module has trainable parameters but no ``reset_parameters``.
    """
    # the same numbers on every device, and not rounded to a model's half precision
    fresh = copy.deepcopy(model).cpu()._apply(wide)
    done: set[int] = set()
    with _TORCH_GENERATOR, torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seeds.initial_seed(seed, mask, repeat))
        for name, module in _parts_first(fresh, "", set()):
            own = [p for p in module.parameters(recurse=False) if p.requires_grad]
            if not own:
                continue
            tied = [(p, p.detach().clone()) for p in own if id(p) in done]
            _reset_of(name, module)()
            with torch.no_grad():
                for parameter, value in tied:
                    parameter.copy_(value)
            done.update(map(id, own))
    return {name: value.detach() for name, value in trainable_parameters(fresh).items()}


def _parts_first(module: nn.Module, name: str, seen: set[int]) -> Iterator[tuple[str, nn.Module]]:
    if id(module) in seen:
        return
    seen.add(id(module))
    for key, child in module.named_children():
        yield from _parts_first(child, f"{name}.{key}" if name else key, seen)
    yield name, module


def _reset_of(name: str, module: nn.Module) -> Callable[[], object]:
    for key in ("reset_parameters", "_reset_parameters"):  # the latter: nn.MultiheadAttention
        reset = getattr(module, key, None)
        if callable(reset):
            return reset
    raise UnsupportedModelError(
        f"module {name or 'model'} ({type(module).__name__}) has parameters but no "
        "reset_parameters(): independent randomness cannot initialise it afresh; add "
        "the method or use randomness='shared'"
    )
