"""Which parameters are studied, how they fall into blocks, and what each block's curvature is.

A module is a ``LinearBlock`` if it is a linear layer, a convolution or a large embedding that owns
its weight alone, is called as a module, and has the per-example gradient Σ_t δ_t a_tᵀ of one: this
is tried on a few examples, so that a weight used a second time elsewhere, or inputs whose rows are
not the examples, are found out. Everything else is an ``ExactBlock``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear

from decomposition.checks import printable
from decomposition.errors import UnsupportedModelError
from decomposition.inputs import Inputs, apply, rows_in
from decomposition.layers.blocks import Block, ExactBlock, LinearBlock
from decomposition.layers.check import not_linear
from decomposition.layers.convert import becomes_linear
from decomposition.layers.hooks import output_hooks
from decomposition.layers.positions import has_kronecker_form, linear_block

EXACT_LIMIT = 8192
"""Largest block without a Kronecker form: its dense matrix and eigenvectors take 1 GB."""
ONE_HOT_LIMIT = 8192
"""Most tokens of an embedding as a linear map: its factor A and eigenvectors take 1 GB."""


@dataclass(frozen=True)
class Layout:
    """The parameters of a model as its curvature sees them."""

    blocks: tuple[Block, ...]
    """In parameter order; together they are all trainable parameters."""
    trainable: tuple[str, ...]
    """Paths of the trainable parameters in the order of the flat vector."""
    order: tuple[str, ...]
    """Linear blocks in the order in which a forward pass calls them, once for every call."""
    plain: bool
    """Whether every block is a torch.nn.Linear, called once on inputs (examples, features)."""
    notes: tuple[str, ...]
    """What a reader of a result must know."""


def find_layout(model: nn.Module, x: Inputs) -> Layout:
    """The layout of a float64 copy in evaluation mode, tried on the few examples ``x``.

    Raises:
        UnsupportedModelError: no trainable parameters, one that has no effect on the outputs or
            is lazy, or a large block without a Kronecker form.
    """
    trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if not trainable:
        frozen = next(model.parameters(), None) is not None
        raise UnsupportedModelError(
            "the model has no trainable parameters"
            + (": all are frozen (requires_grad=False)" if frozen else "")
        )
    candidates, reasons = _candidates(model)
    calls: list[tuple[str, bool]] = []

    def record(name: str, a: Tensor, z: Tensor) -> None:
        calls.append((name, a.ndim == 2 and len(a) == rows_in(x)))

    with output_hooks(candidates, record), torch.no_grad():
        apply(model, x)
    called = {name for name, _ in calls}
    for name in [name for name in candidates if name not in called]:
        reasons[name] = "its parameters are used, but not by calling it"
        del candidates[name]
    for name in not_linear(model, trainable, candidates, x):
        reasons[name] = "its gradient is not that of one linear map of its inputs"
        del candidates[name]
    blocks = tuple(_blocks(model, trainable, candidates, reasons))
    order = tuple(name for name, _ in calls if name in candidates)
    frozen = [name for name, p in model.named_parameters() if not p.requires_grad]
    once = len(order) == len(set(order)) == len(blocks)
    plain = (
        once
        and isinstance(x, Tensor)
        and x.is_floating_point()
        and all(ok for name, ok in calls if name in candidates)
        and all(isinstance(layer, nn.Linear) for layer in candidates.values())
        and not frozen
    )
    return Layout(blocks, tuple(trainable), order, plain, tuple(_notes(model, blocks, frozen)))


def layers_of(model: nn.Module, blocks: tuple[Block, ...]) -> dict[str, nn.Module]:
    """The modules of the linear blocks, by block name."""
    modules = {_block_name(model, path): module for path, module in model.named_modules()}
    return {b.name: modules[b.name] for b in blocks if isinstance(b, LinearBlock)}


def _block_name(model: nn.Module, path: str) -> str:
    """The module's path; the model itself, which has none, gets a name that no child has.

    A block is a group of a result, in whose name a slash would be another group.
    """
    if path:
        return printable(path, "/%")
    name = "linear" if isinstance(model, nn.Linear) else "model"
    while name in model._modules:
        name += "_"
    return name


def _owned(model: nn.Module) -> Iterator[tuple[str, nn.Module, dict[str, nn.Parameter]]]:
    """Modules with the trainable parameters that the flat vector has at their place."""
    seen: set[int] = set()
    for path, module in model.named_modules():
        own = {}
        for key, parameter in module.named_parameters(recurse=False):
            if parameter.requires_grad and id(parameter) not in seen:
                own[key] = parameter
            seen.add(id(parameter))
        if own:
            yield path, module, own


def _users(model: nn.Module) -> dict[int, list[str]]:
    """Parameter → the paths under which different modules hold it."""
    users: dict[int, list[str]] = {}
    for path, module in model.named_modules():
        for key, parameter in module.named_parameters(recurse=False, remove_duplicate=False):
            users.setdefault(id(parameter), []).append(f"{path}.{key}" if path else key)
    return users


def _candidates(model: nn.Module) -> tuple[dict[str, nn.Module], dict[str, str]]:
    """Modules that may be linear blocks, and why the others are not."""
    users = _users(model)
    candidates: dict[str, nn.Module] = {}
    reasons: dict[str, str] = {}
    for path, module, own in _owned(model):
        name = _block_name(model, path)
        tied = [p for q in own.values() for p in users[id(q)] if p.rpartition(".")[0] != path]
        held = [key for key, parameter in module._parameters.items() if parameter is not None]
        if tied:
            reasons[name] = f"tied to {', '.join(tied)}"
        elif not has_kronecker_form(module):
            reasons[name] = type(module).__name__
        elif list(own) not in (["weight"], ["weight", "bias"]):
            reasons[name] = f"{', '.join(own)} of a {type(module).__name__}"
        elif held not in (["weight"], ["weight", "bias"]):
            reasons[name] = f"{type(module).__name__} with parameters {', '.join(held)}"
        elif isinstance(module, nn.Embedding) and (reason := _not_one_hot(module)):
            reasons[name] = reason
        else:
            candidates[name] = module
    return candidates, reasons


def _not_one_hot(module: nn.Embedding) -> str | None:
    """Why an embedding is no linear map of one-hot rows here: a small one is better off exact."""
    if module.weight.numel() <= EXACT_LIMIT:
        return "Embedding"
    if module.num_embeddings > ONE_HOT_LIMIT:
        return f"Embedding of {module.num_embeddings:,} tokens"
    return None


def _blocks(
    model: nn.Module,
    trainable: Mapping[str, nn.Parameter],
    candidates: Mapping[str, nn.Module],
    reasons: Mapping[str, str],
) -> Iterator[Block]:
    paths = {id(p): name for name, p in trainable.items()}
    start = 0
    for path, module, own in _owned(model):
        name = _block_name(model, path)
        size = sum(p.numel() for p in own.values())
        if name in candidates:
            yield linear_block(module, name, start, "bias" in own)
        else:
            converted = "" if reasons[name].startswith("tied to") else _linear_copy(module)
            if isinstance(module, nn.RNNBase):
                raise UnsupportedModelError(
                    f"block {name} ({reasons[name]}) runs in a fused kernel that torch.func.vmap "
                    f"has no rule for: {converted and f'{converted}; or '}"
                    f"call torch.nn.{module.mode.partition('_')[0]}Cell step by step, "
                    "whose parameters are those of one layer without the suffix _l0 (their exact "
                    "block stands in), or give the problem its outputs as inputs"
                )
            if size > EXACT_LIMIT:
                raise UnsupportedModelError(
                    f"block {name} ({reasons[name]}) has {size:,} parameters and no Kronecker "
                    f"form: exact blocks stand in for up to {EXACT_LIMIT:,}; freeze it with "
                    f"requires_grad_(False), or {converted or _way_out(module, reasons[name])}"
                )
            names = tuple(paths[id(p)] for p in own.values())
            yield ExactBlock(name, start, size, names, reasons[name], converted)
        start += size


def _linear_copy(module: nn.Module) -> str:
    """A function whose copy of the model has linear layers in this module's place, if any."""
    if isinstance(module, nn.MultiheadAttention | NonDynamicallyQuantizableLinear):
        return (
            "decomposition.layers.with_linear_attention(model) is a copy of the model that calls "
            "its projections as torch.nn.Linear layers, which have a Kronecker form"
        )
    if becomes_linear(module):
        return (
            "decomposition.layers.with_linear_layers(model) is a copy of the model that calls its "
            "matrices as torch.nn.Linear layers, which have a Kronecker form"
        )
    return ""


