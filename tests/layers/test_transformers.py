"""Models of Hugging Face transformers as they are: their outputs, tied weights and labels."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from decomposition import EKFAC, KFAC, Problem
from decomposition.chain.rungs import FullGGN, HessianRung
from decomposition.errors import ProblemError, UnsupportedModelError
from decomposition.inputs import Inputs
from decomposition.layers import ExactBlock, LinearBlock
from tests.oracles import autograd
from tests.retraining.plain import RECIPE, with_recipe
from tests.retraining.test_batched import assert_equal_to_plain
from tests.text import transformers

WORDS, LENGTH, N, Q = 5, 4, 9, 3


def gpt2(kind: str = "GPT2LMHeadModel", **more: object) -> nn.Module:
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=more.pop("vocab_size", WORDS),
        n_positions=LENGTH,
        n_embd=4,
        n_layer=1,
        n_head=2,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=more.pop("pad_token_id", None),
        initializer_range=0.5,
        **more,
    )
    return getattr(transformers, kind)(config).double()


def tokens() -> Tensor:
    """Sentences, no two of which start alike."""
    places = torch.randperm(WORDS**LENGTH, generator=torch.Generator().manual_seed(1))[: N + Q]
    start = places[:, None] // WORDS ** torch.arange(LENGTH) % WORDS
    return torch.column_stack([start, places % 3])


def problem(model: nn.Module, inputs: Callable[[Tensor], Inputs] = lambda x: x) -> Problem:
    rows = tokens()
    x, y = rows[:, :-1], rows[:, 1:]
    return Problem(model, nn.CrossEntropyLoss(), (inputs(x[:N]), y[:N]), (inputs(x[N:]), y[N:]))


class Wrapped(nn.Module):
    """What used to be asked of the user."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x).logits.movedim(-1, 1)


def test_a_language_model_is_its_logits_with_classes_second() -> None:
    one, other = problem(gpt2()), problem(Wrapped(gpt2()))
    assert one.output_shape == (WORDS, LENGTH)
    for rung in (FullGGN(), EKFAC(), KFAC()):
        torch.testing.assert_close(rung(one).dense(), rung(other).dense())


def test_its_hessian_is_that_of_plain_double_backward() -> None:
    one = problem(gpt2())
    expected = autograd.double_backward(one)
    scale = float(expected.abs().max())
    found = HessianRung("signed")(one).dense()
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-9 * scale)


def test_its_maps_are_kronecker_and_the_tied_embedding_is_exact_and_said_so() -> None:
    one = problem(gpt2())
    kinds = {block.name.rpartition("h.0.")[2]: type(block) for block in one.blocks}
    for name in ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"):
        assert kinds[name] is LinearBlock
    assert kinds["transformer.wte"] is ExactBlock
    assert "lm_head" not in kinds
    assert any("transformer.wte (tied to lm_head.weight" in note for note in one.notes)


def test_an_untied_head_is_kronecker() -> None:
    one = problem(gpt2(tie_word_embeddings=False))
    assert [type(b) for b in one.blocks if b.name == "lm_head"] == [LinearBlock]
    assert not any("tied" in note for note in one.notes)


def test_a_large_tied_embedding_is_refused_and_the_ways_out_are_walked() -> None:
    size = 8192 // 4 + 1
    with pytest.raises(UnsupportedModelError, match=r"untie it.*tie_word_embeddings=False"):
        problem(gpt2(vocab_size=size))
    assert problem(gpt2(vocab_size=size, tie_word_embeddings=False)).num_parameters > 2 * 4 * size
    frozen = gpt2(vocab_size=size)
    frozen.get_parameter("transformer.wte.weight").requires_grad_(False)
    assert problem(frozen).num_parameters < 4 * size


def test_padding_has_a_mask_and_a_model_that_does_not_look_into_it() -> None:
    def padded(x: Tensor) -> Inputs:
        mask = torch.ones_like(x)
        mask[::2, 0] = 0
        return {"input_ids": x, "attention_mask": mask}

    message = "made with attn_implementation='eager'"
    with pytest.raises(UnsupportedModelError, match=message):
        problem(gpt2(), padded)
    one = problem(gpt2(attn_implementation="eager", pad_token_id=0), padded)
    assert_equal_to_plain(with_recipe(one, RECIPE), examples=5)
    torch.testing.assert_close(FullGGN()(one).dense(), autograd.ggn(one))


def test_labels_that_are_the_tokens_themselves_are_refused() -> None:
    x = tokens()[:, :-1]
    with pytest.raises(ProblemError, match=r"tokens\[:, :-1\] and targets tokens\[:, 1:\]"):
        Problem(gpt2(), nn.CrossEntropyLoss(), (x[:N], x[:N]), (x[N:], x[N:]))


def test_a_classifier_has_one_row_of_logits() -> None:
    x, y = tokens()[:, :-1], torch.arange(N + Q) % 2
    model = gpt2("GPT2ForSequenceClassification", pad_token_id=0)
    one = Problem(model, nn.CrossEntropyLoss(), (x[:N], y[:N]), (x[N:], y[N:]))
    assert one.output_shape == (2,)


def test_many_copies_of_it_are_trained_as_one_is() -> None:
    assert_equal_to_plain(with_recipe(problem(gpt2()), RECIPE), examples=5)


def test_the_python_of_its_page_runs() -> None:
    page = (Path(__file__).parents[2] / "docs" / "transformers.md").read_text()
    found: dict[str, Any] = {}
    for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        exec(compile(block, "transformers.md", "exec"), found)
    assert found["gpt2"].output_shape == (9, 6)
