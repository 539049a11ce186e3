"""What a forward pass does that ``vmap`` cannot follow, and in which module."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from decomposition.errors import UnsupportedModelError

IN_PLACE = (
    "an in-place operation writes a value of each copy into a tensor that all share (one made in "
    "forward, or a buffer)"
)
UNROLLED = (
    " (decomposition.layers.with_linear_layers(model) is a copy of the model in which it runs step "
    "by step)"
)
CAUSES = (
    ("data-dependent control flow", "data-dependent control flow (an if or while on a tensor)"),
    (".item()", "a tensor is turned into a number (.item(), float(), int())"),
    ("inplace", IN_PLACE),
    ("in-place", IN_PLACE),
    ("output with shape", IN_PLACE),
    ("randomness", "random numbers are drawn in the forward pass"),
    ("dynamic shape", "the shape of a tensor depends on its values"),
    ("Batching rule not implemented", "an operation has no batched form"),
)
"""Parts of torch's messages, and what they mean."""


@contextmanager
def where_it_fails(model: nn.Module) -> Iterator[None]:
    """Name the innermost module whose forward pass raises.

    Raises:
        UnsupportedModelError: in place of any other error in the block.
    """
    names = {id(module): name for name, module in model.named_modules()}
    entered: list[nn.Module] = []
    handles = []
    for module in model.modules():
        handles.append(module.register_forward_pre_hook(lambda m, _: entered.append(m)))
        handles.append(module.register_forward_hook(lambda *_: (entered.pop(), None)[1]))
    try:
        yield
    except Exception as error:
        where = way_out = ""
        if entered:
            name, kind = names[id(entered[-1])], type(entered[-1]).__name__
            where = f"in module {name} ({kind}) " if name else "in its forward pass "
            way_out = UNROLLED if isinstance(entered[-1], nn.RNNBase) else ""
        raise UnsupportedModelError(f"{where}{_cause(error)}{way_out}") from error
    finally:
        for handle in handles:
            handle.remove()


def _cause(error: Exception) -> str:
    text = str(error)
    for part, meaning in CAUSES:
        if part in text:
            return meaning
    return f"{type(error).__name__}: {(text.splitlines() or [''])[0]}"
