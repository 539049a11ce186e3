"""Is a model a function of one example at a time?

All checks run in float64 on a few rows of a copy, so that the user's model is never touched.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor, nn

from decomposition.elementary import check_embedding
from decomposition.errors import DecompositionError, ProblemError, UnsupportedModelError
from decomposition.inputs import (
    Inputs,
    about_transformers,
    apply,
    call,
    double,
    each,
    not_dense,
    parts_of,
    rows_in,
    shapes,
    take,
    wide,
)
from decomposition.layers import Layout, find_layout
from decomposition.memory import shrinking

ROWS = 4
FORWARD_ROWS = 1024
TOLERANCE = 1e-9
WRAPPERS = {
    "DataParallel": "module",
    "DistributedDataParallel": "module",
    "OptimizedModule": "_orig_mod",
}
"""Modules around a model, of torch.nn.parallel and torch.compile, and where the model is."""

REAL = (
    "keep its real and imaginary parts by themselves, and put them together in the forward pass, "
    "torch.complex(real, imag)"
)
"""What to do with complex numbers of a model."""
OUTPUT_NAMES = ("logits", "outputs", "output", "out", "prediction", "predictions")
"""Names under which outputs go, likeliest first."""


def double_copy(model: nn.Module) -> nn.Module:
    """A float64 copy in evaluation mode.

    Raises:
        UnsupportedModelError: the model cannot be copied.
    """
    try:
        return copy.deepcopy(model).double().eval()
    except Exception as error:
        computed = "graph leaves" in str(error)
        raise UnsupportedModelError(
            f"{type(model).__name__} cannot be copied with copy.deepcopy: "
            + (
                "an attribute is computed from parameters; make pruning and weight normalisation "
                "permanent (torch.nn.utils.prune.remove, remove_weight_norm)"
                if computed
                else _first_line(error)
            )
        ) from error


def check_parameters(model: nn.Module) -> None:
    """Raise ProblemError if a parameter is not finite."""
    for name, parameter in model.named_parameters():
        if not torch.isfinite(wide(parameter)).all():
            raise ProblemError(
                f"parameter {name} holds NaN or infinity: training has diverged (lower Recipe.lr) "
                "or the checkpoint is damaged"
            )


def finite_outputs(model: nn.Module, x: Inputs, where: str) -> Float[Tensor, "N C *T"]:
    """What a ``double_copy`` returns, checked: finite outputs (N, C) or (N, C, d1, …).

    Raises:
        ProblemError: the model does not fit the inputs, or its outputs are not such.
        UnsupportedModelError: it changes its inputs.
    """
    x = double(x)
    few_rows = each(take(x, slice(0, 2)), torch.clone)
    with torch.no_grad(), quiet_generator():
        try:
            few = call(model, few_rows)
        except DecompositionError:
            raise
        except Exception as error:
            raise ProblemError(
                f"the model cannot be applied in float64 to {where} inputs of shape {shapes(x)}: "
                f"{_first_line(error)}{_about_whole_numbers(error, x)}"
            ) from error
        fits = isinstance(few, Tensor) and few.ndim >= 2 and len(few) == rows_in(few_rows)
        if not fits or not few.is_floating_point() or few.numel() == 0:
            tensor = isinstance(few, Tensor)
            got = f"{few.dtype} {tuple(few.shape)}" if tensor else type(few).__name__
            raise ProblemError(
                "the model must return floating-point outputs of shape (N, C), or (N, C, d1, …) "
                f"with positions, got {got} for {rows_in(few_rows)} examples"
                f"{_outputs_way_out(few, rows_in(few_rows))}"
            )
        _check_inputs_kept(few_rows)
        parts = shrinking(lambda rows: call(model, take(x, rows)), rows_in(x), FORWARD_ROWS)
        found = list(parts)
        if len({part.shape[1:] for part in found}) > 1:
            raise ProblemError(
                f"outputs of {where} examples have different shapes: "
                f"{', '.join(str(tuple(part.shape)) for part in found)}; pad them to one"
            )
        f = torch.cat(found)
    if not torch.isfinite(f).all():
        row = int(torch.nonzero(~torch.isfinite(f))[0, 0])
        raise ProblemError(f"the model's output is not finite at {where} row {row}")
    return f


def _about_whole_numbers(error: Exception, x: Inputs) -> str:
    """What may be wrong with tokens and other whole numbers, as the end of a message."""
    whole = {
        name: part
        for name, part in parts_of(x).items()
        if not (part.is_floating_point() or part.dtype == torch.bool)
    }
    if not whole:
        return ""
    if not isinstance(error, IndexError):
        return "; whole numbers stay whole: give features as x.float(), and tokens as x.long()"
    held = ", ".join(
        f"{name} {int(p.min())} to {int(p.max())}".strip() for name, p in whole.items()
    )
    return (
        f"; the whole numbers among the inputs are {held}: an embedding takes those from 0 to "
        "num_embeddings - 1, so number the tokens again, or make the embedding larger"
    )


def _outputs_way_out(found: object, examples: int) -> str:
    """What to return in place of ``found``, as the end of a message; empty where none is known."""
    if isinstance(found, Tensor):
        return _tensor_way_out(found, examples)
    ways = {
        way: name
        for name, way, part in _held(found)
        if isinstance(part, Tensor) and part.ndim >= 2 and len(part) == examples
    }
    if not ways:
        return ""
    place = {name: i for i, name in enumerate(OUTPUT_NAMES)}
    best = min(ways, key=lambda way: place.get(ways[way], len(OUTPUT_NAMES)))
    return f": pass a module whose forward takes out, the result of this one, and returns {best}"


def _tensor_way_out(found: Tensor, examples: int) -> str:
    if found.is_complex():
        return ": return real and imaginary parts side by side, torch.view_as_real(out).flatten(1)"
    if not found.is_floating_point():
        return ": return the numbers that it decides by"
    if found.shape == (examples,):
        return ": return them as one column, without the squeeze, or out.unsqueeze(-1)"
    if found.ndim == 0:
        return ": return a row for every example, not their mean or sum"
    return ""


def _held(found: object) -> Iterator[tuple[str, str, object]]:
    """Name, expression and value of everything that a result holds."""
    if isinstance(found, tuple | list):
        names = getattr(found, "_fields", None)
        for i, part in enumerate(found):
            yield (names[i], f"out.{names[i]}", part) if names else ("", f"out[{i}]", part)
        return
    if isinstance(found, Mapping):  # also those whose keys are attributes
        for name, part in found.items():
            attribute = getattr(found, str(name), None) is part
            yield str(name), f"out.{name}" if attribute else f'out["{name}"]', part
        return
    for name, part in getattr(found, "__dict__", {}).items():
        yield name, f"out.{name}", part


def _check_inputs_kept(copied: Inputs) -> None:
    """Tensors count the operations that change them; a fresh copy starts at zero."""
    for name, part in parts_of(copied).items():
        if part._version > 0:
            raise UnsupportedModelError(
                f"the model changes its input{' ' + name if name else ''} in place, and the data "
                "with it: copy it first (x = x.clone()), or use inplace=False"
            )


def check_modules(model: nn.Module) -> None:
    """What the structure of a model says before it runs.

    Raises:
        UnsupportedModelError: dropout that is switched on, lazy parameters, an embedding that
            changes its weight or scales its gradient, or a wrapper that hides the modules inside.
    """
    for name, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            raise UnsupportedModelError(
                f"module {name or 'model'} is compiled by torch.jit, inside of which layers cannot "
                "be seen: pass the module that it was made of"
            )
        for wrapper, inside in WRAPPERS.items():
            if type(module).__name__ == wrapper:
                raise UnsupportedModelError(
                    f"module {name or 'model'} is {wrapper}, inside of which layers cannot be "
                    f"seen: pass the module that it wraps (.{inside})"
                )
        if isinstance(module, nn.modules.dropout._DropoutNd) and module.p > 0:
            raise UnsupportedModelError(
                f"module {name or 'model'} is {type(module).__name__}(p={module.p}): its training "
                "loss is random and has no Hessian; set p=0"
            )
        if isinstance(module, nn.Embedding | nn.EmbeddingBag):
            where = f"module {name or 'model'} ({type(module).__name__})"
            check_embedding(where, module.max_norm, module.scale_grad_by_freq)
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is None:
            raise UnsupportedModelError(
                f"module {name or 'model'} is {type(module).__name__} without running statistics, "
                "which couples the examples of a batch; use track_running_stats=True"
            )
    for name, parameter in model.named_parameters():
        if "" in name.split("."):
            raise UnsupportedModelError(
                f"parameter {name!r} lies in a module whose name is empty or has a dot, under "
                "which torch does not find it: give that module another name"
            )
        if isinstance(parameter, nn.parameter.UninitializedParameter):
            raise UnsupportedModelError(f"parameter {name} is lazy: run one forward pass first")
        if reason := not_dense(parameter):
            raise UnsupportedModelError(f"parameter {name} is {reason}")
        if not parameter.is_floating_point():
            raise UnsupportedModelError(f"parameter {name} is {parameter.dtype}, not real: {REAL}")
    for name, buffer in model.named_buffers():
        if buffer.is_complex():  # a change of precision would drop the imaginary part
            raise UnsupportedModelError(f"buffer {name} is {buffer.dtype}, not real: {REAL}")


def check_model(model: nn.Module, x: Inputs) -> Layout:
    """The layout of a ``double_copy``, checked on a few rows: no chance, no coupling of examples.

    Raises:
        UnsupportedModelError: the message says which.
    """
    x = double(x)
    with quiet_generator():
        _check_independent_examples(model, x)
        _check_training_mode(model, x)
        return find_layout(model, take(x, slice(0, ROWS)))


@contextmanager
def quiet_generator() -> Iterator[None]:
    """Leave torch's global generators as they were: a random model may draw from them."""
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    with torch.random.fork_rng(devices=devices):
        yield


