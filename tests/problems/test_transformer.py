"""The transformer, its text and its problem: causal, without overlap, trainable."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from decomposition import Problem
from decomposition.errors import ProblemError
from decomposition.layers import ExactBlock
from decomposition.problems import make_problem
from decomposition.problems.chars import ALPHABET, sonnets, windows
from decomposition.problems.networks import Attention, Transformer, TransformerBlock
from decomposition.retraining.initial import independent_start
from tests.problems.learning import accuracy, check_derivatives, constant_loss, mean_loss, same

FIRST = "from fairest creatures we desire increase that thereby beauty's rose might never die"


@pytest.fixture(scope="module")
def problem() -> Problem:
    return make_problem("chars", quick=True)


def text_of(tokens: torch.Tensor) -> str:
    return "".join(ALPHABET[token] for token in tokens.flatten().tolist())


def test_the_text_is_the_sonnets_alone() -> None:
    text = sonnets()
    assert text.startswith(FIRST)
    assert text.endswith("love's fire heats water water cools not love")
    assert set(text) == set(ALPHABET)
    assert "  " not in text
    assert 90_000 < len(text) < 92_000
    assert "gutenberg" not in text


def test_windows_share_no_character_and_have_the_one_that_follows() -> None:
    text = sonnets()
    tokens, following = windows(text, 16)
    assert len(tokens) == len(np.unique(tokens, axis=0))
    assert text_of(torch.as_tensor(tokens[0])) + ALPHABET[following[0]] == FIRST[:17]
    assert text_of(torch.as_tensor(tokens[1])) + ALPHABET[following[1]] == FIRST[17:34]


def test_every_example_is_in_the_text_with_its_continuation(problem: Problem) -> None:
    text = sonnets()
    for tokens, following in (problem.train, problem.query):
        assert tokens.dtype == torch.int64
        for row, label in zip(tokens[:50], following[:50], strict=True):
            assert text_of(row) + ALPHABET[int(label)] in text


def test_no_query_shares_a_window_with_training() -> None:
    problem = make_problem("chars?examples=4000")
    rows = {text_of(row) for row in problem.train[0]}
    assert len(rows) == 4000
    assert not rows & {text_of(row) for row in problem.query[0]}


@pytest.mark.parametrize("last", [1, 3, 6])
def test_a_block_asked_for_few_positions_gives_those_of_all(last: int) -> None:
    torch.manual_seed(0)
    block = TransformerBlock(4, 2, 6, nn.GELU).double()
    h = torch.randn(3, 6, 4, dtype=torch.float64)
    torch.testing.assert_close(block(h, last), block(h, 6)[:, -last:])


def test_attention_is_causal() -> None:
    torch.manual_seed(0)
    attention = Attention(4, 2, 6).double()
    h = torch.randn(1, 6, 4, dtype=torch.float64)
    changed = h.clone()
    changed[:, 4] += 1.0
    before, after = attention(h, 6), attention(changed, 6)
    assert torch.equal(before[:, :4], after[:, :4])
    assert bool((before[:, 4:] != after[:, 4:]).any(-1).all())


def test_attention_is_that_of_pytorch() -> None:
    torch.manual_seed(0)
    attention = Attention(6, 2, 5).double()
    h = torch.randn(3, 5, 6, dtype=torch.float64)
    heads = [
        layer(h).unflatten(-1, (2, 3)).transpose(1, 2)
        for layer in (attention.query, attention.key, attention.value)
    ]
    mixed = nn.functional.scaled_dot_product_attention(*heads, is_causal=True)
    expected = attention.out(mixed.transpose(1, 2).flatten(2))
    torch.testing.assert_close(attention(h, 5), expected)


def test_every_position_reaches_the_output() -> None:
    model = Transformer(28, 5, 4, 2, 2, nn.GELU, 0).double()
    tokens = torch.arange(5)[None]
    for position in range(5):
        changed = tokens.clone()
        changed[0, position] = 20
        assert not torch.equal(model(tokens), model(changed))


def test_embeddings_and_norms_have_an_exact_block_and_projections_a_kronecker_form() -> None:
    problem = make_problem("chars")
    exact = {block.name for block in problem.blocks if isinstance(block, ExactBlock)}
    kinds = (nn.Embedding, nn.LayerNorm)
    named = problem.model.named_modules()
    assert exact == {name for name, module in named if isinstance(module, kinds)}
    assert all(any(f"block {name} " in note for note in problem.notes) for name in exact)


def test_the_recipe_learns() -> None:
    trained = make_problem("chars").trained()
    assert mean_loss(trained, "query") < constant_loss(trained) - 0.2
    assert accuracy(trained, "query") > 0.2  # the commonest character, a space: 0.19


def test_the_quick_recipe_learns(problem: Problem) -> None:
    trained = problem.trained()
    assert mean_loss(trained, "train") < 0.8 * mean_loss(problem, "train")


def test_a_fresh_initialisation_is_of_the_same_kind(problem: Problem) -> None:
    fresh = independent_start(problem.model, 0, 1, 0)
    for name, value in problem.model.named_parameters():
        assert fresh[name].shape == value.shape
        assert torch.equal(fresh[name], value) == ("norm" in name)


def test_options_in_the_name() -> None:
    problem = make_problem("chars?hidden=6&blocks=3&length=9&queries=11&examples=50")
    assert problem.train[0].shape == (50, 9)
    assert problem.num_queries == 11
    blocks = [m for m in problem.model.modules() if isinstance(m, TransformerBlock)]
    assert [block.up.in_features for block in blocks] == [6] * 3
    assert problem.name == "chars, 3 blocks of 6, 50 examples"


def test_predictions_at_the_last_positions_have_their_continuations() -> None:
    problem = make_problem("chars?length=6&predictions=4&examples=20", quick=True)
    text = sonnets()
    (tokens, following), *_ = problem.train, problem.query
    assert problem.output_shape == (len(ALPHABET), 4)
    assert torch.equal(following[:, :-1], tokens[:, 3:])
    for row, labels in zip(tokens, following, strict=True):
        assert text_of(row) + ALPHABET[int(labels[-1])] in text
    one = make_problem("chars?length=6&examples=20", quick=True)
    assert torch.equal(one.train[1], following[:, -1])
    torch.testing.assert_close(one.model(tokens), problem.model(tokens)[..., -1])


def test_wrong_characters_are_wrong_at_every_prediction() -> None:
    clean, noisy = (
        make_problem(f"chars?predictions=3&examples=40&label_noise={rate}", quick=True).train[1]
        for rate in (0, 0.25)
    )
    wrong = clean != noisy
    assert int(wrong.all(1).sum()) == 10
    assert torch.equal(wrong.any(1), wrong.all(1))


def test_seed_fixes_everything_and_the_global_generators_nothing() -> None:
    same("chars")


def test_derivatives_of_one_example_depend_on_it_alone(problem: Problem) -> None:
    check_derivatives(problem)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("chars?hidden=8-8", "chars takes one width as hidden, such as hidden=16, got 8-8"),
        ("chars?hidden=7", "hidden must be a multiple of 2, got 7"),
        ("chars?length=257", "length must be 1 to 256 characters, got 257"),
        ("chars?length=0", "option length of chars must be a whole number >= 1"),
        ("chars?length=6&predictions=7", "predictions must be 1 to the 6 characters of a window"),
        ("chars?examples=9000", "chars has 4817 rows to train on"),
    ],
)
def test_what_cannot_be_given_is_said(name: str, message: str) -> None:
    with pytest.raises(ProblemError, match=message):
        make_problem(name)
