"""What becomes of every module: a linear block, an exact one, or an error."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from decomposition.chain import build_chain
from decomposition.errors import UnsupportedModelError
from decomposition.layers import Block, ExactBlock, LinearBlock, find
from decomposition.problem import Problem
from tests import cases, general
from tests.models import Applied

PLAIN = "a stack of linear layers"
KINDS: dict[str, dict[str, str | None]] = {
    "conv2d_strided": {"0": None, "3": None},
    "conv2d_padded": {"0": None, "3": None},
    "conv2d_dilated": {"0": None, "3": None},
    "conv2d_same": {"0": None, "3": None},
    "conv2d_circular": {"0": None, "3": None},
    "conv2d_reflected": {"0": None, "3": None},
    "conv1d": {"0": None, "2": None, "5": None},
    "conv_grouped": {"0": None, "2": None, "5": None},
    "cnn": {"0": None, "1": "BatchNorm2d", "3": None, "7": None},
    "frames": {"conv": None, "out": None},
    "tagging": {"inner": None, "out": None},
    "image_to_image": {"0": None, "2": None},
    "sequence": {"first": None, "second": None, "out": None},
    "flattened": {"inner": None, "out": None},
    "time_major": {
        "inner": "its gradient is not that of one linear map of its inputs",
        "out": None,
    },
    "called_twice": {"inner": None, "out": None},
    "recurrent": {"cell": "LSTMCell", "out": None},
    "attention": {
        "norm": "LayerNorm",
        "query": None,
        "key": None,
        "value": None,
        "out": None,
        "head": None,
    },
    "tied": {"embedding": "tied to out.weight", "inner": None, "out": "bias of a Linear"},
    "embedding": {"token": "Embedding", "place": "Embedding", "out": None},
    "layer_norm": {"0": None, "1": "LayerNorm", "3": None, "4": "LayerNorm"},
    "batch_norm": {"0": None, "1": "BatchNorm1d", "3": None},
    "bias_only": {"0": "bias of a Linear", "2": "bias of a Linear"},
    "frozen": {"2": None, "4": None},
    "bare_parameters": {"model_": "Scaled", "model": None},
    "two_inputs": {"inner": None, "token": "Embedding", "out": None},
    "named_inputs": {"inner": None, "out": None},
}
"""Case → block → why there is no Kronecker form (None: there is one)."""


def reasons(blocks: tuple[Block, ...]) -> dict[str, str | None]:
    return {b.name: b.reason if isinstance(b, ExactBlock) else None for b in blocks}


def test_every_case_has_its_kinds_written_down() -> None:
    assert set(KINDS) == set(general.GENERAL)


@pytest.mark.parametrize("case", KINDS)
def test_kinds_of_blocks(case: str) -> None:
    problem = general.GENERAL[case]()
    assert reasons(problem.blocks) == KINDS[case]
    assert not problem.plain


@pytest.mark.parametrize("case", list(cases.CASES))
def test_stacks_of_linear_layers_are_plain(case: str) -> None:
    problem = cases.CASES[case]()
    assert problem.plain
    assert problem.notes == ()


def test_widths_of_a_convolution() -> None:
    block = general.conv2d_strided().blocks[0]
    assert isinstance(block, LinearBlock)
    assert (block.d_in, block.d_out, block.width, block.size) == (2 * 3 * 3, 3, 19, 57)


def time_major(model: nn.Module, x: Tensor) -> Tensor:
    return model.out(torch.tanh(model.inner(x.transpose(0, 1))).mean(0))


def test_rows_that_are_no_examples_do_not_hide_behind_an_output_layer_at_zero() -> None:
    """All gradients of the inner layer are zero there, and linear or not is not to be seen."""

    def build() -> nn.Module:
        model = Applied(time_major, inner=nn.Linear(4, 5), out=nn.Linear(5, 3))
        nn.init.zeros_(model.out.weight)
        return model

    problem = general.study(build, general.images(general.T, 4))
    assert isinstance(problem.blocks[0], ExactBlock)


def test_rows_that_are_no_examples_do_not_hide_behind_equal_examples() -> None:
    x = general.images(general.T, 4)
    x[:6] = x[0]
    problem = general.study(
        lambda: Applied(time_major, inner=nn.Linear(4, 5), out=nn.Linear(5, 3)), x
    )
    assert isinstance(problem.blocks[0], ExactBlock)


def test_parameters_that_allow_no_other_are_tried_as_they_are() -> None:
    """Outputs that are not finite a step away: blocks are found at the parameters themselves."""

    def forward(model: nn.Module, x: Tensor) -> Tensor:
        return model.out(x) * (1.0 - model.gate[0].norm()).sqrt().detach()

    def build() -> nn.Module:
        model = Applied(forward, out=nn.Linear(4, 3), gate=nn.ParameterList([torch.ones(1)]))
        model.gate[0].requires_grad_(False)
        return model

    assert reasons(general.study(build, general.images(4)).blocks) == {"out": None}

    def root(model: nn.Module, x: Tensor) -> Tensor:
        return model.out(x) * torch.sqrt(1.05 - model.gate[0])

    def near_the_edge() -> nn.Module:
        return Applied(root, out=nn.Linear(4, 3), gate=nn.ParameterList([torch.ones(1)]))

    found = reasons(general.study(near_the_edge, general.images(4)).blocks)
    assert found == {"out": None, "gate": "ParameterList"}


class TwiceAsLarge(nn.Linear):
    """A layer whose forward pass is not x Wᵀ + b."""

    def forward(self, input: Tensor) -> Tensor:
        return 2.0 * super().forward(input)


class BiasFirst(nn.Linear):
    """A layer whose bias is registered before its weight."""

    def __init__(self) -> None:
        super().__init__(4, 3)
        self._parameters["weight"] = self._parameters.pop("weight")


def hooked() -> nn.Module:
    layer = nn.Linear(4, 3)
    layer.register_forward_hook(lambda module, args, output: output.square())
    return nn.Sequential(layer)


def half_frozen() -> nn.Module:
    layer = nn.Linear(4, 3)
    layer.weight.requires_grad_(False)
    return nn.Sequential(nn.Linear(4, 4), layer)


def tied_layers() -> nn.Module:
    model = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4))
    model[2].weight = model[0].weight
    return model


NOT_LINEAR = "its gradient is not that of one linear map of its inputs"
EXACT: dict[str, tuple[Callable[[], nn.Module], dict[str, str | None]]] = {
    "weight used outside the layer": (
        lambda: Applied(lambda m, x: m.layer(x) @ m.layer.weight, layer=nn.Linear(4, 4)),
        {"layer": NOT_LINEAR},
    ),
    "used functionally": (
        lambda: Applied(lambda m, x: x @ m.layer.weight.T + m.layer.bias, layer=nn.Linear(4, 3)),
        {"layer": "its parameters are used, but not by calling it"},
    ),
    "forward pass of its own": (
        lambda: nn.Sequential(TwiceAsLarge(4, 3)),
        {"0": NOT_LINEAR},
    ),
    "hook that changes the output": (hooked, {"0": NOT_LINEAR}),
    "bias registered first": (
        lambda: nn.Sequential(BiasFirst()),
        {"0": "bias, weight of a BiasFirst"},
    ),
    "frozen weight": (half_frozen, {"0": None, "1": "bias of a Linear"}),
    "tied": (tied_layers, {"0": "tied to 2.weight", "2": "bias of a Linear"}),
    "transposed convolution": (
        lambda: nn.Sequential(
            nn.Unflatten(1, (1, 4)), nn.ConvTranspose1d(1, 1, 2), nn.Flatten(), nn.Linear(5, 3)
        ),
        {"1": "ConvTranspose1d", "3": None},
    ),
    "attention of PyTorch": (
        lambda: Applied(
            lambda m, x: m.out(m.attend(*[x.unflatten(1, (2, 2))] * 3)[0].flatten(1)),
            attend=nn.MultiheadAttention(2, 1, batch_first=True),
            out=nn.Linear(4, 3),
        ),
        {
            "attend": "MultiheadAttention",
            "attend.out_proj": "its parameters are used, but not by calling it",
            "out": None,
        },
    ),
    "example by example": (
        lambda: Applied(
            lambda m, x: m.out(torch.stack([m.inner(one) for one in x])),
            inner=nn.Linear(4, 3),
            out=nn.Linear(3, 3),
        ),
        {"inner": NOT_LINEAR, "out": None},
    ),
    "called with a keyword": (
        lambda: Applied(lambda m, x: m.layer(input=x), layer=nn.Linear(4, 3)),
        {"layer": None},
    ),
}


@pytest.mark.parametrize("case", EXACT)
def test_what_is_not_a_linear_map_gets_an_exact_block(case: str) -> None:
    """And the chain is built on it: the block of K-FAC is the block of the GGN."""
    build, expected = EXACT[case]
    outputs = 4 if case in ("weight used outside the layer", "tied") else 3
    problem = general.study(build, general.images(4), outputs)
    assert reasons(problem.blocks) == expected
    chain = build_chain(problem)
    for block in problem.blocks:
        if isinstance(block, ExactBlock):
            exact = chain["ggn"].dense()[block.slice, block.slice]
            found = chain["kfac"].diagonal_blocks()[block.name].dense()
            torch.testing.assert_close(found, exact, rtol=0, atol=1e-14)
            assert block.note in problem.notes


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_parameters_of_any_real_precision_are_welcome(dtype: torch.dtype) -> None:
    base = general.conv1d()
    problem = Problem(base.double_model().to(dtype), base.loss, base.train, base.query)
    assert problem.theta().dtype == torch.float64
    assert build_chain(problem)["ekfac"].dense().dtype == torch.float64


def test_notes_say_what_is_left_out() -> None:
    assert any("30 frozen parameters" in n or "frozen parameters" in n for n in _notes("frozen"))
    assert any("BatchNorm1d) runs in evaluation mode" in note for note in _notes("batch_norm"))


def _notes(case: str) -> tuple[str, ...]:
    return general.GENERAL[case]().notes


def test_frozen_parameters_are_counted_and_named() -> None:
    (note,) = _notes("frozen")
    assert note == ("35 frozen parameters are no part of the curvature: 0.weight, 0.bias, 2.bias")


def test_a_large_block_without_a_kronecker_form_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(find, "EXACT_LIMIT", 9)
    message = r"block 1 \(LayerNorm\) has 10 parameters and no Kronecker form.* up to 9"
    with pytest.raises(UnsupportedModelError, match=message):
        general.layer_norm()


def tokens_of(embedding: nn.Embedding) -> None:
    general.study(
        lambda: Applied(
            lambda m, x: m.out(torch.tanh(m.token(x)).mean(1)),
            token=embedding,
            out=nn.Linear(3, general.CLASSES),
        ),
        general.tokens(general.N + general.QUERIES, general.T, below=6),
    )


CHANGED_EMBEDDINGS = {
    "max_norm=1.0: .*; set max_norm=None": {"max_norm": 1.0},
    "scale_grad_by_freq=True: .*; set scale_grad_by_freq=False": {"scale_grad_by_freq": True},
}


@pytest.mark.parametrize("reason", CHANGED_EMBEDDINGS)
@pytest.mark.parametrize("kind", [nn.Embedding, nn.EmbeddingBag])
def test_embeddings_whose_gradient_is_not_the_loss_s_are_refused(kind: type, reason: str) -> None:
    with pytest.raises(UnsupportedModelError, match=rf"token \({kind.__name__}\) has {reason}"):
        tokens_of(kind(6, 3, **CHANGED_EMBEDDINGS[reason]))


def test_large_embeddings_that_are_no_linear_map_are_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(find, "EXACT_LIMIT", 10)
    monkeypatch.setattr(find, "ONE_HOT_LIMIT", 5)
    message = r"block token \(Embedding of 6 tokens\) has 18 parameters .*for at most 5 tokens"
    with pytest.raises(UnsupportedModelError, match=message):
        tokens_of(nn.Embedding(6, 3))


def test_a_table_of_positions_has_no_examples_in_its_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not as ``place(arange(T))``: the way out is to expand the positions to every example."""
    monkeypatch.setattr(find, "EXACT_LIMIT", 8)
    message = r"block place .* has 9 parameters .*torch\.arange\(T\)\.expand\(len\(x\), T\)"
    with pytest.raises(UnsupportedModelError, match=message):
        general.embedding()

    def forward(model: nn.Module, x: Tensor) -> Tensor:
        places = torch.arange(general.T).expand(len(x), general.T)
        return model.out(torch.tanh(model.token(x) + model.place(places)).flatten(1))

    def build() -> nn.Module:
        return Applied(
            forward,
            token=nn.Embedding(6, 3),
            place=nn.Embedding(general.T, 3),
            out=nn.Linear(3 * general.T, general.CLASSES),
        )

    x = general.tokens(general.N + general.QUERIES, general.T, below=6)
    assert reasons(general.study(build, x).blocks) == {"token": None, "place": None, "out": None}


