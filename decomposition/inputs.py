"""Inputs of a model, and its outputs as rows.

Inputs are one tensor, or several in a tuple or a dict, with examples in their rows. A tuple is
given to ``model(*parts)``, a dict to ``model(**parts)``. Floating-point parts follow the precision
of the computation; whole numbers (tokens, positions) and booleans stay what they are.

Every forward pass of ours is one of those here, in elementary operations.

Outputs (N, C, d1, …) with positions become rows (N, C·T), T = d1·…, here and nowhere else. Models
of Hugging Face transformers return an object: its logits are the outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from decomposition.elementary import ElementaryOperations

Inputs = Tensor | tuple[Tensor, ...] | dict[str, Tensor]
"""X: every part has shape (N, …)."""


def each(x: Inputs, change: Callable[[Tensor], Tensor]) -> Any:
    """The same structure with every part changed."""
    if isinstance(x, Tensor):
        return change(x)
    if isinstance(x, Mapping):
        return {name: change(part) for name, part in x.items()}
    return tuple(change(part) for part in x)


def parts_of(x: Inputs) -> dict[str, Tensor]:
    """Every part with its name: "" for a single tensor, its position or key otherwise."""
    if isinstance(x, Tensor):
        return {"": x}
    if isinstance(x, Mapping):
        return dict(x)
    return {str(position): part for position, part in enumerate(x)}


def rows_in(x: Inputs) -> int:
    """N."""
    return len(next(iter(parts_of(x).values())))


def take(x: Inputs, rows: slice | Tensor | Sequence[int]) -> Any:
    """The examples ``rows`` of every part."""
    return each(x, lambda part: part[rows])


def to(x: Inputs, dtype: torch.dtype, device: torch.device | str | None = None) -> Any:
    """Floating-point parts in ``dtype``; all parts on ``device`` if one is given."""
    return each(x, lambda part: part.to(device, dtype if part.is_floating_point() else part.dtype))


def wide(values: Tensor) -> Tensor:
    """Half precision and less as float32, which holds them exactly; NumPy knows no bfloat16."""
    return values.float() if values.is_floating_point() and values.itemsize < 4 else values


def not_dense(values: Tensor) -> str | None:
    """What keeps a tensor from being numbers in memory, with the way out; None: nothing does."""
    if values.is_meta:
        return "on the device meta, where nothing has a value: make it on a real one"
    if values.is_quantized:
        return "quantised: give its .dequantize()"
    if values.is_nested:
        return "nested: pad it to one shape, torch.nested.to_padded_tensor(x, 0.0)"
    if values.layout is not torch.strided:
        return f"sparse ({values.layout}): give its .to_dense()"
    return None


def double(x: Inputs) -> Any:
    """Floating-point parts in float64."""
    return to(x, torch.float64)


def device_of(x: Inputs) -> torch.device:
    """Where the examples lie."""
    return next(iter(parts_of(x).values())).device


def arguments(x: Inputs) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
    """Positional and keyword arguments of the forward pass."""
    if isinstance(x, Tensor):
        return (x,), {}
    return ((), dict(x)) if isinstance(x, Mapping) else (tuple(x), {})


def call(model: nn.Module, x: Inputs) -> Any:
    """What the model returns: outputs (N, C, d1, …) if it is one for a Problem."""
    positional, named = arguments(x)
    with ElementaryOperations():
        return outputs_of(model(*positional, **named))


def outputs_of(found: Any) -> Any:
    """The logits of an output of transformers, classes second; anything else as it is.

    Logits of sequences are (N, T, C) there; of images they are (N, C, h, w), as here.
    """
    if not is_of_transformers(type(found), "ModelOutput") or "logits" not in found:
        return found
    logits = found["logits"]
    return logits.movedim(2, 1) if logits.ndim == 3 else logits


def is_of_transformers(kind: type, name: str) -> bool:
    """Whether a class is the one of this name in Hugging Face transformers, or made from it.

    Known without importing the library, which takes seconds.
    """
    return any(
        one.__name__ == name and one.__module__.partition(".")[0] == "transformers"
        for one in kind.__mro__
    )


def apply(model: nn.Module, x: Inputs) -> Float[Tensor, "N CT"]:
    """f(x): the outputs of an example in one row, class by class and in it position by position."""
    return call(model, x).flatten(1)


def apply_with(
    model: nn.Module, parameters: Mapping[str, Tensor], x: Inputs
) -> Float[Tensor, "N CT"]:
    """f(x) with these parameters and buffers in place of the model's own of the same names."""
    positional, named = arguments(x)
    with ElementaryOperations():
        found = torch.func.functional_call(model, dict(parameters), positional, named)
    return outputs_of(found).flatten(1)


def about_transformers(model: nn.Module) -> str:
    """What keeps its models from deciding by values, as the end of a message; empty for others."""
    if not any(is_of_transformers(type(part), "PreTrainedModel") for part in model.modules()):
        return ""
    return (
        "; models of transformers look into a mask unless they are made with "
        "attn_implementation='eager', and into tokens without a mask unless "
        "config.pad_token_id is None"
    )


def shapes(x: Inputs) -> str:
    """Shapes for messages: ``(100, 64)``, or ``tokens (100, 16), mask (100, 16)``."""
    if isinstance(x, Tensor):
        return str(tuple(x.shape))
    return ", ".join(f"{name} {tuple(part.shape)}" for name, part in parts_of(x).items())
