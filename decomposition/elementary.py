"""Functions that PyTorch does not differentiate in every way alike, in operations that it does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from decomposition.errors import UnsupportedModelError


class ElementaryOperations(TorchFunctionMode):
    """Within it functions that PyTorch differentiates or vectorises wrongly are elementary.

    Every forward pass runs in it (``inputs.call``), so that curvature, the stacks of retrained
    models and what is compared with them are one function:

    - ``prelu``: PyTorch 2.13's derivative, vectorised over examples and over columns within each,
      fails, or is wrong where there are as many columns as examples.
    - Embeddings: the row at ``padding_idx`` has no gradient, but in forward mode it has a tangent,
      and under ``vmap`` over parameters the rows of all copies but one have a gradient; here it is
      a constant. A bag has no batched form.
    - ``bilinear``: has no batched form.
    - Weight normalisation: the fused one's second derivative lacks a part under ``torch.func``.
    - Attention: fused kernels have no second derivative and no batched form.
    - Transformers without gradients: nested tensors and fused layers, which torch chooses only
      where no function is overridden, have no batched form.
    - Recurrent cells add in place, which fails where ``vmap`` has batched one summand alone: the
      state of zeros that a cell makes when it is called without one depends on nothing.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Change these functions; every other runs as it is."""
        if func in _ELEMENTARY:
            func = _ELEMENTARY[func]
        return func(*args, **(kwargs or {}))


def _prelu(input: Tensor, weight: Tensor) -> Tensor:
    """x where x > 0, w x elsewhere, with w of the channel."""
    by_channel = weight.view(-1, *(1,) * max(input.ndim - 2, 0))
    return torch.where(input > 0, input, by_channel * input)


def _embedding(
    input: Tensor,
    weight: Tensor,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Tensor:
    """Rows of the weight, of which that at ``padding_idx`` is a constant."""
    check_embedding("torch.nn.functional.embedding", max_norm, scale_grad_by_freq)
    return nn.functional.embedding(input, _with_constant_row(weight, padding_idx))


def _embedding_bag(
    input: Tensor,
    weight: Tensor,
    offsets: Tensor | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    mode: str = "mean",
    sparse: bool = False,
    per_sample_weights: Tensor | None = None,
    include_last_offset: bool = False,
    padding_idx: int | None = None,
) -> Tensor:
    """Sum, mean or maximum of the rows of (N, T) tokens, those at ``padding_idx`` left out."""
    check_embedding("torch.nn.functional.embedding_bag", max_norm, scale_grad_by_freq)
    if offsets is not None or input.ndim != 2 or input.shape[1] == 0:
        raise UnsupportedModelError(
            f"an embedding bag is given tokens of shape {tuple(input.shape)}"
            f"{' with offsets' if offsets is not None else ''}: give them as (N, T) without "
            "offsets, a row of T >= 1 tokens for every example, shorter ones filled with "
            "padding_idx"
        )
    if per_sample_weights is not None and mode != "sum":
        raise UnsupportedModelError(
            f"an embedding bag has per_sample_weights with mode={mode!r}: torch has them for "
            "mode='sum' alone"
        )
    rows = nn.functional.embedding(input, _with_constant_row(weight, padding_idx))
    real = torch.ones_like(input, dtype=torch.bool)
    if padding_idx is not None:
        real = input != padding_idx % len(weight)
    if mode == "max":
        found = rows.masked_fill(~real[..., None], -torch.inf).max(1).values
        return found.masked_fill(~real.any(1)[:, None], 0.0)
    weights = real.to(rows) if per_sample_weights is None else real * per_sample_weights
    total = (weights[..., None] * rows).sum(1)
    return total if mode == "sum" else total / real.sum(1).clamp(min=1)[:, None]


def check_embedding(where: str, max_norm: float | None, scale_grad_by_freq: bool) -> None:
    """Raise UnsupportedModelError where an embedding's gradient is not that of the loss."""
    if max_norm is not None:
        raise UnsupportedModelError(
            f"{where} has max_norm={max_norm}: it changes its weight in the forward pass, so that "
            "the loss is no function of it; set max_norm=None, and divide by the norms in forward "
            "if they are to be bounded"
        )
    if scale_grad_by_freq:
        raise UnsupportedModelError(
            f"{where} has scale_grad_by_freq=True: the gradient that it is trained with changes "
            "with the rest of the batch and is not that of the loss; set scale_grad_by_freq=False"
        )


