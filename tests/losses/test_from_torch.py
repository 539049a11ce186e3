"""Which of torch's losses are taken for which of ours, and the way out of the others."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from decomposition.errors import ProblemError
from decomposition.losses import BinaryCrossEntropy, CrossEntropy, MeanSquaredError, as_loss


def test_our_own_loss_and_torchs_are_the_same_thing() -> None:
    own = MeanSquaredError()
    assert as_loss(own) is own
    assert isinstance(as_loss(nn.CrossEntropyLoss()), CrossEntropy)
    assert isinstance(as_loss(nn.BCEWithLogitsLoss()), BinaryCrossEntropy)
    assert isinstance(as_loss(nn.MSELoss()), MeanSquaredError)


def test_plain_losses_have_plain_names_and_no_notes() -> None:
    losses = [as_loss(kind()) for kind in (nn.CrossEntropyLoss, nn.BCEWithLogitsLoss, nn.MSELoss)]
    assert [loss.name for loss in losses] == ["cross_entropy", "binary_cross_entropy", "mse"]
    assert not any(loss.notes for loss in losses)


def test_a_subclass_of_torchs_loss_is_not_taken_for_it() -> None:
    class Focal(nn.CrossEntropyLoss):
        def forward(self, input: Tensor, target: Tensor) -> Tensor:
            return super().forward(input, target).square()

    with pytest.raises(ProblemError, match="Focal is not supported"):
        as_loss(Focal())


@pytest.mark.parametrize("kind", [nn.CrossEntropyLoss, nn.BCEWithLogitsLoss, nn.MSELoss])
@pytest.mark.parametrize("reduction", ["sum", "none"])
def test_other_reductions_are_refused(kind: type[nn.Module], reduction: str) -> None:
    with pytest.raises(ProblemError, match=f"reduction='{reduction}'.* use reduction='mean'"):
        as_loss(kind(reduction=reduction))


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (nn.BCELoss(), r"drop its last sigmoid.*BCEWithLogitsLoss\(\)"),
        (nn.NLLLoss(), r"drop its last log-softmax.*CrossEntropyLoss\(\)"),
        (nn.L1Loss(), r"L1Loss is not supported.*CustomLoss\(function\)"),
        (nn.MSELoss, r"the class MSELoss: pass an instance, MSELoss\(\)"),
        (torch.nn.functional.mse_loss, r"a function: wrap it in .*CustomLoss\(function\)"),
        ("mse", "loss str is not supported"),
    ],
)
def test_the_way_out_is_named(loss: object, message: str) -> None:
    with pytest.raises(ProblemError, match=message):
        as_loss(loss)  # type: ignore[arg-type]
