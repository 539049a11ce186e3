"""Recurrent networks: cells as they are, and whole layers as cells of linear layers."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from decomposition.chain import build_chain
from decomposition.curvature.rows import per_example_gradients
from decomposition.layers import ElementaryOperations
from decomposition.problem import Problem
from tests import general as cases
from tests.models import Applied
from tests.oracles import autograd

KINDS = {
    "LSTM": nn.LSTMCell,
    "GRU": nn.GRUCell,
    "RNN": nn.RNNCell,
    "ReLU": lambda *sizes, bias: nn.RNNCell(*sizes, bias, nonlinearity="relu"),
}


def recurrent(kind: str, bias: bool, d_in: int, width: int, steps: int, state: bool) -> Problem:
    """A cell called step by step from zeros: its own, or those of the model."""

    def forward(model: nn.Module, x: Tensor) -> Tensor:
        h = None
        if state:
            zeros = torch.zeros(len(x), width, dtype=x.dtype)
            h = (zeros, zeros) if kind == "LSTM" else zeros
        for part in x.unbind(1):
            h = model.cell(part, h)
        return model.out(h[0] if isinstance(h, tuple) else h)

    def build() -> nn.Module:
        return Applied(
            forward, cell=KINDS[kind](d_in, width, bias=bias), out=nn.Linear(width, cases.CLASSES)
        )

    return cases.study(build, cases.images(steps, d_in))


cells = st.builds(
    recurrent,
    st.sampled_from(list(KINDS)),
    st.booleans(),
    st.integers(1, 3),
    st.integers(1, 3),
    st.integers(2, 4),
    st.booleans(),
)


def close(found: Tensor, expected: Tensor, tolerance: float = 1e-9) -> None:
    scale = float(expected.abs().max())
    torch.testing.assert_close(found, expected, rtol=0, atol=tolerance * scale)


@settings(max_examples=25)
@given(problem=cells)
def test_the_curvature_of_a_cell_is_that_of_plain_double_backward(problem: Problem) -> None:
    chain = build_chain(problem)
    close(chain["hessian"].dense(), autograd.double_backward(problem))
    ggn = autograd.ggn(problem, plain=True)
    close(chain["ggn"].dense(), ggn)
    cell = problem.blocks[0].slice  # the exact block stands in
    close(chain["kfac"].diagonal_blocks()["cell"].dense(), ggn[cell, cell])
    mean = autograd.gradient(problem, problem.double_model(), problem.theta())
    close(per_example_gradients(problem, *problem.train).mean(0), mean, 1e-12)


@settings(max_examples=20)
@given(
    kind=st.sampled_from(list(KINDS)),
    bias=st.booleans(),
    batch=st.sampled_from([(), (1,), (4,)]),
    state=st.booleans(),
)
def test_a_cell_in_elementary_operations_is_the_same_function(
    kind: str, bias: bool, batch: tuple[int, ...], state: bool
) -> None:
    cell = KINDS[kind](2, 3, bias=bias).double()
    h = cases.normal(*batch, 3, seed=1)
    given_state = None if not state else (h, h + 1) if kind == "LSTM" else h
    x = cases.normal(*batch, 2)
    with ElementaryOperations():
        found = cell(x, given_state)
    torch.testing.assert_close(found, cell(x, given_state), rtol=1e-13, atol=1e-15)