class Recurrent(nn.Module):
    """A recurrent layer, or its cell step by step, read off the last position."""

    def __init__(self, kind: type[nn.Module]) -> None:
        super().__init__()
        self.kind, self.layer, self.out = kind, kind(2, 4), nn.Linear(4, general.CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        if issubclass(self.kind, nn.RNNBase):
            return self.out(self.layer(x.transpose(0, 1))[0][-1])
        h = x.new_zeros(len(x), 4)
        state = (h, h) if self.kind is nn.LSTMCell else h
        for part in x.unbind(1):
            state = self.layer(part, state)
        return self.out(state[0] if isinstance(state, tuple) else state)


@pytest.mark.parametrize("kind", ["RNN", "GRU", "LSTM"])
def test_recurrent_layers_are_refused_and_their_cells_are_not(kind: str) -> None:
    x = general.images(general.T, 2)
    message = rf"block layer \({kind}\) .* call torch\.nn\.{kind}Cell step by step"
    with pytest.raises(UnsupportedModelError, match=message):
        general.study(lambda: Recurrent(getattr(nn, kind)), x)
    problem = general.study(lambda: Recurrent(getattr(nn, f"{kind}Cell")), x)
    assert reasons(problem.blocks) == {"layer": f"{kind}Cell", "out": None}
    assert build_chain(problem)["hessian"].dense().isfinite().all()


def test_a_frozen_model_is_refused() -> None:
    with pytest.raises(UnsupportedModelError, match=r"no trainable parameters: all are frozen"):
        general.study(lambda: nn.Linear(4, 3).requires_grad_(False), general.images(4))
