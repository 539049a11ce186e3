"""Binary cross-entropy: torch's mean, targets in their forms, and what is refused."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from decomposition.errors import ProblemError
from decomposition.losses import BinaryCrossEntropy, CrossEntropy, as_loss
from tests.losses.table import CASES, Case

BINARY = {k: v for k, v in CASES.items() if k.startswith("binary")}
F = torch.randn(5, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
Y = torch.tensor([[0.0, 1.0], [1.0, 1.0], [0.5, 0.0], [0.0, 0.0], [1.0, 0.25]])


@pytest.mark.parametrize("case", BINARY.values(), ids=BINARY)
def test_the_mean_is_torchs(case: Case) -> None:
    f, y = case.example()
    torch.testing.assert_close(case.ours.per_example(f, y).mean(), case.torchs(f, y))


def test_one_logit_is_a_softmax_over_it_and_zero() -> None:
    y = torch.tensor([0, 1, 1, 0, 1])
    both = torch.stack([torch.zeros(5, dtype=torch.float64), F[:, 0]], 1)
    binary, softmax = BinaryCrossEntropy(), CrossEntropy()
    torch.testing.assert_close(
        binary.per_example(F[:, :1], y[:, None].double()), softmax.per_example(both, y)
    )
    torch.testing.assert_close(
        binary.hessian(F[:, :1], y[:, None].double()), softmax.hessian(both, y)[:, 1:, 1:]
    )


def test_a_weight_for_all_outputs_is_torchs() -> None:
    theirs = nn.BCEWithLogitsLoss(weight=torch.tensor(2.0), pos_weight=torch.tensor([3.0]))
    ours = as_loss(theirs)
    ours.check(F, Y, "train")
    torch.testing.assert_close(ours.per_example(F, Y.double()).mean(), theirs(F, Y.double()))
    assert ours.name == "binary_cross_entropy(weight=[2], pos_weight=[3])"


@pytest.mark.parametrize("y", [torch.tensor([0, 1, 1, 0, 1]), torch.tensor([0.0, 1, 1, 0, 1])])
def test_a_vector_of_targets_goes_with_one_output(y: Tensor) -> None:
    found = BinaryCrossEntropy().check(F[:, :1], y, "train")
    assert found.shape == (5, 1)
    assert found.is_floating_point()


def test_answers_may_be_booleans() -> None:
    found = BinaryCrossEntropy().check(F, Y > 0.3, "train")
    torch.testing.assert_close(found, (Y > 0.3).float())


@pytest.mark.parametrize(
    ("loss", "y", "message"),
    [
        (BinaryCrossEntropy(), Y[:, 0].long(), r"outputs \(5, 2\), got \(5,\): class labels go"),
        (BinaryCrossEntropy(), Y[:, :1], r"outputs \(5, 2\), got \(5, 1\)"),
        (BinaryCrossEntropy(), Y + 0.5, r"train target 1\.5 at row 0, output 1 is outside \[0, 1"),
        (BinaryCrossEntropy(), Y - 0.5, r"target -0\.5 at row 0, output 0"),
        (BinaryCrossEntropy(), Y / 0, r"target nan at row 0, output 0"),
        (BinaryCrossEntropy(), Y.to(torch.complex64), "are torch.complex64"),
        (BinaryCrossEntropy(torch.ones(3)), Y, r"weight .* has 3 entries, but .* 2 outputs"),
        (BinaryCrossEntropy(None, torch.ones(3)), Y, "pos_weight .* has 3 entries"),
        (BinaryCrossEntropy(torch.ones(5, 2)), Y, r"shape \(5, 2\), .* weights of single examples"),
        (BinaryCrossEntropy(None, torch.zeros(2)), 0 * Y + 1, "every train target has weight zero"),
    ],
)
def test_bad_targets_are_named(loss: BinaryCrossEntropy, y: Tensor, message: str) -> None:
    with pytest.raises(ProblemError, match=message):
        loss.check(F, y, "train")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pos_weight": torch.tensor([1.0, -1.0])}, r"pos_weight .*\[1\] is -1"),
        ({"weight": torch.zeros(2)}, "weight .* is zero throughout"),
        ({"weight": torch.tensor([torch.inf])}, r"\[0\] is inf"),
    ],
)
def test_impossible_weights_are_named(options: dict, message: str) -> None:
    with pytest.raises(ProblemError, match=message):
        BinaryCrossEntropy(**options)
