"""Where retrained models start from."""

from __future__ import annotations

import copy
import threading
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from decomposition.errors import ProblemError, UnsupportedModelError
from decomposition.problem import Problem
from decomposition.retraining import seeds

_TORCH_GENERATOR = threading.Lock()  # reset_parameters draws from torch's one generator


def shared_start(problem: Problem) -> dict[str, Tensor]:
    """The parameters that the base model started from.

    Raises:
        ProblemError: they are unknown, or do not fit the model.
    """
    if problem.initial is None:
        raise ProblemError(
            "this problem's model has not been trained yet, so there is nothing to retrain: use "
            "problem.trained(), or give Problem(initial=...) with the parameters that your "
            "training started from"
        )
    return {
        name: _checked(problem.initial, name, parameter)
        for name, parameter in problem.model.named_parameters()
    }


def independent_start(model: nn.Module, seed: int, mask: int, repeat: int) -> dict[str, Tensor]:
    """A fresh initialisation by every module's ``reset_parameters``, seeded by the cell.

    Raises:
        UnsupportedModelError: a module has parameters but no ``reset_parameters``.
    """
    fresh = copy.deepcopy(model)
    with _TORCH_GENERATOR, torch.random.fork_rng(devices=[]):
        torch.manual_seed(seeds.initial_seed(seed, mask, repeat))
        for name, module in fresh.named_modules():
            if next(module.parameters(recurse=False), None) is None:
                continue
            reset = getattr(module, "reset_parameters", None)
            if not callable(reset):
                raise UnsupportedModelError(
                    f"module {name or 'model'} ({type(module).__name__}) has parameters but no "
                    "reset_parameters(): independent randomness cannot initialise it afresh; add "
                    "the method or use randomness='shared'"
                )
            reset()
    return {name: value.detach() for name, value in fresh.named_parameters()}


def _checked(initial: Mapping[str, Tensor], name: str, parameter: Tensor) -> Tensor:
    value = initial.get(name)
    if value is None or value.shape != parameter.shape:
        shape = None if value is None else tuple(value.shape)
        raise ProblemError(
            f"Problem.initial[{name!r}] must have shape {tuple(parameter.shape)}, got {shape}"
        )
    if not torch.isfinite(value).all():
        raise ProblemError(f"Problem.initial[{name!r}] holds NaN or infinity")
    return value.detach()
