"""Functions that PyTorch does not differentiate in every way alike, in operations that it does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode


class ElementaryOperations(TorchFunctionMode):
    """Within it PReLU, weight norms, recurrent cells and Embedding's padding are elementary.

    PyTorch 2.13's derivative of ``prelu``, vectorised over examples and over columns within each,
    fails, or is wrong where there are as many columns as examples. The token at ``padding_idx``
    has no gradient, but in forward mode it has a tangent: here it is a constant in either. The
    second derivative of the fused ``_weight_norm`` lacks a part under ``torch.func``. Recurrent
    cells add in place, which fails where ``vmap`` has batched one summand alone: the state of zeros
    that a cell makes when it is called without one depends on nothing.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Change these functions; every other runs as it is."""
        if func in (torch.prelu, torch.Tensor.prelu):
            func = _prelu
        elif func is nn.functional.embedding:
            func = _embedding
        elif func is torch._weight_norm:  # pyright: ignore[reportPrivateImportUsage]
            func = _weight_norm
        elif func in _CELLS:
            func = _CELLS[func]
        return func(*args, **(kwargs or {}))


def _prelu(input: Tensor, weight: Tensor) -> Tensor:
    """x where x > 0, w x elsewhere, with w of the channel."""
    by_channel = weight.view(-1, *(1,) * max(input.ndim - 2, 0))
    return torch.where(input > 0, input, by_channel * input)


def _embedding(
    input: Tensor, weight: Tensor, padding_idx: int | None = None, *options: Any, **named: Any
) -> Tensor:
    """Rows of the weight, of which that at ``padding_idx`` is a constant."""
    if padding_idx is not None:
        rows = torch.arange(len(weight), device=weight.device) == padding_idx % len(weight)
        weight = torch.where(rows[:, None], weight.detach(), weight)
    return nn.functional.embedding(input, weight, None, *options, **named)


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


_CELLS: dict[Any, Callable] = {
    torch.lstm_cell: _cell(GATES["LSTM"]),
    torch.gru_cell: _cell(GATES["GRU"]),
    torch.rnn_tanh_cell: _cell(GATES["RNN_TANH"]),
    torch.rnn_relu_cell: _cell(GATES["RNN_RELU"]),
}
