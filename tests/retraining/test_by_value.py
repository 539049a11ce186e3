"""Equal losses have equal descriptions in every process; other options have others."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from decomposition.losses import CrossEntropy, CustomLoss
from decomposition.retraining.fingerprint import by_value, study_fingerprint
from decomposition.retraining.plan import BankPlan
from tests import cases

SCALE = 2.0


def huber(delta: float):
    def loss(f: Tensor, y: Tensor) -> Tensor:
        return SCALE * nn.functional.huber_loss(f, y, reduction="none", delta=delta).sum(-1)

    return loss


def squares(f: Tensor, y: Tensor, power: float = 2.0) -> Tensor:
    return (f - y).abs().pow(power).sum(-1)


def test_the_middle_of_a_long_tensor_counts() -> None:
    weight = torch.ones(5000)
    other = weight.clone()
    other[2500] = 2.0
    assert repr(weight) == repr(other)
    assert by_value(vars(CrossEntropy(weight))) == by_value(vars(CrossEntropy(weight.clone())))
    assert by_value(vars(CrossEntropy(weight))) != by_value(vars(CrossEntropy(other)))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (huber(1.0), huber(2.0)),
        (squares, partial(squares, power=3.0)),
        (partial(squares, power=2.5), partial(squares, power=3.0)),
        (lambda f, y: f.sum(-1), lambda f, y: f.mean(-1)),
        (lambda f, y: f * 2, lambda f, y: f * 3),
        (nn.Linear(2, 2), nn.Linear(2, 2)),
        ({"a": np.arange(3)}, {"a": np.arange(3) + 1}),
    ],
)
def test_other_functions_differ(one: object, other: object) -> None:
    assert by_value(one) != by_value(other)


def test_equal_functions_agree() -> None:
    assert huber(1.0) is not huber(1.0)
    assert by_value(huber(1.0)) == by_value(huber(1.0))
    assert by_value(partial(squares, power=3.0)) == by_value(partial(squares, power=3.0))


def test_a_module_level_number_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    before = by_value(huber(1.0))
    monkeypatch.setattr(sys.modules[__name__], "SCALE", 3.0)
    assert by_value(huber(1.0)) != before


def test_a_function_that_calls_itself_ends() -> None:
    def halve(n: int) -> int:
        return halve(n // 2) if n > 1 else n

    assert by_value(halve) == by_value(halve)


def test_another_process_describes_it_alike() -> None:
    """No address and no order of a set enters."""
    source = (
        "import torch\n"
        "from decomposition.losses import CustomLoss\n"
        "from decomposition.retraining.fingerprint import by_value\n"
        "d = 0.5\n"
        "def f(x, y): return (x - y).pow(2).sum(-1) * d if 'b' in {'a', 'b', 'c'} else d\n"
        "found = by_value(vars(CustomLoss(f, check=lambda a, b, c: b)))\n"
    )
    here: dict[str, object] = {"__name__": "__main__"}
    exec(source, here)
    command = [sys.executable, "-c", source + "print(found)"]
    there = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert there.strip() == str(here["found"])
    assert " at 0x" not in there


def test_the_key_of_a_bank_changes_with_the_options_of_the_loss() -> None:
    problem = cases.linear_regression()
    plan = BankPlan(masks=2)
    start = dict(problem.model.state_dict())
    losses = [CustomLoss(huber(d), "huber") for d in (100.0, 100.0, 200.0)]
    keys = [study_fingerprint(replace(problem, loss=loss), plan, start) for loss in losses]
    assert keys[0] == keys[1] != keys[2]
