"""Losses: values of torch, Λ of autograd, S Sᵀ = Λ, and finite at the extremes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from decomposition.errors import ProblemError
from decomposition.losses import CrossEntropy, Loss, MeanSquaredError, as_loss

PAIRS = [(CrossEntropy(), nn.CrossEntropyLoss()), (MeanSquaredError(), nn.MSELoss())]


def example(loss: Loss, n: int = 6, c: int = 4, scale: float = 2.0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(n * c)
    f = scale * torch.randn(n, c, generator=generator, dtype=torch.float64)
    if isinstance(loss, CrossEntropy):
        return f, torch.arange(n) % c
    return f, torch.randn(n, c, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize(("ours", "theirs"), PAIRS)
def test_the_mean_is_torchs_loss(ours: Loss, theirs: nn.Module) -> None:
    f, y = example(ours)
    torch.testing.assert_close(ours.per_example(f, y).mean(), theirs(f, y), rtol=1e-12, atol=0)


@pytest.mark.parametrize(("ours", "theirs"), PAIRS)
def test_hessian_is_that_of_torch_func(ours: Loss, theirs: nn.Module) -> None:
    f, y = example(ours)
    expected = torch.stack(
        [
            torch.func.hessian(lambda o, t=t: theirs(o[None], t[None]))(o)
            for o, t in zip(f, y, strict=True)
        ]
    )
    torch.testing.assert_close(ours.hessian(f, y), expected, rtol=1e-12, atol=1e-14)


def test_cross_entropy_hessian_by_numpy() -> None:
    f, y = example(CrossEntropy())
    p = np.exp(f.numpy()) / np.exp(f.numpy()).sum(1, keepdims=True)
    expected = np.stack([np.diag(row) - np.outer(row, row) for row in p])
    np.testing.assert_allclose(CrossEntropy().hessian(f, y), expected, rtol=1e-12, atol=1e-15)


@settings(deadline=None)
@given(n=st.integers(1, 5), c=st.integers(2, 6), scale=st.floats(0.0, 50.0))
@pytest.mark.parametrize("loss", [CrossEntropy(), MeanSquaredError()])
def test_root_times_its_transpose_is_the_hessian(loss: Loss, n: int, c: int, scale: float) -> None:
    f, y = example(loss, n, c, scale)
    root = loss.hessian_sqrt(f, y)
    torch.testing.assert_close(root @ root.mT, loss.hessian(f, y), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("logit", [1e2, 1e4, 1e150])
def test_extreme_logits_stay_finite(logit: float) -> None:
    f = torch.tensor([[logit, 0.0, -logit], [-logit, logit, logit]], dtype=torch.float64)
    y = torch.tensor([2, 0])
    loss = CrossEntropy()
    assert bool(torch.isfinite(loss.per_example(f, y)).all())
    hessian, root = loss.hessian(f, y), loss.hessian_sqrt(f, y)
    assert bool(torch.isfinite(hessian).all())
    assert bool(torch.isfinite(root).all())
    torch.testing.assert_close(root @ root.mT, hessian, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("loss", [CrossEntropy(), MeanSquaredError()])
def test_hessian_is_positive_semidefinite(loss: Loss) -> None:
    f, y = example(loss, scale=10.0)
    assert float(torch.linalg.eigvalsh(loss.hessian(f, y)).min()) > -1e-15


def test_our_own_loss_and_torchs_are_the_same_thing() -> None:
    own = MeanSquaredError()
    assert as_loss(own) is own
    assert isinstance(as_loss(nn.CrossEntropyLoss()), CrossEntropy)
    assert isinstance(as_loss(nn.MSELoss()), MeanSquaredError)


def test_a_subclass_of_torchs_loss_is_not_taken_for_it() -> None:
    class Focal(nn.CrossEntropyLoss):
        def forward(self, input: Tensor, target: Tensor) -> Tensor:
            return super().forward(input, target).square()

    with pytest.raises(ProblemError, match="Focal is not supported"):
        as_loss(Focal())