def _way_out(module: nn.Module, reason: str) -> str:
    """How a module gets a Kronecker form."""
    if reason.startswith("tied to"):
        return (
            "untie it, as another model with two parameters in place of one "
            "(tie_word_embeddings=False in the configuration of transformers)"
        )
    if isinstance(module, nn.Embedding):
        return (
            f"let it have one: for at most "
            f"{ONE_HOT_LIMIT:,} tokens, called on indices with examples in their rows (positions "
            "too: torch.arange(T).expand(len(x), T)), its weight used nowhere else"
        )
    return "build it from torch.nn.Linear, Conv1d or Conv2d layers that are called as modules"


def _notes(model: nn.Module, blocks: tuple[Block, ...], frozen: list[str]) -> Iterator[str]:
    exact = [block for block in blocks if isinstance(block, ExactBlock)]
    yield from (block.note for block in exact)
    for way in dict.fromkeys(block.way_out for block in exact if block.way_out):
        yield f"{', '.join(block.name for block in exact if block.way_out == way)}: {way}"
    if frozen:
        count = sum(model.get_parameter(name).numel() for name in frozen)
        yield (
            f"{count:,} frozen parameters are no part of the curvature: "
            + ", ".join(map(printable, frozen[:5]))
            + (f" and {len(frozen) - 5} more" if len(frozen) > 5 else "")
        )
    for path, module in model.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            yield (
                f"{printable(path) or 'model'} ({type(module).__name__}) runs in evaluation mode, "
                "in training too: its running statistics are constants"
            )
