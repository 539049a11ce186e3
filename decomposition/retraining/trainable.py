"""Which parameters are trained."""

from __future__ import annotations

from torch import nn


def trainable_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Parameters with ``requires_grad``, in ``named_parameters()`` order, tied ones once."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}
