"""Attention with projections that are called: the same function, and Kronecker blocks."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from decomposition.chain import build_chain
from decomposition.curvature.assembly import assemble_hessian
from decomposition.errors import UnsupportedModelError
from decomposition.layers import (
    ExactBlock,
    LinearAttention,
    LinearBlock,
    find,
    with_linear_attention,
)
from decomposition.problem import Problem
from tests import general as cases
from tests.models import Applied
from tests.oracles import autograd

N, L, S, E, HEADS = 3, 4, 5, 6, 2
OPTIONS = {
    "plain": {},
    "one head": {"num_heads": 1},
    "without bias": {"bias": False},
    "keys and values of other widths": {"kdim": 3, "vdim": 5},
    "the same without bias": {"kdim": 3, "vdim": 5, "bias": False},
}
FUTURE = torch.ones(L, S, dtype=torch.bool).triu(1)
PADDED = torch.tensor([[0, 0, 0, 0, 1], [0, 0, 0, 0, 0], [0, 1, 0, 1, 1]]).bool()
MASKS: dict[str, dict[str, Tensor]] = {
    "no mask": {},
    "padding": {"key_padding_mask": PADDED},
    "future": {"attn_mask": FUTURE},
    "both": {"key_padding_mask": PADDED, "attn_mask": FUTURE},
    "added": {"attn_mask": cases.normal(L, S, seed=1)},
    "added to padding": {"key_padding_mask": cases.normal(N, S, seed=1)},
    "by head": {"attn_mask": FUTURE.expand(N * 2, L, S).clone()},
}


def attention(**options: object) -> nn.MultiheadAttention:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = nn.MultiheadAttention(**({"embed_dim": E, "num_heads": HEADS} | options)).double()  # pyright: ignore[reportArgumentType]
        for name, parameter in made.named_parameters():
            if name.endswith("bias"):
                nn.init.normal_(parameter)
    return made.eval()


def _close(actual: object, expected: object) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("average", [True, False, None])
@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("option", OPTIONS)
def test_cross_attention_is_the_same_function(option: str, mask: str, average: bool | None) -> None:
    heads = OPTIONS[option].get("num_heads", HEADS)
    masks = MASKS[mask]
    if mask == "by head":
        masks = {"attn_mask": FUTURE.expand(N * heads, L, S)}
    widths = OPTIONS[option].get("kdim", E), OPTIONS[option].get("vdim", E)
    inputs = (cases.normal(N, L, E), cases.normal(N, S, widths[0]), cases.normal(N, S, widths[1]))
    asked = {"need_weights": average is not None, "average_attn_weights": bool(average), **masks}
    for batch_first in (True, False):
        given = attention(batch_first=batch_first, **OPTIONS[option])
        turned = inputs if batch_first else tuple(part.transpose(0, 1) for part in inputs)
        _close(with_linear_attention(given)(*turned, **asked), given(*turned, **asked))


@pytest.mark.parametrize("mask", ["no mask", "future"])
@pytest.mark.parametrize("batch_first", [True, False])
def test_self_attention_of_one_sequence(batch_first: bool, mask: str) -> None:
    x = cases.normal(L, E)
    masks = {"attn_mask": FUTURE[:, :L]} if mask == "future" else {}
    given = attention(batch_first=batch_first)
    _close(with_linear_attention(given)(x, x, x, **masks), given(x, x, x, **masks))


def test_a_query_that_sees_nothing_gets_zeros() -> None:
    """As in the kernels that torch takes where no weights are asked for."""
    x, masks = cases.normal(N, S, E), {"key_padding_mask": torch.ones(N, S).bool()}
    given = attention(batch_first=True)
    found = with_linear_attention(given)(x, x, x, need_weights=False, **masks)
    with torch.enable_grad():
        _close(found, given(x.requires_grad_(), x, x, need_weights=False, **masks))


class Sequences(nn.Module):
    """Encoder layers on sequences that may be padded, read off by a mean."""

    def __init__(self, layers: int = 1, norm_first: bool = False) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(
            4, 2, 5, dropout=0.0, batch_first=True, norm_first=norm_first, activation="gelu"
        )
        self.encoder = nn.TransformerEncoder(layer, layers, enable_nested_tensor=not norm_first)
        self.out = nn.Linear(4, 3)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        return self.out(self.encoder(x, src_key_padding_mask=mask).mean(1))


@pytest.mark.parametrize("norm_first", [True, False])
def test_encoders_are_the_same_function(norm_first: bool) -> None:
    model = Sequences(2, norm_first).double().eval()
    x, mask = cases.normal(N, S, 4), PADDED
    found = with_linear_attention(model)
    _close(found(x), model(x))
    _close(found(x, mask), model(x, mask))
    with torch.no_grad():
        _close(found(x), model(x))
        _close(found(x, mask), model.train()(x, mask))


def test_a_whole_transformer_is_the_same_function() -> None:
    model = nn.Transformer(4, 2, 1, 1, 5, dropout=0.0, batch_first=True).double().eval()
    source, target = cases.normal(N, S, 4), cases.normal(N, L, 4, seed=1)
    masks = {
        "tgt_mask": nn.Transformer.generate_square_subsequent_mask(L, dtype=torch.float64),
        "src_key_padding_mask": torch.zeros(N, S).double().masked_fill(PADDED, -torch.inf),
    }
    _close(with_linear_attention(model)(source, target, **masks), model(source, target, **masks))


def problem() -> Problem:
    return cases.study(lambda: Sequences(), cases.images(cases.T, 4))


def converted() -> Problem:
    given = problem()
    model = with_linear_attention(given.model)
    return Problem(model, given.loss, given.train, given.query)


def test_the_chain_of_an_encoder_layer_has_kronecker_blocks_for_its_projections() -> None:
    given = converted()
    exact = [block.name for block in given.blocks if isinstance(block, ExactBlock)]
    assert exact == [f"encoder.layers.0.norm{i}" for i in (1, 2)]
    names = [block.name for block in given.blocks if isinstance(block, LinearBlock)]
    assert names[:4] == [
        f"encoder.layers.0.self_attn.{part}" for part in ("query", "key", "value", "out")
    ]
    chain = build_chain(given)
    total = chain["block_ggn"].trace()
    assert chain["ekfac"].trace() == pytest.approx(total, rel=1e-12)
    assert assemble_hessian(given).isfinite().all()


def test_its_ggn_is_that_of_the_attention_that_it_replaces() -> None:
    """In another order: rows of in_proj_weight and in_proj_bias are those of three layers."""
    one, other = problem(), converted()
    width = 4
    places, start = {}, 0
    for name in one.trainable:
        size = one.model.get_parameter(name).numel()
        places[name] = torch.arange(start, start + size)
        start += size
    order, stem = [], "encoder.layers.0.self_attn."
    for name in other.trainable:
        part = name.removeprefix(stem).partition(".")
        if name.startswith(stem) and part[0] != "out":
            i = ("query", "key", "value").index(part[0])
            order.append(places[f"{stem}in_proj_{part[2]}"].view(3, -1)[i])
        else:
            order.append(places[name.replace(".out.", ".out_proj.", 1)])
    order = torch.cat(order)
    assert len(order) == start == one.num_parameters
    _close(one.theta()[order], other.theta())
    expected = build_chain(one)["ggn"].dense()[order][:, order]
    found = build_chain(other)["ggn"].dense()
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12 * float(expected.abs().max()))
    key = other.blocks[1]
    assert isinstance(key, LinearBlock)
    bias = found[key.slice, key.slice][-width:, -width:]  # moves no weight of the softmax
    assert float(bias.abs().max()) < 1e-15 * float(found.abs().max())


def test_its_hessian_is_that_of_torch_func() -> None:
    """Attention alone: see tests.oracles.autograd on layer norms."""
    given = cases.study(
        lambda: Applied(
            lambda m, x: m.out(torch.tanh(m.attend(x, x, x)[0]).mean(1)),
            attend=with_linear_attention(attention(embed_dim=4, batch_first=True)),
            out=nn.Linear(4, 3),
        ),
        cases.images(cases.T, 4),
    )
    expected = autograd.hessian(given)
    torch.testing.assert_close(
        assemble_hessian(given), expected, rtol=0, atol=1e-8 * float(expected.abs().max())
    )


def test_examples_come_first_where_projections_are_called() -> None:
    """With ``batch_first=False`` as well, so that the projections are linear blocks."""

    def forward(model: nn.Module, x: Tensor) -> Tensor:
        h = x.transpose(0, 1)
        return model.out(model.attend(h, h, h)[0].mean(0))

    def build() -> nn.Module:
        attend = with_linear_attention(nn.MultiheadAttention(4, 2))
        return Applied(forward, attend=attend, out=nn.Linear(4, 3))

    given = cases.study(build, cases.images(cases.T, 4))
    assert all(isinstance(block, LinearBlock) for block in given.blocks)


def test_what_is_frozen_or_shared_or_in_training_stays_so() -> None:
    given = attention()
    given.in_proj_weight.requires_grad_(False)
    model = nn.Sequential(given, nn.Sequential(given)).train()
    with torch.no_grad():
        found = with_linear_attention(model)
    assert isinstance(found[0], LinearAttention)
    assert found[0] is found[1][0]
    assert found[0].training
    frozen = [name for name, p in found[0].named_parameters() if not p.requires_grad]
    assert frozen == ["query.weight", "key.weight", "value.weight"]
    assert isinstance(model[0], nn.MultiheadAttention)


@pytest.mark.parametrize("option", ["add_bias_kv", "add_zero_attn"])
def test_options_without_a_linear_form_are_refused(option: str) -> None:
    with pytest.raises(UnsupportedModelError, match="0 is attention with add_bias_kv or"):
        with_linear_attention(nn.Sequential(attention(**{option: True})))


def test_tied_projections_are_refused() -> None:
    model = nn.Sequential(attention(), attention())
    model[1].in_proj_weight = model[0].in_proj_weight
    with pytest.raises(UnsupportedModelError, match="parameters another module holds too"):
        with_linear_attention(model)


def test_causal_without_a_mask_is_refused() -> None:
    x = cases.normal(N, L, E)
    with pytest.raises(UnsupportedModelError, match="needs its attn_mask"):
        with_linear_attention(attention(batch_first=True))(x, x, x, is_causal=True)


def test_the_refusal_of_large_attention_names_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(find, "EXACT_LIMIT", 50)
    message = r"\(MultiheadAttention\) has 60 parameters .*with_linear_attention\(model\)"
    with pytest.raises(UnsupportedModelError, match=message):
        problem()


def test_many_copies_are_trained_together() -> None:
    """Under vmap over parameters, with gradients."""
    model = with_linear_attention(Sequences()).double().eval()
    names = dict(model.named_parameters())
    stacked = {name: torch.stack([p.detach(), 2 * p.detach()]) for name, p in names.items()}
    x = cases.normal(N, S, 4)

    def total(parameters: dict[str, Tensor]) -> Tensor:
        return torch.func.functional_call(model, parameters, (x, PADDED)).square().sum()

    found = torch.func.vmap(torch.func.grad(total))(stacked)
    for i in range(2):
        alone = torch.func.grad(total)({name: value[i] for name, value in stacked.items()})
        _close({name: value[i] for name, value in found.items()}, alone)
