"""Losses over positions: torch's on (N, C, d1, d2), and the mean of the losses of one position."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from decomposition.curvature import Sampled
from decomposition.errors import ProblemError
from decomposition.losses import BinaryCrossEntropy, CrossEntropy, Loss, MeanSquaredError, as_loss
from decomposition.losses.base import block_diagonal, by_position, side_by_side
from decomposition.retraining.trainer import mean_loss_gradient
from tests.losses.table import CASES, C, Case

N, PLACES = 4, (3, 2)
T = 6
DRAWS = 1000
LABELLED = {name: case for name, case in CASES.items() if name.startswith("cross_entropy")}
every_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)
labelled_case = pytest.mark.parametrize("case", LABELLED.values(), ids=LABELLED)


def shaped(case: Case) -> nn.Module:
    """Torch's loss; weights of the binary cross-entropy are those of channels."""
    loss = case.torchs
    if not isinstance(loss, nn.BCEWithLogitsLoss):
        return loss
    weights = (None if w is None else w[:, None, None] for w in (loss.weight, loss.pos_weight))
    return nn.BCEWithLogitsLoss(**dict(zip(("weight", "pos_weight"), weights, strict=True)))


def example(case: Case, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Outputs (N, C, 3, 2) as a model returns them, and targets."""
    f, y = case.example(N * T, seed=seed)
    places = f.unflatten(0, (N, *PLACES)).movedim(-1, 1)
    y = y.unflatten(0, (N, *PLACES))
    return places, y if isinstance(case.torchs, nn.CrossEntropyLoss) else y.movedim(-1, 1)


def unreduced(loss: nn.Module, f: Tensor, y: Tensor) -> Tensor:
    """Torch's losses of single positions, averaged over each example."""
    kept = loss.reduction
    loss.reduction = "none"  # type: ignore[assignment]
    values = loss(f, y).flatten(1).mean(1)
    loss.reduction = kept
    return values


@every_case
def test_losses_are_torchs_without_reduction(case: Case) -> None:
    f, y = example(case)
    ours = as_loss(shaped(case))
    expected = unreduced(shaped(case), f, y)
    torch.testing.assert_close(ours.per_example(f.flatten(1), y), expected, rtol=1e-14, atol=1e-15)


@every_case
def test_the_mean_is_torchs_where_no_label_is_ignored_or_weighted(case: Case) -> None:
    f, y = example(case)
    theirs, factor = shaped(case), 1.0
    if isinstance(theirs, nn.CrossEntropyLoss):
        weight = torch.ones(C, dtype=torch.float64) if theirs.weight is None else theirs.weight
        seen = y != theirs.ignore_index
        factor = float(weight[y[seen]].sum()) / (N * T)
    found = as_loss(theirs).per_example(f.flatten(1), y).mean()
    torch.testing.assert_close(found, theirs(f, y) * factor, rtol=1e-13, atol=0)


@every_case
def test_hessian_is_that_of_torchs_loss(case: Case) -> None:
    f, y = example(case)
    theirs = shaped(case)

    def one(outputs: Tensor, target: Tensor) -> Tensor:
        return unreduced(theirs, outputs.unflatten(0, (C, *PLACES))[None], target[None])[0]

    rows = zip(f.flatten(1), y, strict=True)
    expected = torch.stack([torch.func.hessian(one)(outputs, t) for outputs, t in rows])
    found = as_loss(theirs).hessian(f.flatten(1), y)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-14)


@every_case
def test_hessian_is_that_of_single_positions_side_by_side(case: Case) -> None:
    """Block-diagonal over positions, with the matrices of one position over T on the diagonal."""
    f, y = example(case)
    found = as_loss(shaped(case)).hessian(f.flatten(1), y).view(N, C, T, C, T)
    alone, targets = case.example(N * T)
    blocks = case.ours.hessian(alone, targets).view(N, T, C, C) / T
    for t in range(T):
        for s in range(T):
            expected = blocks[:, t] if s == t else torch.zeros_like(blocks[:, t])
            torch.testing.assert_close(found[:, :, t, :, s], expected, rtol=1e-12, atol=1e-15)


