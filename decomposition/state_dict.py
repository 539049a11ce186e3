"""Is a state dict one of this model? Names and shapes, before any work is done with it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor, nn

from decomposition.errors import ProblemError
from decomposition.inputs import not_dense, wide

WRAPPERS = ("module.", "_orig_mod.")
"""What DataParallel and torch.compile put into names."""
SHOWN = 4
"""Names that a message lists."""


def check_initial(initial: Mapping[str, object], model: nn.Module) -> None:
    """Nothing, if these are the model's trainable parameters at the start of its training.

    Buffers and frozen parameters may be there too.

    Raises:
        ProblemError: names with a wrapper's prefix, missing or surplus names,
            values that are not finite floats of the parameter's shape.
    """
    wanted = {name: p for name, p in model.named_parameters() if p.requires_grad}
    known = {
        *model.state_dict(),
        *(name for name, _ in model.named_parameters(remove_duplicate=False)),
        *(name for name, _ in model.named_buffers(remove_duplicate=False)),
    }
    missing = [name for name in wanted if name not in initial]
    surplus = [str(name) for name in initial if name not in known]
    if missing or surplus:
        raise ProblemError(_other_names(initial, [*wanted], missing, surplus))
    for name, parameter in wanted.items():
        _check_value(initial[name], name, parameter)


def _other_names(
    initial: Mapping[str, object], wanted: list[str], missing: list[str], surplus: list[str]
) -> str:
    said = [f"lacks {_some(missing)}"] if missing else []
    said += [f"holds {_some(surplus)}, which the model has not"] if surplus else []
    found = f"Problem.initial {' and '.join(said)}: "
    inside = [name for name in surplus if isinstance(initial.get(name), Mapping)]
    if missing and inside:
        return f"{found}give the state dict alone, the checkpoint's [{inside[0]!r}]"
    for code, change in _changes([*map(str, initial)], wanted[0]):
        if {change(str(name)) for name in initial} >= {*wanted}:
            return (
                f"{found}the names are those of a wrapped model, DataParallel ('module.') or "
                "torch.compile ('_orig_mod.') for instance; give "
                f"{{{code}: value for name, value in initial.items()}}"
            )
    return (
        f"{found}give this model's own state dict from before its training, "
        "copy.deepcopy(model.state_dict())"
    )


def _changes(names: Iterable[str], first: str) -> Iterable[tuple[str, Callable[[str], str]]]:
    """Ways to make other names of names, as code and as a function."""
    for name in names:
        if name.endswith(first) and name != first:
            prefix = name.removesuffix(first)
            yield (
                f"name.removeprefix({prefix!r})",
                lambda one, prefix=prefix: one.removeprefix(prefix),
            )
        if first.endswith(name):
            prefix = first.removesuffix(name)
            yield f"{prefix!r} + name", lambda one, prefix=prefix: prefix + one
    for part in WRAPPERS:  # around a part of the model
        yield f"name.replace({part!r}, '')", lambda one, part=part: one.replace(part, "")


def _check_value(value: object, name: str, parameter: Tensor) -> None:
    what = f"Problem.initial[{name!r}]"
    if not isinstance(value, Tensor) or not value.is_floating_point():
        got = value.dtype if isinstance(value, Tensor) else type(value).__name__
        raise ProblemError(f"{what} must be a tensor of floats, got {got}")
    if value.shape != parameter.shape:
        raise ProblemError(
            f"{what} must have shape {tuple(parameter.shape)}, got {tuple(value.shape)}"
        )
    if reason := not_dense(value):
        raise ProblemError(f"{what} is {reason}")
    if not torch.isfinite(wide(value)).all():
        raise ProblemError(f"{what} holds NaN or infinity")


def _some(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
