"""Stacks of any module: each copy equals a plain loop, whatever holds its parameters."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from decomposition.errors import UnsupportedModelError
from decomposition.problem import Problem
from decomposition.retraining import BankPlan, retrain_bank, seeds, train_base_model
from decomposition.retraining.bank import default_chunk_size
from decomposition.retraining.initial import independent_start
from decomposition.retraining.trainer import BatchedTrainer, numbers_per_example
from decomposition.retraining.trial import choose_way
from tests.general import GENERAL, tokens
from tests.models import Applied
from tests.retraining.plain import RECIPE, train_plain, untrained_start, with_recipe
from tests.retraining.test_bank import plain_outputs
from tests.retraining.test_batched import RECIPES, assert_equal_to_plain

SHORT = replace(RECIPE, epochs=2, batch_size=3)
PLAN = BankPlan(masks=5, second_order_masks=2)


@pytest.fixture(scope="module")
def trained() -> dict[str, Problem]:
    names = ("cnn", "frozen", "tied", "named_inputs")
    return {name: with_recipe(GENERAL[name](), SHORT).trained() for name in names}


@pytest.mark.parametrize("name", GENERAL)
def test_every_copy_equals_the_plain_loop(name: str) -> None:
    assert_equal_to_plain(with_recipe(GENERAL[name](), SHORT), examples=5)


@pytest.mark.parametrize("name", RECIPES)
def test_every_optimiser_equals_the_plain_loop(name: str) -> None:
    recipe = RECIPES[name]
    if recipe.drop_last:  # a batch of theirs fits into so few examples
        recipe = replace(recipe, batch_size=min(recipe.batch_size, 5))
    assert_equal_to_plain(with_recipe(GENERAL["two_inputs"](), recipe), examples=5)


@pytest.mark.parametrize("name", GENERAL)
def test_the_base_model_equals_the_plain_loop(name: str) -> None:
    problem = with_recipe(GENERAL[name](), SHORT)
    expected = train_plain(
        problem,
        untrained_start(problem),
        lambda epoch: seeds.epoch_order(RECIPE.seed, 0, epoch, problem.num_examples),
    )
    trained = train_base_model(problem).state_dict()
    for key, value in expected.state_dict().items():
        torch.testing.assert_close(trained[key], value, rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", ["frozen", "bias_only", "batch_norm", "tied"])
def test_what_is_frozen_tied_or_a_buffer_stays_so(name: str) -> None:
    problem = with_recipe(GENERAL[name](), SHORT)
    model = train_base_model(problem)
    for key, before in problem.model.named_parameters():
        changed = not torch.equal(before, model.get_parameter(key))
        assert changed == before.requires_grad
    for key, before in problem.model.named_buffers():
        assert torch.equal(before, model.get_buffer(key))
    assert len([*model.parameters()]) == len([*problem.model.parameters()])


@pytest.mark.parametrize("randomness", ["shared", "independent"])
@pytest.mark.parametrize("name", ["cnn", "frozen", "tied", "named_inputs"])
def test_a_cell_does_not_depend_on_its_chunk(
    name: str, randomness: str, trained: dict[str, Problem]
) -> None:
    plan = replace(PLAN, randomness=randomness)
    whole, *others = (
        retrain_bank(trained[name], plan, chunk_size=size, progress=False) for size in (5, 2, 1)
    )
    for other in others:
        np.testing.assert_allclose(other.outputs, whole.outputs, rtol=0, atol=1e-12)
        np.testing.assert_allclose(other.second_outputs, whole.second_outputs, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ["cnn", "frozen", "tied"])
def test_a_bank_holds_what_plain_loops_find(name: str, trained: dict[str, Problem]) -> None:
    problem = trained[name]
    bank = retrain_bank(problem, PLAN, progress=False)
    for mask, outputs in zip(bank.masks, bank.outputs, strict=True):
        expected = plain_outputs(problem, mask, 0)
        np.testing.assert_allclose(outputs[0], expected, rtol=0, atol=1e-10)


def test_a_bank_resumes_where_it_was_left(trained: dict[str, Problem], tmp_path: Path) -> None:
    problem = trained["named_inputs"]
    first = retrain_bank(problem, PLAN, tmp_path, chunk_size=2, progress=False)
    chunks = sorted(tmp_path.iterdir())
    kept = {path: path.stat().st_mtime_ns for path in chunks[1:]}
    chunks[0].unlink()
    again = retrain_bank(problem, PLAN, tmp_path, chunk_size=2, progress=False)
    np.testing.assert_array_equal(again.outputs, first.outputs)
    np.testing.assert_array_equal(again.second_outputs, first.second_outputs)
    assert sorted(tmp_path.iterdir()) == chunks
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in kept.items())


def test_an_input_of_another_name_is_another_bank(
    trained: dict[str, Problem], tmp_path: Path
) -> None:
    problem = trained["named_inputs"]
    retrain_bank(problem, PLAN, tmp_path, chunk_size=5, progress=False)
    x, y = problem.train
    other = {"mask": ~x["mask"], "x": x["x"]}
    retrain_bank(replace(problem, train=(other, y)), PLAN, tmp_path, chunk_size=5, progress=False)
    assert len(list(tmp_path.iterdir())) == 4


def test_a_fresh_start_leaves_out_what_is_frozen() -> None:
    problem = GENERAL["frozen"]()
    start = independent_start(problem.model, 0, 1, 0)
    assert tuple(start) == problem.trainable
    assert not any(torch.equal(v, problem.model.get_parameter(k)) for k, v in start.items())


def test_a_frozen_bare_parameter_needs_no_reset() -> None:
    problem = GENERAL["bare_parameters"]()
    with pytest.raises(UnsupportedModelError, match="reset_parameters"):
        independent_start(problem.model, 0, 1, 0)
    for module in problem.model.modules():
        if not hasattr(module, "reset_parameters"):
            for parameter in module.parameters(recurse=False):
                parameter.requires_grad_(False)
    assert independent_start(problem.model, 0, 1, 0)


def test_a_tied_parameter_starts_as_its_first_module_has_it() -> None:
    problem = GENERAL["tied"]()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seeds.initial_seed(0, 1, 0))
        first = next(
            m for m in problem.model.modules() if next(m.parameters(False), None) is not None
        )
        expected = nn.Embedding(*first.weight.shape, dtype=torch.float64).weight
    start = independent_start(problem.model, 0, 1, 0)
    assert torch.equal(start[problem.trainable[0]], expected)


@pytest.mark.parametrize("module", [nn.MultiheadAttention(4, 2), nn.BatchNorm1d(3), nn.GRU(2, 3)])
def test_modules_of_torch_start_afresh(module: nn.Module) -> None:
    assert set(independent_start(module, 0, 0, 0)) == {k for k, _ in module.named_parameters()}


def test_an_encoder_layer_of_torch_runs_as_a_function() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Embedding(5, 4), nn.TransformerEncoderLayer(4, 2, 6, dropout=0.0, batch_first=True)
    )
    head = Applied(lambda m, x: m.out(m.body(x).mean(1)), body=model, out=nn.Linear(4, 3)).double()
    x, y = tokens(20, 6, below=5), tokens(20, below=3)
    problem = Problem(
        head, nn.CrossEntropyLoss(), (x[:16], y[:16]), (x[16:], y[16:]),
        recipe=SHORT, allow_query_in_train=True,
    )  # fmt: skip
    assert_equal_to_plain(problem, examples=9)


def branch(m: nn.Module, x: Tensor) -> Tensor:
    z = m.out(x)
    return z if z.sum() > 0 else 2 * z


def number(m: nn.Module, x: Tensor) -> Tensor:
    return m.out(x) * m.out.weight.sum().item()


def in_place_on_the_input(m: nn.Module, x: Tensor) -> Tensor:
    return m.out(x.add_(1))


def in_place_on_a_shared_tensor(m: nn.Module, x: Tensor) -> Tensor:
    return torch.zeros(len(x), 3, dtype=x.dtype).add_(m.out(x))


def at_random(m: nn.Module, x: Tensor) -> Tensor:
    return m.out(nn.functional.dropout(x, 1e-12))


FAILING = {
    branch: "in module 1 .Applied. data-dependent control flow",
    number: r"in module 1 .Applied. a tensor is turned into a number \(\.item",
    in_place_on_the_input: "changes its input in place",
    in_place_on_a_shared_tensor: "in module 1 .Applied. an in-place operation",
    at_random: "random numbers are drawn",
}


@pytest.mark.parametrize("forward", FAILING, ids=lambda forward: forward.__name__)
def test_what_cannot_be_stacked_is_named(forward: Callable[[nn.Module, Tensor], Tensor]) -> None:
    model = nn.Sequential(nn.LayerNorm(4), Applied(forward, out=nn.Linear(4, 3)))
    if forward is in_place_on_the_input:
        model = model[1]
    with pytest.raises(UnsupportedModelError, match=FAILING[forward]):
        choose_way(model, torch.randn(6, 4, generator=torch.Generator().manual_seed(0)))


def test_activations_are_what_autograd_keeps() -> None:
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))
    assert numbers_per_example(model, torch.zeros(5, 4)) == 4 + 6 + 3  # x, tanh, and f itself


def test_chunks_shrink_with_the_activations() -> None:
    assert default_chunk_size(1000, 50_000) == 100
    assert default_chunk_size(1000, 10**9) == 1
    trainer = BatchedTrainer(with_recipe(GENERAL["cnn"]()))
    assert trainer.activations >= 5 * 2 * 3 * 16  # batch, two layers, channels, pixels