@every_case
def test_root_times_its_transpose_is_the_hessian(case: Case) -> None:
    f, y = example(case)
    loss = as_loss(shaped(case))
    root = loss.hessian_sqrt(f.flatten(1), y)
    expected = loss.hessian(f.flatten(1), y)
    torch.testing.assert_close(root @ root.mT, expected, rtol=1e-12, atol=1e-14)


@every_case
def test_transforms_of_torch_func_follow_the_loss(case: Case) -> None:
    """vmap over models, grad, and jvp of grad (the Hessian's product) are those of a loop."""
    f, y = example(case)
    f, loss = f.flatten(1), as_loss(shaped(case))
    models = torch.stack([f, 0.5 * f])
    many = torch.func.vmap(loss.per_example, (0, None))(models, y)
    torch.testing.assert_close(many, torch.stack([loss.per_example(m, y) for m in models]))

    def gradient(outputs: Tensor) -> Tensor:
        return torch.func.grad(lambda o: loss.per_example(o, y).sum())(outputs)

    products = torch.func.vmap(lambda v: torch.func.jvp(gradient, (f,), (v,))[1])(models)
    expected = torch.einsum("ncd,knd->knc", loss.hessian(f, y), models)
    torch.testing.assert_close(products, expected, rtol=1e-10, atol=1e-13)


@every_case
def test_batched_gradient_is_that_of_each_model(case: Case) -> None:
    (f, y), (g, z) = example(case), example(case, seed=1)
    loss, both = as_loss(shaped(case)), torch.stack([f.flatten(1), g.flatten(1)])
    found = mean_loss_gradient(loss, both.clone(), torch.stack([y, z]))
    for row, outputs, targets in zip(found, both, (y, z), strict=True):
        expected = torch.func.grad(lambda o, t=targets: loss.per_example(o, t).mean())(outputs)
        torch.testing.assert_close(row, expected, rtol=1e-12, atol=1e-15)


@every_case
def test_second_moment_of_draws_is_the_hessian(case: Case) -> None:
    """Quadratic forms of R Rᵀ, by example, within four standard errors of Λ's."""
    f, y = example(case)
    f, loss = 0.3 * f.flatten(1), as_loss(shaped(case))
    root = DRAWS**0.5 * Sampled(DRAWS, seed=1).root(loss, f, y, 0)
    exact = loss.hessian(f, y)
    for frequency in (1.0, 2.0):
        direction = torch.cos(frequency * torch.arange(C * T, dtype=f.dtype))
        values = torch.einsum("nck,c->nk", root, direction).square()
        expected = torch.einsum("ncd,c,d->n", exact, direction, direction)
        error = values.std(1) / DRAWS**0.5
        assert float(((values.mean(1) - expected).abs() / (error + 1e-15)).max()) < 4


@every_case
def test_good_targets_pass_the_check(case: Case) -> None:
    f, y = example(case)
    torch.testing.assert_close(as_loss(shaped(case)).check(f, y, "train"), y, rtol=0, atol=0)


@labelled_case
def test_losses_are_those_of_numpy(case: Case) -> None:
    f, y = example(case)
    rows, labels = by_position(f.flatten(1), y)
    values = [case.one(*row) for row in zip(rows.numpy(), labels.numpy(), strict=True)]
    expected = np.reshape(values, (N, T)).mean(1)
    found = case.ours.per_example(f.flatten(1), y)
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-14)


def test_rows_of_positions_and_back() -> None:
    f = torch.arange(2.0 * C * T).view(2, C * T)
    y = torch.zeros(2, *PLACES)
    rows, _ = by_position(f, y)
    torch.testing.assert_close(rows[1 * T + 4], f.view(2, C, T)[1, :, 4])
    torch.testing.assert_close(side_by_side(rows, y), f)
    matrices = block_diagonal(rows[:, :, None], y)  # (2, C·T, T): a column for each position
    torch.testing.assert_close(matrices.sum(-1), f)
    assert int((matrices[1] != 0).sum(0).max()) == C


