"""Cross-entropy with options: its relation to torch's means, its name, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from decomposition.errors import ProblemError
from decomposition.losses import CrossEntropy, as_loss
from decomposition.retraining.trainer import mean_loss_gradient
from tests.losses.table import CASES, Case

LABELLED = {k: v for k, v in CASES.items() if k.startswith("cross_entropy")}
F = torch.randn(5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
Y = torch.tensor([0, 1, 2, 2, 1])


def test_weighted_mean_of_torch_is_a_constant_factor_of_ours() -> None:
    weight = torch.tensor([1.0, 3.0, 0.5], dtype=torch.float64)
    theirs = nn.CrossEntropyLoss(weight=weight)
    ours = as_loss(theirs).per_example(F, Y).mean()
    torch.testing.assert_close(ours, theirs(F, Y) * weight[Y].mean(), rtol=1e-14, atol=0)


def test_ignored_examples_count_in_the_mean() -> None:
    y = Y.clone()
    y[2] = -100
    loss = CrossEntropy()
    torch.testing.assert_close(
        loss.per_example(F, y).mean(), nn.CrossEntropyLoss()(F, y) * 4 / 5, rtol=1e-14, atol=0
    )
    assert float(loss.hessian(F, y)[2].abs().max()) == 0.0
    gradient = torch.func.grad(lambda f: loss.per_example(f, y).sum())(F)
    assert float(gradient[2].abs().max()) == 0.0


@pytest.mark.parametrize("case", LABELLED.values(), ids=LABELLED)
def test_batched_gradient_of_the_mean_loss_honours_every_option(case: Case) -> None:
    """Against p s − q by NumPy, with the target q_n read off the losses at unit vectors."""
    parts = [case.example(seed=seed) for seed in range(3)]
    f, y = (torch.stack(part) for part in zip(*parts, strict=True))
    found = mean_loss_gradient(case.ours, f.clone(), y)
    h, expected = 1e-5, np.empty(f.shape)
    for m, b in np.ndindex(*f.shape[:2]):
        row, label = f[m, b].numpy(), y[m, b].numpy()
        for c, e in enumerate(h * np.eye(f.shape[2])):
            slope = (case.one(row + e, label) - case.one(row - e, label)) / (2 * h)
            expected[m, b, c] = slope / f.shape[1]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("ignored", [-100, 255, 1])
def test_closed_form_of_the_batched_gradient_is_that_of_autograd(ignored: int) -> None:
    class ByAutograd(CrossEntropy):
        pass

    y = torch.stack([Y, Y.flip(0)])
    y[0, 3] = ignored
    f = torch.stack([F, F.flip(1)])
    found, expected = (
        mean_loss_gradient(kind(ignore_index=ignored), f.clone(), y)
        for kind in (CrossEntropy, ByAutograd)
    )
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-15)


def test_name_and_notes_say_every_option() -> None:
    assert CrossEntropy().name == "cross_entropy"
    assert CrossEntropy().notes == ()
    loss = CrossEntropy(torch.tensor([1.0, 0.25]), 7, 0.1)
    assert loss.name == "cross_entropy(weight=[1, 0.25], ignore_index=7, label_smoothing=0.1)"
    weights, ignored = loss.notes
    assert "mean weight" in weights
    assert "label 7 are ignored" in ignored
    assert "200 values from 0 to 199" in CrossEntropy(torch.arange(200.0)).name


def test_weights_are_a_copy() -> None:
    weight = torch.ones(3)
    loss = CrossEntropy(weight)
    weight[0] = 5.0
    assert float(loss.per_example(F, Y)[0]) == float(CrossEntropy().per_example(F, Y)[0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weight": torch.tensor([1.0, -2.0])}, r"weight of the cross-entropy\[1\] is -2\.0"),
        ({"weight": torch.tensor([torch.nan, 1.0])}, r"\[0\] is nan"),
        ({"weight": torch.zeros(3)}, "zero throughout"),
        ({"weight": torch.ones(5, 1)}, r"got shape \(5, 1\): weights of single examples"),
        ({"label_smoothing": 1.5}, r"in \[0, 1\], got 1\.5"),
    ],
)
def test_impossible_options_are_named(options: dict, message: str) -> None:
    with pytest.raises(ProblemError, match=message):
        CrossEntropy(**options)


@pytest.mark.parametrize(
    ("loss", "y", "message"),
    [
        (CrossEntropy(), Y.double(), r"must be integer class labels of shape \(N,\)"),
        (CrossEntropy(), Y[:, None], r"got torch.int64 of shape \(5, 1\)"),
        (CrossEntropy(), Y + 1, "train target 3 at row 2 is outside 0 … 2"),
        (CrossEntropy(), torch.tensor([0, -100, 2, -1, 0]), "target -1 at row 3 is outside"),
        (CrossEntropy(ignore_index=9), Y - 100, "target -100 at row 0 is outside"),
        (CrossEntropy(ignore_index=2), 0 * Y + 2, "every train target has the ignored label 2"),
        (CrossEntropy(torch.ones(4)), Y, "has 4 entries, but the model has 3 outputs"),
        (CrossEntropy(torch.ones(1)), Y, "has 1 entries, but the model has 3 outputs"),
        (CrossEntropy(torch.tensor([0.0, 1, 1])), 0 * Y, "or a class of weight zero"),
    ],
)
def test_bad_targets_are_named(loss: CrossEntropy, y: Tensor, message: str) -> None:
    with pytest.raises(ProblemError, match=message):
        loss.check(F, y, "train")


def test_a_single_output_is_refused_with_the_way_out() -> None:
    with pytest.raises(ProblemError, match=r"single output .*BCEWithLogitsLoss"):
        CrossEntropy().check(F[:, :1], 0 * Y, "train")
