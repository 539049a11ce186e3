"""The Python on the page docs/any_model.md runs as it stands, and its statements on blocks hold."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from decomposition import Problem
from decomposition.errors import UnsupportedModelError
from decomposition.layers import ExactBlock, LinearBlock
from decomposition.layers.find import EXACT_LIMIT

PAGE = Path(__file__).parents[2] / "docs" / "any_model.md"


@pytest.fixture(scope="module")
def names() -> dict[str, Any]:
    """What the page's Python defines."""
    found: dict[str, Any] = {}
    with torch.random.fork_rng(devices=[]):
        for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL):
            exec(compile(block, str(PAGE), "exec"), found)
    return found


def test_the_problem_of_ones_own_has_kronecker_blocks_alone(names: dict[str, Any]) -> None:
    problem = names["make"]()
    assert [type(block) for block in problem.blocks] == [LinearBlock] * 2
    assert list(names["chain"])[-2:] == ["ekfac_reduce", "kfac_reduce"]


def test_the_problem_with_two_inputs_has_a_stand_in(names: dict[str, Any]) -> None:
    pairs = names["pairs"]
    assert isinstance(pairs, Problem)
    assert [type(block) for block in pairs.blocks] == [ExactBlock, LinearBlock]
    assert any("Embedding" in note for note in pairs.notes)


def test_the_language_model_predicts_at_every_position(names: dict[str, Any]) -> None:
    language = names["language"]
    assert language.output_shape == (9, 6)
    assert [type(block) for block in language.blocks] == [ExactBlock, LinearBlock, LinearBlock]
    assert any("ignored label 0" in note for note in language.notes)


def test_attention_has_kronecker_blocks(names: dict[str, Any]) -> None:
    x, y = torch.randn(8, 3, 8), torch.arange(8) % 4
    model = nn.Sequential(names["encoder"], nn.Flatten(), nn.Linear(24, 4))
    problem = Problem(model, nn.CrossEntropyLoss(), (x[:6], y[:6]), (x[6:], y[6:]))
    exact = [block.name for block in problem.blocks if isinstance(block, ExactBlock)]
    assert exact == ["0.norm1", "0.norm2"]


def test_a_recurrent_layer_is_unrolled(names: dict[str, Any]) -> None:
    found = [block.name for block in names["forecast"].blocks if isinstance(block, LinearBlock)]
    assert found == ["rnn.cells.0.ih", "rnn.cells.0.hh", "out"]


def test_the_loss_is_one(names: dict[str, Any]) -> None:
    x, y = torch.randn(8, 2), torch.randn(8, 2)
    problem = Problem(nn.Linear(2, 2), names["huber"], (x[:6], y[:6]), (x[6:], y[6:]))
    assert problem.loss_function.name == "huber"


def test_the_limit_of_a_stand_in_is_the_one_on_the_page() -> None:
    assert f"{EXACT_LIMIT:,} parameters" in PAGE.read_text()


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gru, self.out = nn.GRU(2, 3, batch_first=True), nn.Linear(3, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(self.gru(x)[0][:, -1])


def test_recurrent_modules_are_refused() -> None:
    from decomposition import build_chain

    x, y = torch.randn(8, 4, 2), torch.arange(8) % 2
    with pytest.raises(UnsupportedModelError):
        build_chain(Problem(Recurrent(), nn.CrossEntropyLoss(), (x[:6], y[:6]), (x[6:], y[6:])))