def test_an_example_that_is_ignored_throughout_is_zero_and_the_others_stay() -> None:
    f, y = example(CASES["cross_entropy"])
    padded = y.clone()
    padded[1] = -100
    loss = CrossEntropy()
    before, after = (loss.per_example(f.flatten(1), labels) for labels in (y, padded))
    assert float(after[1]) == 0.0
    torch.testing.assert_close(after[[0, 2, 3]], before[[0, 2, 3]], rtol=0, atol=0)
    assert float(loss.hessian(f.flatten(1), padded)[1].abs().max()) == 0.0


F = torch.randn(5, 3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
Y = torch.arange(20).view(5, 4) % 3


@pytest.mark.parametrize(
    ("loss", "f", "y", "message"),
    [
        (
            CrossEntropy(),
            F.transpose(1, 2),
            Y,
            r"shape \(5, 3\), one for every position of outputs \(N, C, d1, …\) = \(5, 4, 3\), got "
            r"torch.int64 of shape \(5, 4\): the classes come second, .* logits.transpose\(1, 2\)",
        ),
        (
            CrossEntropy(),
            F[..., None].movedim(1, -1),
            Y[..., None],
            r"return logits.movedim\(-1, 1\)",
        ),
        (CrossEntropy(), F, Y[:, 0], r"got torch.int64 of shape \(5,\): for one label an example"),
        (CrossEntropy(), F, Y.double(), r"shape \(5, 4\), .* got torch.float64"),
        (CrossEntropy(), F[:, :, 0], Y, r"\(5, 4\): labels of several positions go with outputs"),
        (CrossEntropy(), F, Y + 1, r"train target 3 at row 0, position 2 is outside 0 … 2: the .*"),
        (
            CrossEntropy(),
            F[:, :, :3].mT,
            7 * Y[:, :3],
            r"\(5, 3, 3\); where the classes come last, let the model return logits.transpose",
        ),
        (CrossEntropy(torch.ones(4)), F, Y, "4 entries, but the model has 3 outputs"),
        (CrossEntropy(ignore_index=1), F, 0 * Y + 1, "every train target has the ignored label 1"),
        (MeanSquaredError(), F, F.mT, r"outputs \(5, 3, 4\), got \(5, 4, 3\)"),
        (MeanSquaredError(), F[:, :1], F[:, 0], r"\(5, 1, 4\), got \(5, 4\): use y\[:, None\]"),
        (MeanSquaredError(), F, F / 0, "train target at row 0, output 0, 0 is -?inf"),
        (BinaryCrossEntropy(), F, F, r"train target .* at row 0, output 0, \d is outside \[0, 1\]"),
        (BinaryCrossEntropy(), F, F.mT, r"outputs \(5, 3, 4\), got \(5, 4, 3\)$"),
        (
            BinaryCrossEntropy(torch.ones(3)),
            F,
            F.sigmoid(),
            r"weight .* shape \(3,\), which torch does not .* outputs \(3, 4\): .* shape \(3, 1\)",
        ),
        (
            BinaryCrossEntropy(None, torch.ones(5, 3, 4)),
            F,
            F.sigmoid(),
            r"pos_weight .* shape \(5, 3, 4\), .* weights of single examples go into Problem",
        ),
    ],
)
def test_shapes_that_do_not_fit_are_named_with_the_way_out(
    loss: Loss, f: Tensor, y: Tensor, message: str
) -> None:
    with pytest.raises(ProblemError, match=message):
        loss.check(f, y, "train")


def test_weights_of_a_channel_say_their_shape() -> None:
    loss = BinaryCrossEntropy(torch.tensor([[1.0], [2.0]]))
    assert loss.name == "binary_cross_entropy(weight=[1, 2] of shape (2, 1))"
    with pytest.raises(ProblemError, match=r"weight .*\[1, 0\] is -2.0: weights are finite"):
        BinaryCrossEntropy(torch.tensor([[1.0], [-2.0]]))


def test_a_target_for_every_position_of_one_channel() -> None:
    found = BinaryCrossEntropy().check(F[:, :1], Y > 0, "train")
    torch.testing.assert_close(found, (Y[:, None] > 0).float())
