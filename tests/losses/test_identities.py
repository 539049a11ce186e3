"""Every loss: torch's values, Λ of three oracles, S Sᵀ = Λ, and finite at the extremes."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.losses.table import CASES, Case, numerical_hessian

every_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


@every_case
def test_losses_are_torchs_without_reduction(case: Case) -> None:
    f, y = case.example()
    torch.testing.assert_close(case.ours.per_example(f, y), case.unreduced(f, y), rtol=0, atol=0)


@every_case
def test_losses_are_those_of_numpy(case: Case) -> None:
    f, y = case.example()
    expected = [case.one(*row) for row in zip(f.numpy(), y.numpy(), strict=True)]
    np.testing.assert_allclose(case.ours.per_example(f, y), expected, rtol=1e-12, atol=1e-14)


@every_case
def test_hessian_is_that_of_torchs_loss(case: Case) -> None:
    f, y = case.example()

    def one(outputs: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return case.unreduced(outputs[None], target[None])[0]

    rows = zip(f, y, strict=True)
    expected = torch.stack([torch.func.hessian(one)(outputs, t) for outputs, t in rows])
    torch.testing.assert_close(case.ours.hessian(f, y), expected, rtol=1e-12, atol=1e-14)


@every_case
def test_hessian_is_that_of_finite_differences(case: Case) -> None:
    f, y = case.example(scale=1.0)
    rows = zip(f.numpy(), y.numpy(), strict=True)
    expected = np.stack([numerical_hessian(case, *row) for row in rows])
    np.testing.assert_allclose(case.ours.hessian(f, y), expected, rtol=0, atol=2e-6)


@every_case
@settings(deadline=None, max_examples=20)
@given(n=st.integers(2, 5), scale=st.floats(0.0, 50.0), seed=st.integers(0, 9))
def test_root_times_its_transpose_is_the_hessian(
    case: Case, n: int, scale: float, seed: int
) -> None:
    f, y = case.example(n, scale, seed)
    root = case.ours.hessian_sqrt(f, y)
    torch.testing.assert_close(root @ root.mT, case.ours.hessian(f, y), rtol=1e-12, atol=1e-14)


@every_case
def test_hessian_is_positive_semidefinite(case: Case) -> None:
    f, y = case.example(scale=10.0)
    assert float(torch.linalg.eigvalsh(case.ours.hessian(f, y)).min()) > -1e-15


@every_case
@pytest.mark.parametrize("logit", [1e2, 1e4, 1e100])
def test_extreme_outputs_stay_finite(case: Case, logit: float) -> None:
    _, y = case.example(n=2)
    row = torch.tensor([logit, 0.0, -logit, 1.0], dtype=torch.float64)
    f = torch.stack([row, -row])
    loss = case.ours
    hessian, root = loss.hessian(f, y), loss.hessian_sqrt(f, y)
    for values in (loss.per_example(f, y), hessian, root):
        assert bool(torch.isfinite(values).all())
    torch.testing.assert_close(root @ root.mT, hessian, rtol=1e-12, atol=1e-14)


@every_case
def test_transforms_of_torch_func_follow_the_loss(case: Case) -> None:
    """vmap over models, grad, and jvp of grad (the Hessian's product) are those of a loop."""
    f, y = case.example()
    models = torch.stack([f, 0.5 * f, f.flip(1)])
    loss = case.ours
    many = torch.func.vmap(loss.per_example, (0, None))(models, y)
    torch.testing.assert_close(many, torch.stack([loss.per_example(m, y) for m in models]))

    def gradient(outputs: torch.Tensor) -> torch.Tensor:
        return torch.func.grad(lambda o: loss.per_example(o, y).sum())(outputs)

    products = torch.func.vmap(lambda v: torch.func.jvp(gradient, (f,), (v,))[1])(models)
    expected = torch.einsum("ncd,knd->knc", loss.hessian(f, y), models)
    torch.testing.assert_close(products, expected, rtol=1e-10, atol=1e-13)


@every_case
def test_single_precision_is_kept(case: Case) -> None:
    f, y = case.example()
    low = y.float() if y.is_floating_point() else y
    assert case.ours.per_example(f.float(), low).dtype == torch.float32
    torch.testing.assert_close(
        case.ours.per_example(f.float(), low).double(),
        case.ours.per_example(f, y),
        rtol=1e-5,
        atol=1e-6,
    )


@every_case
def test_good_targets_pass_the_check(case: Case) -> None:
    f, y = case.example()
    torch.testing.assert_close(case.ours.check(f, y, "train"), y, rtol=0, atol=0)


@every_case
def test_copies_and_pickles_are_the_same_loss(case: Case) -> None:
    f, y = case.example()
    for again in (copy.deepcopy(case.ours), pickle.loads(pickle.dumps(case.ours))):
        assert again.name == case.ours.name
        torch.testing.assert_close(again.per_example(f, y), case.ours.per_example(f, y))
