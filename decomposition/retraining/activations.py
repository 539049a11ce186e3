"""How much a forward pass keeps for its backward pass."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from decomposition.inputs import Inputs, apply, double, take

ROWS = 2


def numbers_per_example(model: nn.Module, rows: Inputs) -> int:
    """Numbers that autograd saves for one example, its parameters and buffers left out."""
    reference = copy.deepcopy(model).double().eval()
    own = {t.untyped_storage().data_ptr() for t in (*reference.parameters(), *reference.buffers())}
    saved: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        where = tensor.untyped_storage().data_ptr()
        if where not in own:
            saved[where] = max(saved.get(where, 0), tensor.numel())
        return tensor

    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(keep, lambda kept: kept):
        outputs = apply(reference, double(take(rows, slice(0, ROWS))))
    return (sum(saved.values()) + outputs.numel()) // len(outputs)