def _with_constant_row(weight: Tensor, row: int | None) -> Tensor:
    if row is None:
        return weight
    rows = torch.arange(len(weight), device=weight.device) == row % len(weight)
    return torch.where(rows[:, None], weight.detach(), weight)


def _scaled_dot_product_attention(*args: Any, **kwargs: Any) -> Tensor:
    """softmax(QKᵀ/√d) V, by products."""
    return torch.ops.aten._scaled_dot_product_attention_math(*args, **kwargs)[0]


def _multi_head_attention(
    *args: Any, need_weights: bool = True, **kwargs: Any
) -> tuple[Tensor, Tensor | None]:
    """The same with its weights, which only products make."""
    found, weights = nn.functional.multi_head_attention_forward(*args, need_weights=True, **kwargs)
    return found, weights if need_weights else None


def _bilinear(input1: Tensor, input2: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """y_o = x₁ᵀ W_o x₂ + b_o."""
    found = torch.einsum("...i,oij,...j->...o", input1, weight, input2)
    return found if bias is None else found + bias


def _weight_norm(v: Tensor, g: Tensor, dim: int = 0) -> Tensor:
    """g v / ‖v‖, a norm for every index of ``dim``; −1: one norm of all."""
    axes = [axis for axis in range(v.ndim) if axis != dim]
    return v * (g / v.square().sum(axes, keepdim=True).sqrt())


State = tuple[Tensor, ...]
"""(h,), or (h, c) of an LSTM."""
Gates = Callable[[Tensor, Tensor, State], State]
"""What the maps of the input and of h give, and the state → the next state."""


def _lstm(x: Tensor, h: Tensor, state: State) -> State:
    i, f, g, o = (x + h).chunk(4, -1)
    c = f.sigmoid() * state[1] + i.sigmoid() * g.tanh()
    return o.sigmoid() * c.tanh(), c


def _gru(x: Tensor, h: Tensor, state: State) -> State:
    (r, z, n), (r_h, z_h, n_h) = x.chunk(3, -1), h.chunk(3, -1)
    n = (n + (r + r_h).sigmoid() * n_h).tanh()
    return (n + (z + z_h).sigmoid() * (state[0] - n),)


GATES: dict[str, Gates] = {
    "LSTM": _lstm,
    "GRU": _gru,
    "RNN_TANH": lambda x, h, _: ((x + h).tanh(),),
    "RNN_RELU": lambda x, h, _: ((x + h).relu(),),
}
"""By the mode of a torch.nn.RNNBase."""


def _cell(gates: Gates) -> Callable:
    def step(
        x: Tensor,
        state: Tensor | State,
        w_ih: Tensor,
        w_hh: Tensor,
        b_ih: Tensor | None = None,
        b_hh: Tensor | None = None,
    ) -> Tensor | State:
        states = (state,) if isinstance(state, Tensor) else state
        linear = nn.functional.linear
        new = gates(linear(x, w_ih, b_ih), linear(states[0], w_hh, b_hh), states)
        return new[0] if isinstance(state, Tensor) else new

    return step


_ELEMENTARY: dict[Any, Callable] = {
    torch.prelu: _prelu,
    torch.Tensor.prelu: _prelu,
    nn.functional.embedding: _embedding,
    nn.functional.embedding_bag: _embedding_bag,
    torch.bilinear: _bilinear,
    torch._weight_norm: _weight_norm,  # pyright: ignore[reportPrivateImportUsage]
    nn.functional.scaled_dot_product_attention: _scaled_dot_product_attention,
    nn.functional.multi_head_attention_forward: _multi_head_attention,
    getattr(torch, "_nested_tensor_from_mask_left_aligned"): lambda *_: False,  # noqa: B009
    torch.lstm_cell: _cell(GATES["LSTM"]),
    torch.gru_cell: _cell(GATES["GRU"]),
    torch.rnn_tanh_cell: _cell(GATES["RNN_TANH"]),
    torch.rnn_relu_cell: _cell(GATES["RNN_RELU"]),
}
