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
from decomposition.recipe import UnknownStart
from decomposition.retraining import seeds
from decomposition.retraining.stacks import trainable_parameters

_TORCH_GENERATOR = threading.Lock()  # reset_parameters draws from torch's one generator


WITHOUT_RETRAINING = (
    "target 'pbrf', models retrained elsewhere (bank=…) and attribution=False retrain nothing"
)


def check_trained(problem: Problem) -> None:
    """Raise ProblemError if there is nothing to retrain yet."""
    if problem.initial is None:
        raise ProblemError(
            "this problem's model has not been trained yet, so there is nothing to retrain: use "
            "problem.trained(), or give Problem(initial=...) with the parameters that your "
            "training started from"
        )


def check_retrainable(problem: Problem, randomness: str) -> None:
    """Nothing, if it is known where retrained models start and how they are trained.

    Args:
        problem: trained, or to be trained by its recipe.
        randomness: of retraining, ``shared`` or ``independent``.

    Raises:
        ProblemError: the start of a model given as ``trained=True``, or its recipe, is not known.
    """
    if not isinstance(problem.initial, UnknownStart):
        return
    if randomness == "shared":
        shared_start(problem)
    if not problem.recipe.stated:
        raise ProblemError(
            "Problem(trained=True) without a recipe does not say how models are retrained: give "
            f"Problem(recipe=…), the recipe that the model was trained by; {WITHOUT_RETRAINING}"
        )


def shared_start(problem: Problem) -> dict[str, Tensor]:
    """The parameters that the base model started from.

    Raises:
        ProblemError: it has not been trained, or they are unknown.
    """
    check_trained(problem)
    if isinstance(problem.initial, UnknownStart):
        raise ProblemError(
            "Problem(trained=True) does not say where training started, and that is where models "
            "retrained with randomness='shared' start: give those parameters, "
            f"Problem(initial=…), or use randomness='independent'; {WITHOUT_RETRAINING}"
        )
    assert problem.initial is not None
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
