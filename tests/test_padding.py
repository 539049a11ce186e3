"""Padding: the row at ``padding_idx`` is a constant in curvature, in training and in every stack;
torch's fast paths for padded sequences are not taken."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from decomposition.chain import build_chain
from decomposition.elementary import ElementaryOperations
from decomposition.errors import UnsupportedModelError
from decomposition.problem import Problem
from decomposition.retraining import BankPlan, retrain_bank
from tests import general
from tests.models import Applied
from tests.retraining.plain import RECIPE, train_plain, untrained_start
from tests.retraining.test_bank import plain_outputs

VOCABULARY, LENGTH, PADDING = 6, 4, 2
FULL_BATCH = replace(RECIPE, batch_size=64, epochs=6, lr=0.3)
PLAN = BankPlan(masks=5, second_order_masks=0)


def sentences(rows: int, padded_from: int, padding: int) -> Tensor:
    """Tokens, of which the last two positions are padding in late rows alone."""
    x = general.tokens(rows, LENGTH, below=VOCABULARY)
    x[x == padding] = (padding + 1) % VOCABULARY
    x[padded_from:, 2:] = padding
    return x


def problem(model: nn.Module, classes: int, padded_from: int, padding: int) -> Problem:
    x = sentences(28, padded_from, padding)
    y = torch.arange(28) % classes
    train, query = (x[:22], y[:22]), (x[22:], y[22:])
    return Problem(
        model.double(), nn.CrossEntropyLoss(), train, query, FULL_BATCH, allow_query_in_train=True
    )


def bag_of_words(padding: int, tied: bool) -> nn.Module:
    torch.manual_seed(0)
    classes = VOCABULARY if tied else 3
    model = Applied(
        lambda m, x: m.out(torch.tanh(m.mid(m.token(x).mean(1)))),
        token=nn.Embedding(VOCABULARY, 3, padding_idx=padding),
        mid=nn.Linear(3, 3),
        out=nn.Linear(3, classes),
    )
    nn.init.normal_(model.token.weight)
    if tied:
        model.out.weight = model.token.weight
    return model


def summed(mode: str) -> nn.Module:
    torch.manual_seed(0)
    token = nn.EmbeddingBag(VOCABULARY, 3, mode=mode, padding_idx=PADDING)
    nn.init.normal_(token.weight)
    return nn.Sequential(token, nn.Tanh(), nn.Linear(3, 3))


def encoder() -> nn.Module:
    """torch's own, with its defaults and a padding mask."""

    def forward(model: nn.Module, x: Tensor) -> Tensor:
        padded = x == PADDING
        h = model.body(model.token(x), src_key_padding_mask=padded)
        return model.out(h.masked_fill(padded[..., None], 0.0).sum(1))

    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(4, 2, 6, dropout=0.0, batch_first=True)
    body = nn.TransformerEncoder(layer, 1)
    return Applied(forward, token=nn.Embedding(VOCABULARY, 4), body=body, out=nn.Linear(4, 3))


MODELS = {
    "late": lambda: problem(bag_of_words(0, False), 3, 10, 0),
    "everywhere": lambda: problem(bag_of_words(0, False), 3, 0, 0),
    "from the end, tied": lambda: problem(bag_of_words(-1, True), VOCABULARY, 0, VOCABULARY - 1),
    "late, tied": lambda: problem(bag_of_words(0, True), VOCABULARY, 10, 0),
    "sum": lambda: problem(summed("sum"), 3, 10, PADDING),
    "mean": lambda: problem(summed("mean"), 3, 10, PADDING),
    "max": lambda: problem(summed("max"), 3, 10, PADDING),
    "encoder": lambda: problem(encoder(), 3, 10, PADDING),
}


@pytest.mark.parametrize("name", MODELS)
def test_trained_and_retrained_models_are_those_of_plain_torch(name: str) -> None:
    one = MODELS[name]()
    trained = one.trained()
    expected = train_plain(one, untrained_start(one), lambda _: np.arange(one.num_examples))
    for key, value in expected.named_parameters():
        found = trained.model.get_parameter(key)
        torch.testing.assert_close(found, value, rtol=0, atol=1e-10)
    bank = retrain_bank(trained, PLAN, progress=False)
    for mask, outputs in zip(bank.masks, bank.outputs, strict=True):
        np.testing.assert_allclose(outputs[0], plain_outputs(trained, mask, 0), rtol=0, atol=1e-10)


