"""Recurrent networks: cells as they are, and whole layers as cells of linear layers."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from decomposition import Settings, run
from decomposition.chain import build_chain
from decomposition.curvature.jacobian import per_example_gradients
from decomposition.errors import UnsupportedModelError
from decomposition.layers import (
    ElementaryOperations,
    LinearBlock,
    LinearRecurrence,
    find,
    with_linear_layers,
)
from decomposition.problem import Problem
from decomposition.retraining.initial import independent_start
from tests import general as cases
from tests.models import Applied
from tests.oracles import autograd
from tests.retraining.plain import RECIPE, with_recipe
from tests.retraining.test_batched import assert_equal_to_plain

SMALL = Settings(masks=8, second_order_masks=2, resamples=100, matrix_norms=False, lattice=False)
SHORT = replace(RECIPE, epochs=2, batch_size=3)

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


@settings(max_examples=12)
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


@settings(max_examples=8)
@given(problem=cells)
def test_many_copies_of_a_cell_are_trained_as_one_is(problem: Problem) -> None:
    assert_equal_to_plain(with_recipe(problem, SHORT), examples=5)


@pytest.mark.parametrize("kind", KINDS)
def test_a_cell_without_a_state_comes_to_the_end_of_a_run(kind: str) -> None:
    problem = with_recipe(recurrent(kind, True, 2, 3, 4, False), SHORT)
    assert "shares" in run(problem, settings=SMALL, progress=False).children


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


LAYERS = {
    "LSTM": nn.LSTM,
    "GRU": nn.GRU,
    "RNN": nn.RNN,
    "ReLU": lambda *args, **options: nn.RNN(*args, nonlinearity="relu", **options),
}
options = st.fixed_dictionaries(
    {
        "num_layers": st.integers(1, 2),
        "bias": st.booleans(),
        "batch_first": st.booleans(),
        "bidirectional": st.booleans(),
        "proj_size": st.sampled_from([0, 2]),
    }
)


@settings(max_examples=60)
@given(
    kind=st.sampled_from(list(LAYERS)),
    options=options,
    state=st.booleans(),
    alone=st.booleans(),
    steps=st.integers(1, 4),
)
def test_a_layer_of_linear_cells_is_the_same_function(
    kind: str, options: dict[str, int], state: bool, alone: bool, steps: int
) -> None:
    if kind != "LSTM":
        assume(not options["proj_size"])
        options = {key: value for key, value in options.items() if key != "proj_size"}
    layer = LAYERS[kind](3, 4, **options).double()
    shape = (steps, 3) if alone else (2, steps, 3) if options["batch_first"] else (steps, 2, 3)
    x = cases.normal(*shape)
    of_state = options["num_layers"] * (1 + options["bidirectional"]), *(() if alone else (2,))
    h = cases.normal(*of_state, options.get("proj_size") or 4, seed=1)
    given_state = (h, cases.normal(*of_state, 4, seed=2)) if kind == "LSTM" else h
    inputs = (x, given_state) if state else (x,)
    torch.testing.assert_close(
        with_linear_layers(layer)(*inputs), layer(*inputs), rtol=1e-12, atol=1e-12
    )


@pytest.mark.parametrize("alone", [True, False])
@pytest.mark.parametrize("state", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_a_cell_of_linear_layers_is_the_same_function(kind: str, state: bool, alone: bool) -> None:
    cell = KINDS[kind](2, 3, bias=True).double()
    x, h = (cases.normal(2), cases.normal(3)) if alone else (cases.normal(5, 2), cases.normal(5, 3))
    inputs = (x, (h, 2 * h) if kind == "LSTM" else h) if state else (x,)
    torch.testing.assert_close(
        with_linear_layers(cell)(*inputs), cell(*inputs), rtol=1e-13, atol=1e-15
    )


def read(model: nn.Module, x: Tensor, lengths: Tensor | None = None) -> Tensor:
    """The outputs at the last step, or at that of each example, and ``out`` of them."""
    model.layer.flatten_parameters()
    h = model.layer(x if model.layer.batch_first else x.transpose(0, 1))[0]
    h = h if model.layer.batch_first else h.transpose(0, 1)
    return model.out(h[:, -1] if lengths is None else h[torch.arange(len(h)), lengths - 1])


def sequences(kind: str, convert: bool, steps: int = 3, **options: int) -> Problem:
    def build() -> nn.Module:
        layer = LAYERS[kind](2, 3, **options)
        width = (options.get("proj_size") or 3) * (1 + options.get("bidirectional", False))
        model = Applied(read, layer=layer, out=nn.Linear(width, 1))
        return with_linear_layers(model) if convert else model

    return cases.regression(build, cases.images(steps, 2), 1)


@settings(max_examples=7)
@given(kind=st.sampled_from(list(LAYERS)), options=options, steps=st.integers(2, 3))
def test_its_maps_have_kronecker_blocks_and_its_curvature_is_that_of_plain_double_backward(
    kind: str, options: dict[str, int], steps: int
) -> None:
    """Examples come first where maps are called, also with ``batch_first=False``."""
    if kind != "LSTM":
        options = {key: value for key, value in options.items() if key != "proj_size"}
    problem = sequences(kind, True, steps, **options)
    assert all(isinstance(block, LinearBlock) for block in problem.blocks)
    assert problem.notes == ()
    chain = build_chain(problem)
    close(chain["hessian"].dense(), autograd.double_backward(problem))
    close(chain["ggn"].dense(), autograd.ggn(problem, plain=True))
    total = chain["block_ggn"].trace()
    assert chain["ekfac"].trace() == pytest.approx(total, rel=1e-12)


@pytest.mark.parametrize("kind", LAYERS)
def test_many_copies_of_it_are_trained_as_one_is(kind: str) -> None:
    converted = with_recipe(sequences(kind, True, num_layers=2, bidirectional=True), SHORT)
    assert_equal_to_plain(converted, examples=5)


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_the_refusal_of_a_layer_names_ways_out_that_lead_to_a_run(
    kind: str, batch_first: bool
) -> None:
    message = (
        rf"block layer \({kind}\) .*layers\.with_linear_layers\(model\).*torch\.nn\.{kind}Cell"
    )
    with pytest.raises(UnsupportedModelError, match=message):
        sequences(kind, False, batch_first=batch_first)
    problem = with_recipe(sequences(kind, True, batch_first=batch_first), SHORT)
    assert "shares" in run(problem, settings=SMALL, progress=False).children


def test_a_frozen_layer_is_retrained_in_the_copy_that_its_refusal_names() -> None:
    """Its curvature needs no copy: the layer is a constant function there."""
    model = Applied(read, layer=nn.LSTM(2, 3).requires_grad_(False), out=nn.Linear(3, 3))
    one = with_recipe(cases.study(lambda: model, cases.images(3, 2)), SHORT)
    with pytest.raises(
        UnsupportedModelError, match=r"layer \(LSTM\) .*with_linear_layers\(model\)"
    ):
        run(one, settings=SMALL, progress=False)
    other = replace(one, model=with_linear_layers(one.model))
    close(build_chain(other)["hessian"].dense(), build_chain(one)["hessian"].dense(), 1e-12)
    assert "shares" in run(other, settings=SMALL, progress=False).children


def test_large_cells_are_refused_and_linear_in_a_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(find, "EXACT_LIMIT", 40)
    build = lambda: recurrent("GRU", True, 2, 3, 3, False)  # noqa: E731
    message = r"block cell \(GRUCell\) has 63 parameters .*layers\.with_linear_layers\(model\)"
    with pytest.raises(UnsupportedModelError, match=message):
        build()
    monkeypatch.undo()
    given_problem = build()
    (note,) = (note for note in given_problem.notes if "with_linear_layers(model)" in note)
    assert note.startswith("cell: ")
    monkeypatch.setattr(find, "EXACT_LIMIT", 40)
    problem = replace(given_problem, model=with_linear_layers(given_problem.model))
    assert [block.name for block in problem.blocks] == ["cell.ih", "cell.hh", "out"]
    close(build_chain(problem)["hessian"].dense(), autograd.double_backward(problem))


def test_packed_sequences_are_refused_and_their_last_steps_read_instead() -> None:
    lengths = 1 + torch.arange(cases.N + cases.QUERIES) % 3

    def packed(model: nn.Module, x: Tensor, lengths: Tensor) -> Tensor:
        pack = nn.utils.rnn.pack_padded_sequence
        h = pack(x, lengths, batch_first=True, enforce_sorted=False)
        return model.out(model.layer(h)[1][-1])

    def build(forward: object) -> nn.Module:
        layer = nn.GRU(2, 3, batch_first=True)
        return with_linear_layers(Applied(forward, layer=layer, out=nn.Linear(3, 3)))  # pyright: ignore[reportArgumentType]

    x = (cases.images(3, 2), lengths)
    with pytest.raises(UnsupportedModelError, match=r"packed .*outputs\[.*, lengths - 1\]"):
        cases.study(lambda: build(packed), x)
    problem = with_recipe(cases.study(lambda: build(read), x), SHORT)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layer, out = nn.GRU(2, 3, batch_first=True).double(), nn.Linear(3, 3).double()
    h = nn.utils.rnn.pack_padded_sequence(x[0], lengths, batch_first=True, enforce_sorted=False)
    expected = out(layer(h)[1][-1])[: cases.N]
    torch.testing.assert_close(problem.model(*problem.train[0]), expected, rtol=1e-12, atol=1e-12)
    assert "shares" in run(problem, settings=SMALL, progress=False).children


def test_dropout_between_layers_is_refused_until_it_is_zero() -> None:
    model = with_linear_layers(
        Applied(read, layer=nn.GRU(2, 3, 2, dropout=0.3, batch_first=True), out=nn.Linear(3, 3))
    )
    with pytest.raises(UnsupportedModelError, match=r"layer.dropout is Dropout\(p=0.3\).*set p=0"):
        cases.study(lambda: model, cases.images(3, 2))
    model.layer.dropout.p = 0.0
    assert cases.study(lambda: model, cases.images(3, 2)).notes == ()


def test_what_is_frozen_or_shared_or_in_training_stays_so() -> None:
    layer = nn.LSTM(2, 2)
    layer.weight_hh_l0.requires_grad_(False)
    with torch.no_grad():
        found = with_linear_layers(nn.Sequential(layer, nn.Sequential(layer)).train())
    assert isinstance(found[0], LinearRecurrence)
    assert found[0] is found[1][0]
    assert found[0].training
    assert [name for name, p in found[0].named_parameters() if not p.requires_grad] == [
        "cells.0.hh.weight"
    ]


def test_tied_layers_are_refused() -> None:
    model = nn.Sequential(nn.GRU(2, 2), nn.GRU(2, 2))
    model[1].weight_ih_l0 = model[0].weight_ih_l0
    with pytest.raises(UnsupportedModelError, match="0 is GRU whose parameters another module"):
        with_linear_layers(model)


def test_a_subclass_with_a_forward_pass_of_its_own_stays_what_it_is() -> None:
    class Reversed(nn.GRU):
        def forward(self, input: Tensor) -> tuple[Tensor, Tensor]:  # pyright: ignore
            return super().forward(input.flip(1))

    model = Applied(read, layer=Reversed(2, 3, batch_first=True), out=nn.Linear(3, 3))
    assert isinstance(with_linear_layers(model).layer, Reversed)
    with pytest.raises(UnsupportedModelError, match=r"has no rule for: call torch\.nn\.GRUCell"):
        cases.study(lambda: model, cases.images(3, 2))


def test_its_maps_start_afresh_as_those_of_the_layer() -> None:
    """Within 1/√(hidden size), whatever the size of the input."""
    start = independent_start(with_linear_layers(nn.LSTM(2, 400)), 0, 0, 0)
    assert len(start) == 4
    for value in start.values():
        assert 0.045 < float(value.abs().max()) <= 0.05