def _check_independent_examples(model: nn.Module, x: Inputs) -> None:
    with torch.no_grad():
        together, again = call(model, x), call(model, x)
        alone = [call(model, take(x, [row])) for row in range(rows_in(x))]
    if not _same(together, again):
        raise UnsupportedModelError(
            "two forward passes on the same inputs differ: the model is random, and its training "
            "loss has no Hessian"
        )
    for one in alone:
        if one.shape != (1, *together.shape[1:]):
            raise UnsupportedModelError(
                f"an example's output changes with the rest of its batch: {len(together)} examples "
                f"have outputs {tuple(together.shape)}, one alone {tuple(one.shape)}; a squeeze() "
                "needs the dimension that it takes away, or is left out"
            )
    if not _same(together, torch.cat(alone)):
        raise UnsupportedModelError(
            "an example's output changes with the rest of its batch: the mean over examples that "
            f"defines the curvature does not exist for this model{about_transformers(model)}"
        )


def _check_training_mode(model: nn.Module, x: Inputs) -> None:
    """Batch normalisation apart, which is trained in evaluation mode too."""
    with torch.no_grad():
        evaluation = apply(model, x)
        model.train()
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
        try:
            training, again = apply(model, x), apply(model, x)
        finally:
            model.eval()
    if not (_same(training, again) and _same(training, evaluation)):
        raise UnsupportedModelError(
            "the model's outputs in training mode differ from those in evaluation mode (dropout, "
            "noise or batch statistics): its training loss is not the one whose curvature is "
            "studied; switch them off"
        )


def _same(a: Tensor, b: Tensor, tolerance: float = TOLERANCE) -> bool:
    scale = float(torch.maximum(a.abs().max(), b.abs().max())) + 1e-30
    return bool(torch.allclose(a, b, rtol=0, atol=tolerance * scale))


def _first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