def by_torch(one: Problem) -> Tensor:
    """H by torch.autograd twice, of the model as torch runs it."""
    model = one.double_model()
    parameters = list(model.parameters())
    with sdpa_kernel(SDPBackend.MATH):  # the fused one has no second derivative
        loss = nn.functional.cross_entropy(model(one.train[0]), one.train[1])
    slope = torch.cat(
        [g.flatten() for g in torch.autograd.grad(loss, parameters, create_graph=True)]
    )
    rows = [
        torch.autograd.grad(g, parameters, retain_graph=True, materialize_grads=True) for g in slope
    ]
    return torch.stack([torch.cat([part.flatten() for part in row]) for row in rows])


@pytest.mark.parametrize(
    "name", ["late", "everywhere", "from the end, tied", "late, tied", "encoder"]
)
def test_curvature_holds_the_padding_row_constant(name: str) -> None:
    one = MODELS[name]()
    found = build_chain(one)["hessian"].dense()
    torch.testing.assert_close(found, by_torch(one), rtol=0, atol=1e-9)


def pooled(mode: str) -> nn.Module:
    """What a bag is, written out."""

    def forward(model: nn.Module, x: Tensor) -> Tensor:
        h, real = getattr(model, "0")(x), (x != PADDING)[..., None]
        if mode == "max":
            found = h.masked_fill(~real, -torch.inf).amax(1)
        else:
            found = (h * real).sum(1) / (real.sum(1) if mode == "mean" else 1)
        return getattr(model, "2")(torch.tanh(found))

    bag = summed(mode)
    token = nn.Embedding(VOCABULARY, 3, padding_idx=PADDING)
    token.weight = bag[0].weight
    return Applied(forward, **{"0": token, "2": bag[2]})


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
def test_a_bag_is_its_embedding_pooled(mode: str) -> None:
    found, expected = (
        build_chain(problem(model, 3, 10, PADDING)) for model in (summed(mode), pooled(mode))
    )
    for rung in ("hessian", "ggn"):
        torch.testing.assert_close(found[rung].dense(), expected[rung].dense(), rtol=0, atol=1e-12)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
def test_bags_of_every_kind_are_torch_s(mode: str, weighted: bool) -> None:
    """One of them is all padding."""
    if weighted and mode != "sum":
        return
    x, weight = sentences(9, 4, PADDING), general.normal(VOCABULARY, 3)
    x[-1] = PADDING
    options = {"mode": mode, "padding_idx": PADDING}
    if weighted:
        options["per_sample_weights"] = general.normal(9, LENGTH, seed=1)
    expected = nn.functional.embedding_bag(x, weight, **options)
    with ElementaryOperations():
        found = nn.functional.embedding_bag(x, weight, **options)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-14)


def test_bags_with_offsets_are_refused_with_the_way_out() -> None:
    model = Applied(
        lambda m, x: m.bag(x.flatten(), torch.arange(len(x)) * LENGTH),
        bag=nn.EmbeddingBag(VOCABULARY, 3, padding_idx=PADDING),
    )
    with pytest.raises(UnsupportedModelError, match=r"with offsets: give them as \(N, T\)"):
        problem(model, 3, 10, PADDING)
    problem(Applied(lambda m, x: m.bag(x), bag=model.bag), 3, 10, PADDING)


def test_sparse_gradients_are_the_same_numbers() -> None:
    one = MODELS["late"]()
    dense = one.trained().model.state_dict()
    sparse = replace(one, model=bag_of_words(0, False).double())
    sparse.model.token.sparse = True
    for key, value in sparse.trained().model.state_dict().items():
        torch.testing.assert_close(value, dense[key], rtol=0, atol=0)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_the_model_and_torch_s_own_settings_stay_as_they_are() -> None:
    one = MODELS["encoder"]()
    x = one.query[0]
    with torch.no_grad():
        before = one.model.eval().body(one.model.token(x), src_key_padding_mask=x == PADDING)
        one.trained()
        after = one.model.body(one.model.token(x), src_key_padding_mask=x == PADDING)
    assert torch.equal(before, after)
    assert torch.backends.mha.get_fastpath_enabled()
