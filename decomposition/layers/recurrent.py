"""Recurrent layers and cells whose maps are layers that are called, step by step.

torch.nn.LSTM, GRU and RNN run in fused kernels without a rule for ``torch.func.vmap``, and their
cells read their weights without calling anything. The same functions of ``torch.nn.Linear`` layers
can be differentiated in every way, and their weights have a Kronecker form: that of one layer at
all steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from decomposition.elementary import GATES, State
from decomposition.errors import UnsupportedModelError
from decomposition.layers.positions import linear

WEIGHTS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr")
"""Of a cell, and of a layer's direction with a suffix."""
LAYERS = (nn.LSTM, nn.GRU, nn.RNN)
CELLS = (nn.LSTMCell, nn.GRUCell, nn.RNNCell)


def linear_recurrence(part: nn.Module, name: str, tied: bool) -> nn.Module | None:
    """What takes the place of a recurrent module; nothing for others, or a forward of their own.

    Raises:
        UnsupportedModelError: its parameters are tied.
    """
    kinds = [kind for kind in LAYERS + CELLS if type(part).forward is kind.forward]
    if not kinds:
        return None
    if tied:
        raise UnsupportedModelError(
            f"{name} is {kinds[0].__name__} whose parameters another module holds too: its maps "
            "would not be tied any longer; share the module, or untie them"
        )
    if isinstance(part, nn.RNNBase):
        return LinearRecurrence(part)
    mode = kinds[0].__name__.removesuffix("Cell")
    mode = mode if mode != "RNN" else f"RNN_{part.nonlinearity}".upper()
    return LinearCell(mode, [getattr(part, key, None) for key in WEIGHTS]).train(part.training)


class RecurrentLinear(nn.Linear):
    """A layer that is initialised as those of torch's recurrent modules."""

    def __init__(self, weight: Tensor, bias: Tensor | None, spread: float) -> None:
        """Take over copies of these parameters."""
        self.spread = spread
        super().__init__(weight.shape[1], weight.shape[0], bias is not None, device="meta")
        copied = linear(weight, bias)
        self.weight, self.bias = copied.weight, copied.bias

    def reset_parameters(self) -> None:
        """Uniformly within ±1/√(hidden size)."""
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -self.spread, self.spread)


class LinearCell(nn.Module):
    """A torch.nn.LSTMCell, GRUCell or RNNCell of two torch.nn.Linear layers, ``ih`` and ``hh``.

    The cell of an LSTM with ``proj_size`` has a third, ``hr``.
    """

    def __init__(self, mode: str, weights: Sequence[Tensor | None]) -> None:
        """Take over copies of a cell's parameters, in the order of ``WEIGHTS``."""
        super().__init__()
        w_ih, w_hh, b_ih, b_hh, w_hr = weights
        assert w_ih is not None
        assert w_hh is not None
        self.mode, self.input_size = mode, w_ih.shape[1]
        self.hidden_size = len(w_hh) // {"LSTM": 4, "GRU": 3}.get(mode, 1)
        spread = self.hidden_size**-0.5
        self.ih, self.hh = RecurrentLinear(w_ih, b_ih, spread), RecurrentLinear(w_hh, b_hh, spread)
        self.hr = None if w_hr is None else RecurrentLinear(w_hr, None, spread)

    def forward(self, input: Tensor, hx: Tensor | State | None = None) -> Tensor | State:
        """The next state: h, or (h, c) of an LSTM; from zeros if there is none."""
        alone = input.ndim == 1
        x = input[None] if alone else input
        state = self.zeros(x)
        if hx is not None:
            given = (hx,) if isinstance(hx, Tensor) else hx
            state = tuple(part[None] if alone else part for part in given)
        state = self.step(self.ih(x), state)
        state = tuple(part[0] for part in state) if alone else state
        return state if self.mode == "LSTM" else state[0]

    def zeros(self, x: Tensor) -> State:
        """The state before the first step of the examples x (n, …)."""
        h = x.new_zeros(len(x), self.hh.in_features)
        return (h, x.new_zeros(len(x), self.hidden_size)) if self.mode == "LSTM" else (h,)

    def step(self, z: Float[Tensor, "n gates"], state: State) -> State:
        """The next state, z = ih(x) being what the input adds to the gates."""
        state = GATES[self.mode](z, self.hh(state[0]), state)
        return state if self.hr is None else (self.hr(state[0]), *state[1:])

    def run(
        self, x: Float[Tensor, "n T d_in"], state: State, backwards: bool
    ) -> tuple[Float[Tensor, "n T d_out"], State]:
        """Outputs of all steps, the input's map being called once for all of them, and a state."""
        steps, outputs = list(self.ih(x).unbind(1)), []
        for z in reversed(steps) if backwards else steps:
            state = self.step(z, state)
            outputs.append(state[0])
        return torch.stack(outputs[::-1] if backwards else outputs, 1), state


class LinearRecurrence(nn.Module):
    """A torch.nn.LSTM, GRU or RNN as cells of torch.nn.Linear layers.

    ``cells`` lie as torch's states do: layer by layer, forwards before backwards.
    """

    def __init__(self, layer: nn.RNNBase) -> None:
        """Take over a layer's parameters, copied, and its options."""
        super().__init__()
        self.mode, self.batch_first = layer.mode, layer.batch_first
        self.input_size, self.hidden_size = layer.input_size, layer.hidden_size
        self.num_layers, self.proj_size = layer.num_layers, layer.proj_size
        self.bidirectional, self.bias = layer.bidirectional, layer.bias
        self.directions = ("", "_reverse") if layer.bidirectional else ("",)
        self.cells = nn.ModuleList(
            LinearCell(layer.mode, [getattr(layer, f"{key}_l{k}{way}", None) for key in WEIGHTS])
            for k in range(layer.num_layers)
            for way in self.directions
        )
        self.dropout = nn.Dropout(layer.dropout if layer.num_layers > 1 else 0.0)
        self.train(layer.training)

    def flatten_parameters(self) -> None:
        """What models call before torch's kernels; there is nothing to do."""

    def forward(
        self, input: Tensor, hx: Tensor | State | None = None
    ) -> tuple[Tensor, Tensor | State]:
        """Outputs in the layout of the input and the last states, as torch has them.

        With ``batch_first=False`` examples come second, and first again where maps are called.

        Raises:
            UnsupportedModelError: a packed sequence.
        """
        if isinstance(input, PackedSequence):
            raise UnsupportedModelError(
                "packed sequences have no batched form: give a recurrent layer the padded ones, "
                "and read its outputs, of one direction, at every example's last step, "
                "outputs[torch.arange(len(outputs)), lengths - 1]"
            )
        alone = input.ndim == 2
        x = input[None] if alone else input if self.batch_first else input.transpose(0, 1)
        given = None if hx is None else (hx,) if isinstance(hx, Tensor) else hx
        last: list[State] = []
        while len(last) < len(self.cells):
            if last:
                x = self.dropout(x)
            runs = []
            for way in self.directions:
                cell = cast(LinearCell, self.cells[len(last)])
                state = cell.zeros(x)
                if given is not None:
                    state = tuple(part[len(last)] for part in given)
                    state = tuple(part[None] if alone else part for part in state)
                outputs, state = cell.run(x, state, bool(way))
                runs.append(outputs)
                last.append(state)
            x = torch.cat(runs, -1)
        final = tuple(torch.stack(parts) for parts in zip(*last, strict=True))
        if alone:
            x, final = x[0], tuple(part[:, 0] for part in final)
        elif not self.batch_first:
            x = x.transpose(0, 1)
        return x, final if self.mode == "LSTM" else final[0]
