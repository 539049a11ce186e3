"""Attention by plain products: torch's fused kernels have no batched form for ``vmap``."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode


class PlainAttention(TorchFunctionMode):
    """Within it ``scaled_dot_product_attention`` is softmax(QKᵀ/√d) V, by products."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Change that one function; every other runs as it is."""
        if func is nn.functional.scaled_dot_product_attention:
            plain = torch.ops.aten._scaled_dot_product_attention_math
            return plain(*args, **(kwargs or {}))[0]
        return func(*args, **(kwargs or {}))


def unfuse_attention(module: nn.Module) -> None:
    """Have torch's own attention modules, in evaluation mode, use products too, in place."""
    for part in module.modules():
        if isinstance(part, nn.MultiheadAttention):
            part.dropout = 0.0  # what evaluation mode does
            part.training = True
            part.register_forward_pre_hook(_ask_for_weights, with_kwargs=True)
        elif isinstance(part, nn.TransformerEncoderLayer):
            part.training = True  # its dropout modules are in evaluation mode


def _ask_for_weights(_: nn.Module, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict]:
    """The weights of the heads are to hand only where products make them."""
    return args[:4], kwargs | dict(zip(("need_weights", "attn_mask"), args[4:], strict=False)) | {
        "need_weights": True
    }
